"""The table reader: strict, invertible, and with a guess at what went wrong."""

import numpy as np
import pytest

from ltu_jax.weights.diagnosis import architecture, complain
from ltu_jax.weights.formats import ct2_whisper, gguf_llama, hf_llama, hf_whisper, official_ltu_as
from ltu_jax.weights.name_tables import (
    CONV,
    LINEAR,
    SAME,
    NameRule,
    assemble,
    export,
    foreign_shapes,
    fused,
    interleaved,
    rule,
)
from ltu_jax.weights.tensors import WeightsError, as_tensors

TABLE = (
    rule("l.{layer}.w", "w.kernel", LINEAR),
    NameRule("l.{layer}.qk", ("q.bias", None), fused(2, SAME)),
    rule("c", "c.kernel", CONV),
)
SHAPES = {"w.kernel": (2, 3, 4), "q.bias": (2, 5), "c.kernel": (3, 6, 7)}


def _foreign():
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in foreign_shapes(TABLE, SHAPES).items()
    }


def _assemble(arrays):
    made = assemble(TABLE, as_tensors(arrays), SHAPES, subject="FILE")
    return {path: tensor.read() for path, tensor in made.items()}


def test_stacking_transposing_and_splitting():
    arrays = _foreign()
    assert {n: a.shape for n, a in arrays.items()} == {
        "l.0.w": (4, 3), "l.1.w": (4, 3), "l.0.qk": (10,), "l.1.qk": (10,), "c": (7, 6, 3),
    }  # fmt: skip
    for layer in (0, 1):
        arrays[f"l.{layer}.qk"][5:] = 0
    ours = _assemble(arrays)
    np.testing.assert_array_equal(ours["w.kernel"][1], arrays["l.1.w"].T)
    np.testing.assert_array_equal(ours["q.bias"][0], arrays["l.0.qk"][:5])
    np.testing.assert_array_equal(ours["c.kernel"][2, 1, 4], arrays["c"][4, 1, 2])
    back = export(TABLE, as_tensors(ours))
    assert {n: t.read().tobytes() for n, t in back.items()} == {
        n: a.tobytes() for n, a in arrays.items()
    }


def test_a_part_that_must_be_zero():
    with pytest.raises(WeightsError, match=r"l.0.qk: a part .* zeros is not zero"):
        _assemble(_foreign())


def test_missing_surplus_and_misshaped_are_found_before_reading():
    arrays = _foreign()
    arrays["extra"] = arrays.pop("l.1.w")
    arrays["c"] = arrays["c"][:3]
    with pytest.raises(WeightsError) as caught:
        _assemble(arrays)
    message = str(caught.value)
    assert message.startswith("FILE do not fit. 1 missing: l.1.w; 1 surplus: extra;")
    assert "c is [3, 6, 3], expected [7, 6, 3]" in message


def test_a_parameter_the_format_has_no_name_for():
    with pytest.raises(WeightsError, match="no name for 1 parameters: new.bias"):
        foreign_shapes(TABLE, SHAPES | {"new.bias": (1,)})


def test_interleaving_is_undone_as_llama_cpp_does_it():
    heads, half, width = 2, 3, 5
    w = np.arange(heads * 2 * half * width).reshape(-1, width)  # Hugging Face order
    there = np.empty_like(w)
    for head in range(heads):
        for i in range(half):
            for j in range(2):
                there[head * 2 * half + 2 * i + j] = w[head * 2 * half + j * half + i]
    transform = interleaved(heads)
    np.testing.assert_array_equal(transform.unpack(there)[0], w.T)
    np.testing.assert_array_equal(transform.pack((w.T,)), there)
    np.testing.assert_array_equal(transform.unpack(there[:, 0])[0], w[:, 0])


@pytest.mark.parametrize(
    "table",
    [
        hf_whisper.HF_RULES,
        ct2_whisper.RULES,
        hf_llama.HF_RULES,
        gguf_llama.rules(heads=4, kv_heads=2, permuted=True),
        official_ltu_as.RULES,
    ],
)
def test_no_table_names_anything_twice(table):
    sources = [entry.source for entry in table]
    targets = [target for entry in table for target in entry.targets if target]
    assert len(set(sources)) == len(sources) and len(set(targets)) == len(targets)


Q = "model.layers.{}.self_attn.q_proj.weight"
EMBED = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("wanted", "found", "cause"),
    [
        ({EMBED: (32000, 4096)}, {EMBED: (32000, 5120)}, "this is a 13B checkpoint over a 7B base"),
        ({EMBED: (32000, 64)}, {EMBED: (32001, 64)}, "another vocabulary: 32001 rows"),
        ({Q.format(0): (1,)}, {"h.0.attn.c_attn.weight": (1,)}, "found gpt2, expected llama"),
        ({Q.format(0): (1,)}, {"model.encoder.conv1.weight": (1,)}, "found whisper"),
        (
            {Q.format(i): (1,) for i in range(2)},
            {Q.format(i): (1,) for i in range(3)},
            "it has 3 layers, expected 2",
        ),
        (
            {"a.lora_A.weight": (1,), "b": (1,)},
            {"b": (1,)},
            "it has no LoRA on these projections",
        ),
        ({"a": (1,), "b": (1,)}, {"b": (1,)}, "not saved or not downloaded"),
        (
            {"x": (1,)},
            {"base_model.model.model.audio_proj.1.weight": (4096, 768)},
            "this is LTU, not LTU-AS",
        ),
    ],
)
def test_likely_causes(wanted, found, cause):
    assert cause in complain(wanted=wanted, found=found, subject="FILE")


def test_architecture_of_our_formats():
    assert architecture(foreign_shapes(official_ltu_as.RULES, {"llama.norm.scale": (1,)})) is None
    assert architecture(["base_model.model.model.layers.3.self_attn.q_proj.weight"]) == "llama"
