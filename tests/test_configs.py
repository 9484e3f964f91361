"""What each config says and what it trains, as text files: a change is a visible difference.

`LTU_JAX_UPDATE_GOLDEN=1 pytest tests/test_configs.py` writes the files anew.
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import common, curriculum, own_sounds, stage1, stage2, stage3, tagging
from configs.ablations import audio_only, only, speech_only
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh, param_specs
from ltu_jax.core.trees import count, label
from ltu_jax.models.ltu_as import LTUAS
from ltu_jax.models.tltr import Tagger, TaggerConfig
from ltu_jax.train import parse_config, resolve
from ltu_jax.training.optimizer import make_optimizer
from ltu_jax.training.stage import leaves
from ltu_jax.training.stage_config import StageSettings, stage_settings
from tests.support.golden_model import optimizer_config

# What may follow the colon of an ablation, without machines.
RECIPES = [choice for choice, (_, preset) in only.CHOICES.items() if preset in common.PRESETS]
FILES = {"tagging": tagging, "stage1": stage1, "stage2": stage2, "stage3": stage3}
GOLDEN = Path(__file__).resolve().parent / "golden" / "configs"
ABLATIONS = {"audio_only": audio_only, "speech_only": speech_only}
CASES = [(stage, preset) for stage in FILES for preset in common.PRESETS]
AUDIOSET_LABELS = 527


def settings_of(stage: str, preset: str) -> tuple[StageSettings, dict]:
    plain = json.loads(json.dumps(FILES[stage].get_config(preset).to_dict()))
    return stage_settings(plain), plain


def shapes_of(settings: StageSettings) -> dict:
    if settings.stage == "tagging":
        return Tagger.functional(
            TaggerConfig(
                tltr=settings.model.tltr, labels=AUDIOSET_LABELS, d_input=None, audio_layers=None
            )
        ).shapes
    return LTUAS.functional(settings.model.ltu_as()).shapes


def described(stage: str, preset: str) -> str:
    """Resolved config, then every parameter: path, shape, dtype, trained?, partition."""
    settings, plain = settings_of(stage, preset)
    shapes = shapes_of(settings)
    trained = label(settings.trainable, shapes)
    # 135M has 3 key/value heads and cannot be cut in two; only its own presets are that small.
    sizes = MeshConfig(data=8, fsdp=1, tensor=1)
    if preset not in ("mini", "real"):
        sizes = MeshConfig(data=2, fsdp=2, tensor=2)
    specs = param_specs(shapes, make_mesh(sizes, jax.devices()))
    lines = [json.dumps(plain, indent=1, sort_keys=True), ""]
    for path in sorted(shapes):
        leaf = shapes[path]
        kept = "trained" if trained[path] else "frozen"
        lines.append(f"{path} {tuple(leaf.shape)} {leaf.dtype} {kept} {specs[path]}")
    chosen = {path: leaf for path, leaf in shapes.items() if trained[path]}
    lines.append(f"total {count(shapes)} trained {count(chosen)}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("stage, preset", CASES)
def test_config_and_parameters_are_as_recorded(stage, preset):
    as_recorded(f"{stage}{'_' if preset else ''}{preset}.txt", described(stage, preset))


def as_recorded(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("LTU_JAX_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} differs; is this change meant?"


@pytest.mark.parametrize(
    "stage, total, trained",
    [
        ("stage1", 6_783_014_912, 5_246_976),
        ("stage2", 6_787_209_216, 48_793_600),
        ("stage3", 6_787_209_216, 48_793_600),
    ],
)
def test_full_size_counts(stage, total, trained):
    settings, _ = settings_of(stage, "")
    shapes = shapes_of(settings)
    labels = label(settings.trainable, shapes)
    assert count(shapes) == total
    assert count({path: leaf for path, leaf in shapes.items() if labels[path]}) == trained


@pytest.mark.parametrize("stage, preset", CASES)
def test_group_rates_cover_what_is_trained(stage, preset):
    settings, _ = settings_of(stage, preset)
    labels = label(settings.trainable, shapes_of(settings))
    paths = [path for path, flag in labels.items() if flag]
    tx = make_optimizer(settings.optimizer, paths=paths, steps=1000)
    # Equal gradients, so what a step moves is the rate of its group; warm-up begins at 0.
    params = dict.fromkeys(paths, np.zeros((), np.float32))
    gradients, state = dict.fromkeys(paths, np.ones((), np.float32)), tx.init(params)
    for _ in range(2):
        updates, state = tx.update(gradients, state, params)
    rate = settings.optimizer.learning_rate / settings.optimizer.warmup_steps
    slow = {}
    if stage in ("stage2", "stage3"):  # what has been trained, or fitted, before
        slow = {"mini": {"tltr": 0.1}, "real": {"audio_proj": 0.3}}.get(preset, {})
    for path, update in updates.items():
        factor = slow.get(path.partition(".")[0], 1.0)
        np.testing.assert_allclose(update, -rate * factor, rtol=1e-4, err_msg=path)
    assert updates.keys() == set(paths) and len(paths) > 1


def test_poster_recipe():
    for stage, rate, epochs, tasks in (
        ("stage1", 1e-3, 2.0, "classification"),
        ("stage2", 2e-4, 2.0, "classification"),
        ("stage3", 2e-4, 1.0, "all"),
    ):
        settings, _ = settings_of(stage, "")
        assert settings.optimizer == optimizer_config(learning_rate=rate)
        data = settings.data
        assert (data.rows_per_batch, data.cutoff, data.train_on) == (32, 108, "all")
        assert (data.epochs, data.tasks, data.layout) == (epochs, (tasks,), "grouped")
        assert settings.compute.dtype == "bfloat16"
        assert (settings.model.lora is None) == (stage == "stage1")


def test_released_recipe():
    second, third = settings_of("stage2", "released")[0], settings_of("stage3", "released")[0]
    assert second.optimizer.learning_rate == 1e-4
    assert (second.data.cutoff, second.data.rows_per_batch) == (128, 240)
    assert (third.data.cutoff, third.data.epochs) == (160, 2.0)
    assert third.data.rows_per_batch == 256
    for stage, micro in (("stage1", 8), ("stage2", 6), ("stage3", 4)):
        settings = settings_of(stage, "released")[0]
        assert settings.data.micro_rows == micro  # official micro-batches of 4 to 8 rows
        assert settings.data.rows_per_batch % micro == 0
        assert (settings.data.group_by_length, settings.data.lengths) == (50, ())
        assert (settings.data.layout, settings.optimizer.loss_mean) == ("reference", "micro")


@pytest.mark.parametrize(
    ("flags", "tasks"),
    [
        ((), ("all",)),
        (("classification",), ("classification",)),
        (("cla_*",), ("cla_*",)),
        (("classification", "ASR"), ("classification", "ASR")),
        (("('age_cla', 'gender*')",), ("age_cla", "gender*")),
    ],
)
def test_tasks_are_a_name_or_several(flags, tasks):
    given = ["--config=configs/stage3.py", *(f"--config.data.tasks={flag}" for flag in flags)]
    assert stage_settings(resolve(parse_config(given))[0]).data.tasks == tasks
    config = FILES["stage3"].get_config("")
    for value in (tasks, list(tasks), tasks[0]):
        config.data.tasks = value
    for value in (3, (3,)):
        with pytest.raises(TypeError):
            config.data.tasks = value


def test_stages_follow_each_other():
    for preset in common.PRESETS:
        for before, after in (("tagging", "stage1"), ("stage1", "stage2"), ("stage2", "stage3")):
            assert settings_of(after, preset)[0].init_from == settings_of(before, preset)[0].run_dir


@pytest.mark.parametrize("preset", common.PRESETS)
def test_the_curriculum_is_its_stages(preset):
    config = curriculum.get_config(preset)
    for name in curriculum.STAGES:
        expected = FILES[name].get_config(preset).to_dict()
        assert config[name].to_dict() == expected


def test_shared_keys_of_the_curriculum_reach_every_stage():
    config = curriculum.get_config("mini")
    config.run_dir, config.seed, config.records = "elsewhere", 7, "R"
    config.weights.whisper = "W"
    for name in curriculum.STAGES:
        stage = config[name]
        assert stage.run_dir == f"elsewhere/{name}" and stage.seed == 7
        assert (stage.data.records, stage.weights.whisper) == ("R", "W")
    assert config.stage2.init_from == "elsewhere/stage1"
    assert config.tagging.weights.llama == "" != config.stage1.weights.llama


def apart(choice: str, config) -> list[str]:
    """Every key of the stages of an ablation that the full training has otherwise."""
    _, preset = only.CHOICES[choice]
    lines = []
    for stage in resolve(config):
        stage_settings(stage)
        here, full = leaves(stage), leaves(settings_of(stage["stage"], preset)[1])
        lines += [
            f"{choice or '(none)'}: {stage['stage']}.{key} {full.get(key)!r} -> {here.get(key)!r}"
            for key in sorted(here.keys() | full.keys())
            if here.get(key) != full.get(key)
        ]
    return lines


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablations_differ_from_the_full_training_as_recorded(name):
    get_config = ABLATIONS[name].get_config
    lines = [line for choice in RECIPES for line in apart(choice, get_config(choice))]
    as_recorded(f"{name}.txt", "\n".join(lines) + "\n")


def test_a_stage_of_an_ablation_is_that_of_its_curriculum():
    for choice in (*RECIPES, "v5e-64", "stage3-v5e-64", "stage3-released-v5e-16"):
        stage, preset = only.CHOICES[choice]
        whole = audio_only.get_config(preset)
        one = whole[stage] if stage else whole
        assert audio_only.get_config(choice).to_dict() == one.to_dict()


def test_an_ablated_curriculum_follows_its_shared_keys():
    config = speech_only.get_config("mini")
    config.run_dir, config.records, config.weights.tltr = "elsewhere", "R", "T"
    stages = resolve(config)  # TLTR weights are given: nothing to tag
    assert [stage["stage"] for stage in stages] == ["stage1", "stage2", "stage3"]
    assert [stage["run_dir"] for stage in stages] == [f"elsewhere/stage{n}" for n in (1, 2, 3)]
    assert all(stage["data"]["records"] == "R" for stage in stages)
    assert all(stage["data"]["datasets"] == ["speech"] for stage in stages)


def test_unknown_choice_of_an_ablation():
    with pytest.raises(UserError, match="unknown choice 'stage4' of audio_only; known: '', 'mini'"):
        audio_only.get_config("stage4")


def test_unknown_preset():
    with pytest.raises(
        UserError, match="unknown config preset 'tiny'; known: '', 'mini', 'real', "
    ):
        stage3.get_config("tiny")


def test_every_key_has_a_comment():
    """A line of `base` that sets a key explains it, on the line or in the line above."""
    source = Path(common.__file__).read_text().split("def base", 1)[1].split("def mini_sizes")[0]
    lines = source.splitlines()
    for number, line in enumerate(lines):
        if not line.strip().startswith("config.") or "sources" in line:
            continue
        above = lines[number - 1].strip().startswith("#")
        assert "#" in line or above, line


def test_a_config_of_the_package_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_config(["--config=configs/stage2.py:mini"]).stage == "stage2"
    assert parse_config(["--config=configs/ablations/audio_only.py"]).stage == "curriculum"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "stage2.py").write_text(
        "from configs import stage1\n\ndef get_config(preset=''):\n    return stage1.get_config()\n"
    )
    assert parse_config(["--config=configs/stage2.py"]).stage == "stage1"  # one's own goes first
    for path in ("configs/../setup.py", "ltu_jax/train.py"):
        with pytest.raises(UserError, match=path):
            parse_config([f"--config={path}"])


@pytest.mark.parametrize("compute, remat", [({}, "lora"), ({"remat": "none"}, "none")])
def test_a_fine_tuning_spends_memory_as_its_model_did_and_else_little(tmp_path, compute, remat):
    """The mini recipe, whose values it takes, keeps every activation."""
    mini = stage3.get_config("mini")
    model = {name: mini.model[name].to_dict() for name in ("tltr", "llama")}
    start = dict.fromkeys(own_sounds.KEYS, "x") | {
        "model": model | {"lora": None, "audio_tokens": 25},
        "whisper_config": mini.model.whisper.to_dict(),
        "steps": 40,
        "compute": compute,
    }
    file = tmp_path / "start.json"
    file.write_text(json.dumps(start))
    assert own_sounds.get_config(str(file)).compute.remat == remat
