"""What people mix up, at the true sizes of the models: pairs of shapes and the cause each gets."""

import dataclasses
import functools

import pytest
import tiny_models as tiny

from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.weights.diagnosis import complain, likely_cause
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.name_tables import foreign_shapes
from ltu_jax.weights.shapes import model_shapes

ROOT = "base_model.model."


@functools.cache
def _official(size="llama-7b", adapter_only=False, **changes):
    config = tiny.as_dict(tiny.released_config(size, **changes))
    return tiny.official_shapes(*model_shapes("ltu-as", config), adapter_only=adapter_only)


@functools.cache
def _llama(size, **changes):
    config = dataclasses.replace(LLAMA_SIZES[size], **changes)
    return foreign_shapes(hf_llama.HF_RULES, model_shapes("llama", tiny.as_dict(config))[1])


def _without(shapes, *words):
    return {n: s for n, s in shapes.items() if not any(word in n for word in words)}


def _ltu():
    """Official LTU: an AST of width 768 before the projection, no TLTR."""
    shapes = _without(_official(), "audio_")
    for block in range(12):
        shapes[f"{ROOT}model.audio_encoder.blocks.{block}.attn.qkv.weight"] = (2304, 768)
    return shapes | {
        f"{ROOT}model.audio_proj.0.weight": (768,),
        f"{ROOT}model.audio_proj.0.bias": (768,),
        f"{ROOT}model.audio_proj.1.weight": (4096, 768),
        f"{ROOT}model.audio_proj.1.bias": (4096,),
    }


def _small_whisper():
    return {
        name: tuple({1280: 768, 5120: 3072}.get(size, size) for size in shape)
        if "audio_" in name
        else shape
        for name, shape in _official().items()
    }


def _gpt2():
    return {f"h.{layer}.attn.c_attn.weight": (768, 2304) for layer in range(12)}


V1, ALPACA = 32000, 32001
CASES = {
    "13B over 7B": (
        lambda: _official(), lambda: _official("llama-13b"),
        "this is a 13B checkpoint over a 7B base",
    ),
    "7B over 13B": (
        lambda: _official("llama-13b"), lambda: _official(),
        "this is a 7B checkpoint over a 13B base",
    ),
    "13B trainer checkpoint over 7B": (
        lambda: _official(adapter_only=True), lambda: _official("llama-13b", adapter_only=True),
        "this is a 13B checkpoint over a 7B base",
    ),
    "13B stage 1 over 7B": (
        lambda: _official(adapter_only=True, rank=None),
        lambda: _official("llama-13b", adapter_only=True, rank=None),
        "this is a 13B checkpoint over a 7B base",
    ),
    "13B LLaMA for 7B": (
        lambda: _llama("llama-7b"), lambda: _llama("llama-13b"),
        "this is a 13B checkpoint over a 7B base",
    ),
    "LTU": (
        lambda: _official(), _ltu,
        "this is LTU, not LTU-AS: its base_model.model.model.audio_proj.1.weight is [4096, 768]",
    ),
    "stage 1 where LoRA is expected": (
        lambda: _official(adapter_only=True), lambda: _official(adapter_only=True, rank=None),
        "it has no LoRA on these projections; a stage-1 checkpoint has none at all",
    ),
    "LoRA where stage 1 is expected": (
        lambda: _official(adapter_only=True, rank=None), lambda: _official(adapter_only=True),
        "it has LoRA on q_proj, v_proj, expected none, as after stage 1",
    ),
    "adapter without audio": (
        lambda: _official(adapter_only=True),
        lambda: _without(_official(adapter_only=True), "audio_"),
        "an adapter saved without the audio weights",
    ),
    "Vicuna itself": (
        lambda: _official(), lambda: _llama("llama-7b"),
        "this is a plain language model, without TLTR, projection and LoRA",
    ),
    "pad token more": (
        lambda: _official(), lambda: _official(vocab_size=ALPACA),
        "another vocabulary: 32001 rows, expected 32000; it has a pad token more, as Alpaca",
    ),
    "pad token less": (
        lambda: _llama("llama-7b", vocab_size=ALPACA), lambda: _llama("llama-7b"),
        "another vocabulary: 32000 rows, expected 32001; what is expected has a pad token more",
    ),
    "other tokenizer": (
        lambda: _llama("llama-7b"), lambda: _llama("llama-7b", vocab_size=128256),
        "another vocabulary: 128256 rows, expected 32000",
    ),
    "rank": (
        lambda: _official(adapter_only=True), lambda: _official(adapter_only=True, rank=16),
        "its LoRA is of rank 16, expected 8",
    ),
    "targets": (
        lambda: _official(adapter_only=True),
        lambda: _official(adapter_only=True, targets=("q_proj", "k_proj", "v_proj", "o_proj")),
        "it has LoRA on k_proj, o_proj, q_proj, v_proj, expected q_proj, v_proj",
    ),
    "layers": (
        lambda: _official(), lambda: _official(num_hidden_layers=24),
        "it has 24 layers, expected 32",
    ),
    "another Whisper": (
        lambda: _official(), _small_whisper,
        "its TLTR is for another Whisper: 768 wide (Whisper small), expected 1280 wide (Whisper",
    ),
    "another architecture": (
        lambda: _llama("llama-7b"), _gpt2,
        "weights of another architecture: found gpt2, expected llama",
    ),
    "half a download": (
        lambda: _llama("llama-7b"), lambda: _without(_llama("llama-7b"), "layers.31.mlp"),
        "part of the weights was not saved or not downloaded",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_likely_cause_at_true_size(case):
    wanted, found, cause = CASES[case]
    message = complain(wanted=wanted(), found=found(), subject="FILE")
    assert f"Likely cause: {cause}" in message
    assert len(message) < 4000  # a thousand wrong names do not make a wall


@pytest.mark.parametrize("case", ["13B over 7B", "rank", "targets", "adapter without audio"])
def test_the_same_in_our_own_names(case):
    changes = {
        "13B over 7B": dict(size="llama-13b"),
        "rank": dict(rank=16),
        "targets": dict(targets=("q_proj", "k_proj", "v_proj", "o_proj")),
        "adapter without audio": {},
    }[case]
    wanted = model_shapes("ltu-as", tiny.as_dict(tiny.released_config()))[1]
    found = model_shapes("ltu-as", tiny.as_dict(tiny.released_config(**changes)))[1]
    if case == "adapter without audio":
        found = {path: shape for path, shape in found.items() if path.startswith("llama.")}
    assert likely_cause(wanted=wanted, found=found).startswith(CASES[case][2])


def test_equal_shapes_have_no_cause():
    assert complain(wanted=_official(), found=_official(), subject="FILE") == ""
    assert likely_cause(wanted=_official(), found=_official()) == ""
