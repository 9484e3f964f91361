"""Names, shapes and counts at the true sizes, without an array: the golden lists of 7B, and 13B."""

import json
import math
import re

import pytest
import tiny_models as tiny

from ltu_jax.weights.formats import official_ltu_as, peft_adapter
from ltu_jax.weights.formats.ltu_as_base import BaseModel
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.shapes import model_shapes

ROOT = "base_model.model."
SAVED = "saved_by_trainer_stage2_3 (names with 'lora' or 'audio')"


@pytest.fixture(scope="module")
def truth():
    from pathlib import Path

    file = Path(__file__).resolve().parent.parent / "golden" / "ltu_as_7b_names.json"
    return json.loads(file.read_text())


def _model(*arguments, **changes):
    """Config and shapes of LTU-AS at a true size."""
    return model_shapes("ltu-as", tiny.as_dict(tiny.released_config(*arguments, **changes)))


def _official(model, **options):
    """Names and shapes that an export writes; the two functions that tell them must agree."""
    config, shapes = model
    found = tiny.official_shapes(config, shapes, **options)
    written = official_ltu_as.to_official(config, tiny.hollow(shapes), **options)
    assert {name: tensor.shape for name, tensor in written.items()} == found
    return found


def _shapes(mapping):
    return {name: tuple(shape) for name, shape in mapping.items()}


def _count(shapes):
    return sum(math.prod(shape) for shape in shapes.values())


def test_the_complete_state_dict_has_483_names(truth):
    found = _official(_model())
    assert len(found) == 483 and found == _shapes(truth["peft_state_dict"])


def test_the_trainer_saves_160_of_them(truth):
    found = _official(_model(), adapter_only=True)
    assert len(found) == 160 and set(found) == set(truth[SAVED])
    assert found.items() <= _shapes(truth["peft_state_dict"]).items()


def test_stage_1_has_32_and_no_lora(truth):
    model = _model(rank=None)
    found = _official(model, adapter_only=True)
    assert len(found) == 32 and set(found) == set(truth["saved_by_trainer_stage1"])
    assert found.items() <= _shapes(truth["peft_state_dict"]).items()
    plain = {name.removeprefix(ROOT): shape for name, shape in _official(model).items()}
    assert plain == _shapes(truth["base_state_dict_no_peft"])


@pytest.mark.parametrize("adapter_only", [False, True])
def test_peft_spelling_differs_by_default_alone(truth, adapter_only):
    found = _official(_model(), adapter_only=adapter_only, spelling="peft")
    names = truth[SAVED] if adapter_only else truth["peft_state_dict"]
    assert set(found) == {name.replace(".default.", ".") for name in names}
    assert {official_ltu_as.canonical(name) for name in found} == set(names)


@pytest.mark.parametrize("prefix", [ROOT, ""])
@pytest.mark.parametrize("default", [".default.", "."])
def test_every_spelling_is_read_as_the_official_one(truth, prefix, default):
    for name in truth["peft_state_dict"]:
        spelt = prefix + name.removeprefix(ROOT).replace(".default.", default)
        assert official_ltu_as.canonical(spelt) == name


def test_parameter_counts(truth):
    counts = truth["counts"]
    config, shapes = _model()
    adapter = {path: shape for path, shape in shapes.items() if is_adapter(path)}
    lora = {path: shape for path, shape in adapter.items() if ".lora_" in path}
    projection = {path: shape for path, shape in shapes.items() if path.startswith("audio_proj.")}
    assert _count(lora) == counts["lora"] == 4_194_304
    assert _count(projection) == counts["audio_proj"] == counts["trainable_stage1"] == 5_246_976
    assert _count(adapter) == counts["trainable_stage2_3"] == 48_793_600
    assert _count(adapter) - _count(lora) - _count(projection) == counts["tltr"] == 39_352_320
    assert _count(shapes) == counts["all"] == 6_787_209_216
    assert _count(_model(rank=None)[1]) == counts["all"] - counts["lora"]
    # what the official scripts print; inv_freq are buffers and not counted
    printed = truth["print_trainable_parameters"]
    assert f"trainable params: {_count(adapter)} ||" in printed["stage2_3_all"]
    assert f"all params: {_count(shapes)} ||" in printed["stage2_3_all"]
    saved = _official((config, shapes), adapter_only=True)
    assert _count(saved) == _count(adapter)


def _grown(shapes):
    """The 7B list as 13B has it: 40 layers, widths 5120 and 13824; the audio part as it is."""
    width = {4096: 5120, 11008: 13824}
    grown = {}
    for name, shape in shapes.items():
        layer = re.search(r"\.layers\.(\d+)\.", name)
        if layer and layer.group(1) != "0":
            continue
        for number in range(40) if layer else [None]:
            key = name.replace(".layers.0.", f".layers.{number}.")
            grown[key] = tuple(width.get(size, size) for size in shape)
    return grown


def test_13b_by_the_same_rule(truth):
    model = _model("llama-13b")
    found = _official(model)
    assert found == _grown(_shapes(truth["peft_state_dict"])) and len(found) == 595
    trained = _official(model, adapter_only=True)
    assert len(trained) == 40 * 4 + 32
    # the formula of the golden file at 40 layers and width 5120
    tltr = 2 * (12 * 1280 * 1280 + 12 * 1280)
    assert tltr == truth["counts"]["tltr"]
    assert _count(trained) == tltr + 1280 * 5120 + 5120 + 40 * 2 * 8 * (5120 + 5120)
    stage1 = _official(_model("llama-13b", rank=None), adapter_only=True)
    assert set(stage1) == set(truth["saved_by_trainer_stage1"])


@pytest.mark.parametrize("size", ["llama-7b", "llama-13b"])
@pytest.mark.parametrize("rank", [8, None])
def test_import_at_true_size_reads_no_number(size, rank):
    config, shapes = _model(size, rank=rank)
    base = {path: shape for path, shape in shapes.items() if not is_adapter(path)}
    tensors = tiny.hollow(_official((config, shapes), adapter_only=True))
    language = BaseModel(config=config["llama"], held=tiny.hollow(base), files={}, facts={})
    found = official_ltu_as.over_base(
        tensors, base=language, lora=config["lora"], known={}, source={}, notes=(), subject="FILE"
    )
    again, params = tiny.opened(found, "ltu-as")
    assert again == config
    assert {path: tensor.shape for path, tensor in params.items()} == shapes


def test_peft_adapter_at_7b(truth):
    config, shapes = _model()
    found = peft_adapter.to_peft(config, tiny.hollow(shapes), base_name="vicuna-7b")
    lora, audio = (
        found.tensors["adapter_model.safetensors"],
        found.tensors["ltu_as_audio.safetensors"],
    )
    assert len(lora) == 128 and set(audio) == set(truth["saved_by_trainer_stage1"])
    assert "base_model.model.model.layers.31.self_attn.v_proj.lora_B.weight" in lora
    assert {official_ltu_as.canonical(name) for name in [*lora, *audio]} == set(truth[SAVED])
