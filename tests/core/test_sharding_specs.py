"""Where every parameter of every preset lies on the mesh, as text files: a change is a diff.

`LTU_JAX_UPDATE_GOLDEN=1 pytest tests/core/test_sharding_specs.py` writes the files anew.
"""

import os
import re
from pathlib import Path

import jax
import pytest

from ltu_jax.core.sharding import PARAM_RULES, MeshConfig, make_mesh, param_specs
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.sizes import LLAMA_SIZES, WHISPER_SIZES
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.models.whisper import Whisper

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "sharding_specs"
LARGE, TINY = (
    TLTRConfig(d_model=1280, time_heads=1, layer_heads=8),
    TLTRConfig(d_model=384, time_heads=1, layer_heads=8),
)
TAGGER = TaggerConfig(tltr=LARGE, labels=527, d_input=None, audio_layers=None)


def whisper(size: str) -> dict:
    shapes = Whisper(WHISPER_SIZES[size]).shapes
    return {f"whisper.{path}": leaf for path, leaf in shapes.items()}


def language(llama: str, *, tltr: TLTRConfig, encoder: str, int8_base: bool = False) -> dict:
    config = LTUASConfig(
        tltr=tltr,
        llama=LLAMA_SIZES[llama],
        lora=LoRAConfig(rank=8, alpha=16.0, dropout=0.05, targets=("q_proj", "v_proj")),
        audio_layers=WHISPER_SIZES[encoder].n_audio_layer,
        audio_tokens=25,
    )
    return LTUAS.functional(config, int8_base=int8_base).shapes | whisper(encoder)


PRESETS = {
    "7b": lambda: language("llama-7b", tltr=LARGE, encoder="large-v1"),
    "7b_int8": lambda: language("llama-7b", tltr=LARGE, encoder="large-v1", int8_base=True),
    "13b": lambda: language("llama-13b", tltr=LARGE, encoder="large-v1"),
    "mini": lambda: language("smollm2-135m", tltr=TINY, encoder="tiny.en"),
    "tagging": lambda: Tagger.functional(TAGGER).shapes | whisper("large-v1"),
}
# 135M has 3 key/value heads of 64; its widths divide by 2 all the same.
MESH = MeshConfig(data=2, fsdp=2, tensor=2)


@pytest.mark.parametrize("preset", PRESETS)
def test_specs_are_as_recorded(preset):
    shapes = PRESETS[preset]()
    mesh = make_mesh(MESH, jax.devices())
    specs = param_specs(shapes, mesh)
    assert specs.keys() == shapes.keys()
    lines = [f"{path} {tuple(shapes[path].shape)} {tuple(specs[path])}" for path in sorted(shapes)]
    text = "\n".join(lines) + "\n"
    path = GOLDEN / f"{preset}.txt"
    if os.environ.get("LTU_JAX_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} differs; is this change meant?"


def test_every_parameter_has_one_rule_and_every_rule_a_parameter():
    """Over all presets, and Qwen-style biases, which only foreign models have."""
    paths = {path for shapes in PRESETS.values() for path in shapes()}
    paths |= {f"llama.layers.self_attn.{name}_proj.bias" for name in "qkv"}
    used = set()
    for path in paths:
        matching = [pattern for pattern, _ in PARAM_RULES if re.fullmatch(pattern, path)]
        assert len(matching) == 1, (path, matching)
        used.update(matching)
    assert used == {pattern for pattern, _ in PARAM_RULES}
