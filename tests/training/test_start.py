"""What a stage takes over from a run or a weights directory, and what it refuses."""

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import stage1, tagging
from ltu_jax import checkpoint
from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import Llama
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.training.initialize import label_head, starting_adapter
from ltu_jax.training.stage_config import stage_settings
from ltu_jax.training.state import TrainState
from ltu_jax.weights.store import save_weights

WHISPER = dict(
    n_mels=80, n_audio_ctx=1500, n_audio_state=16, n_audio_head=2, n_audio_layer=2, n_vocab=64,
    n_text_ctx=448, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip
LLAMA = dict(
    vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6,
    rope_theta=10000.0, rope_scaling=None, tie_word_embeddings=True, attention_bias=False,
)  # fmt: skip
TLTR = TLTRConfig(d_model=16, time_heads=1, layer_heads=8)
LABELS = ("Speech", "Music", "Dog")


@functools.cache
def tagger(labels, *, tltr=TLTR, d_input=None):
    return Tagger.functional(
        TaggerConfig(tltr=tltr, labels=labels, d_input=d_input, audio_layers=None)
    )


def functions(config: LTUASConfig | None, n_labels: int):
    """The same object for the same model, so that its initialiser is compiled once."""
    return tagger(n_labels) if config is None else LTUAS.functional(config)


def stage(name: str, *, labels=LABELS, **settings) -> SimpleNamespace:
    """What `starting_adapter` needs of a stage, at toy size."""
    config = {"tagging": tagging, "stage1": stage1}[name].get_config("mini")
    config.init_from = settings.get("init_from", "")
    config.weights.tltr = settings.get("tltr", "")
    config.allow_random_tltr = settings.get("random", False)
    config.head_clips = settings.get("head_clips", 0)
    config.model.whisper = ConfigDict(WHISPER)
    config.model.tltr = ConfigDict(dataclasses.asdict(TLTR))
    if name != "tagging":
        config.model.llama = ConfigDict(LLAMA)
    parsed = stage_settings(json.loads(json.dumps(config.to_dict())))
    fns = functions(None if name == "tagging" else parsed.model.ltu_as(), len(labels))
    return SimpleNamespace(settings=parsed, model=fns, pipeline=SimpleNamespace(labels=labels))


def start(name: str, **settings) -> dict[str, np.ndarray]:
    return starting_adapter(stage(name, **settings))


def random(shapes, *, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        path: rng.standard_normal(leaf.shape, dtype=np.float32) for path, leaf in shapes.items()
    }


@pytest.fixture
def make_tagger(tmp_path):
    """Write a "tltr" weights directory; returns its path and parameters."""

    def make(
        *, tltr=TLTR, d_input=None, audio_layers=2, labels=LABELS, table=True, dtype="float32"
    ):
        config = TaggerConfig(
            tltr=tltr, labels=len(LABELS), d_input=d_input, audio_layers=audio_layers
        )
        shapes = tagger(len(LABELS), tltr=tltr, d_input=d_input).shapes
        params = {path: leaf.astype(dtype) for path, leaf in random(shapes).items()}
        rows = [f"{i},/m/{i},{label}\n" for i, label in enumerate(LABELS)]
        save_weights(
            tmp_path / "tltr",
            kind="tltr",
            config=dataclasses.asdict(config),
            params=params,
            source={"format": "whisper-at"},
            files={"labels.csv": "index,mid,display_name\n" + "".join(rows)} if table else {},
        )
        return str(tmp_path / "tltr"), params

    return make


def make_ltu_as(folder, *, lora: LoRAConfig | None) -> tuple[str, dict[str, np.ndarray]]:
    config = LTUASConfig(
        tltr=TLTR,
        llama=stage("stage1").settings.model.llama,
        lora=lora,
        audio_layers=2,
        audio_tokens=25,
    )
    params = random(LTUAS.functional(config).shapes, seed=1)
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    save_weights(folder, kind="ltu-as", config=values, params=params, source={})
    return str(folder), params


def assert_taken(adapter, params, prefix: str) -> None:
    paths = [path for path in params if path.startswith(prefix)]
    assert paths
    for path in paths:
        np.testing.assert_array_equal(adapter[path], params[path], err_msg=path)


@pytest.mark.parametrize("key", ["tltr", "init_from"])
def test_stage_1_starts_from_a_whisper_at_tagger(key, make_tagger):
    path, params = make_tagger()
    adapter = start("stage1", **{key: path})
    assert adapter.keys() == {p for p in adapter if p.startswith(("tltr.", "audio_proj."))}
    assert_taken(adapter, params, "tltr.")


def test_a_float16_tagger_becomes_float32_masters(make_tagger):
    path, params = make_tagger(dtype="float16")
    adapter = start("stage1", tltr=path)
    assert {leaf.dtype for leaf in adapter.values()} == {np.dtype(np.float32)}
    assert_taken(adapter, params, "tltr.")


def test_weights_tltr_of_ltu_as_gives_the_tltr_alone(tmp_path):
    lora = LoRAConfig(rank=2, alpha=4.0, dropout=0.0, targets=("q_proj",))
    path, params = make_ltu_as(tmp_path / "ltu-as", lora=lora)
    fresh = start("stage1", random=True)
    adapter = start("stage1", tltr=path)
    assert_taken(adapter, params, "tltr.")
    assert_taken(adapter, fresh, "audio_proj.")
    with pytest.raises(UserError, match="parameters that stage1 has no place for: .*lora_a"):
        start("stage1", init_from=path)


def test_init_from_ltu_as_of_stage_1_gives_the_projection_too(tmp_path):
    path, params = make_ltu_as(tmp_path / "ltu-as", lora=None)
    adapter = start("stage1", init_from=path)
    assert_taken(adapter, params, "tltr.")
    assert_taken(adapter, params, "audio_proj.")


def test_a_projection_that_is_there_is_not_fitted_anew_unasked(tmp_path, make_tagger):
    path, params = make_ltu_as(tmp_path / "ltu-as", lora=None)
    with pytest.raises(UserError, match="has a projection, and config.head_clips=5"):
        start("stage1", init_from=path, head_clips=5)
    assert_taken(start("stage1", tltr=path, head_clips=5), params, "tltr.")
    tagged, params = make_tagger()
    assert_taken(start("stage1", init_from=tagged, head_clips=5), params, "tltr.")


def test_weights_without_a_tltr_are_refused(tmp_path):
    whisper = Whisper(WhisperConfig(**WHISPER))
    save_weights(
        tmp_path / "whisper", kind="whisper", config=WHISPER, params=random(whisper.shapes),
        source={},
    )  # fmt: skip
    llama = Llama.functional(stage("stage1").settings.model.llama)
    save_weights(
        tmp_path / "llama", kind="llama", config=LLAMA, params=random(llama.shapes), source={}
    )
    for kind in ("whisper", "llama"):
        with pytest.raises(UserError, match=f"holds '{kind}' weights, which have no TLTR"):
            start("stage1", tltr=str(tmp_path / kind))
    with pytest.raises(UserError, match="nowhere does not exist"):
        start("stage1", tltr=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["stage1", "tagging"])
def test_the_low_variant_is_refused_with_all_widths(name, make_tagger):
    path, _ = make_tagger(tltr=dataclasses.replace(TLTR, d_model=8), d_input=16)
    with pytest.raises(UserError) as error:
        start(name, tltr=path)
    message = str(error.value)
    for part in ("low variant", "features of width 16", "TLTR of width 8", "TLTR of width 16",
                 "NAME_ori.pth"):  # fmt: skip
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(tltr=dataclasses.replace(TLTR, d_model=24)), "d_model is 24 there and 16 here"),
        (dict(tltr=dataclasses.replace(TLTR, time_heads=2)), "time_heads is 2 there and 1 here"),
        (dict(audio_layers=4), "audio_layers is 4 there and 2 here"),
    ],
)
def test_the_tltr_of_another_encoder_is_refused(changes, message, make_tagger):
    path, _ = make_tagger(**changes)
    with pytest.raises(UserError, match=f"{message}; give the one of the Whisper"):
        start("stage1", tltr=path)


def test_an_unknown_number_of_layers_is_no_obstacle(make_tagger):
    path, params = make_tagger(audio_layers=None)
    assert_taken(start("stage1", tltr=path), params, "tltr.")


@pytest.mark.parametrize("key", ["tltr", "init_from"])
@pytest.mark.parametrize("table", [True, False])
def test_tagging_goes_on_with_the_label_head(key, table, make_tagger, capsys):
    path, params = make_tagger(table=table)
    assert_taken(start("tagging", **{key: path}), params, "")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("labels", [("Speech", "Dog", "Music"), ("Speech", "Cat")])
def test_tagging_with_other_labels_begins_a_new_head(labels, make_tagger, capsys):
    path, params = make_tagger()
    fresh = start("tagging", labels=labels)
    adapter = start("tagging", labels=labels, tltr=path)
    assert_taken(adapter, params, "tltr.")
    assert_taken(adapter, fresh, "label_head.")
    said = capsys.readouterr().out
    assert f"its 3 labels are not the {len(labels)} of these records" in said


def save_run(folder, params, *, tltr=TLTR) -> str:
    step = jax.numpy.zeros((), jax.numpy.int32)
    state = TrainState(step=step, trainable=params, opt_state={"count": np.zeros(1)})
    checkpoint.save(
        folder,
        state=state,
        adapter=params,
        metadata={
            "kind": "tagger-checkpoint",
            "model": {"tltr": dataclasses.asdict(tltr), "audio_layers": 2, "audio_tokens": 25},
            "labels": list(LABELS),
            "base": {},
        },
        keep=1,
    )
    return str(folder)


def test_a_tagging_run_says_as_much_as_a_weights_directory(tmp_path):
    params = random(tagger(3).shapes)
    run = save_run(tmp_path / "run", params)
    assert_taken(start("stage1", init_from=run), params, "tltr.")
    assert_taken(start("stage1", tltr=run), params, "tltr.")
    assert_taken(start("tagging", init_from=run), params, "")
    # equal shapes, another function: only the config can tell
    other = save_run(tmp_path / "other", params, tltr=dataclasses.replace(TLTR, layer_heads=4))
    with pytest.raises(UserError, match="layer_heads is 4 there and 8 here"):
        start("stage1", init_from=other)


def test_a_projection_is_fitted_to_the_head_of_a_tagger_that_names_its_labels(make_tagger):
    path, params = make_tagger()
    labels, head = label_head(stage("stage1", tltr=path, head_clips=5).settings)
    assert labels == LABELS
    assert head.keys() == {name for name in params if name.startswith("label_head.")} != set()
    for name, values in head.items():
        np.testing.assert_array_equal(values, params[name])


@pytest.mark.parametrize("source", ["nameless", "ltu-as", "none"])
def test_what_names_no_labels_fits_no_projection(make_tagger, tmp_path, source):
    given = {"random": True}
    if source == "nameless":
        given = {"tltr": make_tagger(table=False)[0]}
    elif source == "ltu-as":
        given = {"tltr": make_ltu_as(tmp_path / "model", lora=None)[0]}
    named = given.get("tltr", "a random TLTR")
    with pytest.raises(UserError, match=f"head_clips=5 .*{named} has no label head"):
        label_head(stage("stage1", head_clips=5, **given).settings)
