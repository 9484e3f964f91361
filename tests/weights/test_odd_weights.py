"""Weights as people have them: imported and usable, or refused by the name of what is wrong."""

import json
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import odd_weights as odd
import pytest
import torch
import transformers
from odd_weights import settings_of, state_of, write

from ltu_jax.convert import import_weights
from ltu_jax.core.errors import UserError
from ltu_jax.weights.identify.describe import describe
from ltu_jax.weights.store import load_weights

UP = "model.layers.1.mlp.up_proj.weight"


def _import(source: Path, out: Path, *, kind: str = "hf-llama", **options):
    import_weights(kind, weights=[source], out=out, **options)
    return load_weights(out)


# --- names ----------------------------------------------------------------------------------------


def _named(pattern: str):
    return lambda name: pattern.replace("*", name)


@pytest.mark.parametrize(
    "rename",
    [
        _named("_orig_mod.*"),
        _named("module.*"),
        _named("module._orig_mod.*"),
        _named("_orig_mod.module.*"),
        _named("model.*"),
        _named("base_model.model.*"),
        _named("language_model.*"),
        _named("_fsdp_wrapped_module.*"),
        _named("state.inner.llm.*"),
        lambda name: re.sub(r"(layers\.\d+\.)", r"\1_orig_mod.", name),
        lambda name: re.sub(r"(self_attn|mlp)\.", r"_checkpoint_wrapped_module.\1.", name),
    ],
)
def test_names_that_a_wrapper_made(tmp_path, rename):
    state = {rename(name): value for name, value in state_of().items()}
    folder = write(tmp_path / "hf", settings_of(), state)
    _import(folder, tmp_path / "ours")
    truth = odd.their_logits(odd.model())
    np.testing.assert_allclose(odd.our_logits(tmp_path / "ours"), truth, atol=1e-4)
    assert describe(folder, hash=False).problems == ()


@pytest.mark.parametrize(
    ("change", "datum"),
    [
        (lambda s: s | {f"_orig_mod.{UP}": s[UP]}, "two copies of one model"),
        (lambda s: {f"ema.{n}" if "norm" not in n else n: v for n, v in s.items()}, "'ema.'"),
        (lambda s: s | {f"ema.{n}": v for n, v in s.items()}, "surplus: ema.lm_head"),
        (lambda s: {f"{p}.{n}": v for n, v in s.items() for p in ("a", "b")}, "'[ab].'"),
        (lambda s: {n: v for n, v in s.items() if n != "lm_head.weight"}, "lm_head.weight"),
    ],
)
def test_names_of_several_models(tmp_path, change, datum):
    folder = write(tmp_path / "hf", settings_of(), change(state_of()))
    with pytest.raises(UserError, match=datum):
        _import(folder, tmp_path / "ours")


# --- numbers --------------------------------------------------------------------------------------


def _put(value: float, dtype=torch.float32):
    def change(state):
        state[UP] = state[UP].to(dtype)
        state[UP][3, 5] = value
        return state

    return change


@pytest.mark.parametrize(
    ("change", "datum"),
    [
        (_put(float("nan")), rf"{UP} has 1 entries"),
        (_put(float("inf"), torch.float16), rf"{UP} has 1 entries"),
        (_put(float("-inf"), torch.bfloat16), rf"{UP} has 1 entries"),
        (lambda s: s | {"model.embed_tokens.weight": s["model.embed_tokens.weight"] * torch.nan},
         r"model.embed_tokens.weight has 10,240 entries"),
        (lambda s: s | {UP: (s[UP] * 9).to(torch.int8)}, rf"int8: {UP}"),
        (lambda s: s | {UP: s[UP] > 0}, rf"bool: {UP}"),
        (lambda s: s | {"model.norm.weight": torch.ones(32, dtype=torch.int64)}, "int64"),
        (lambda s: s | {UP: s[UP].to(torch.float8_e4m3fn)}, rf"{UP} has dtype F8_E4M3"),
    ],
)  # fmt: skip
def test_what_is_no_weight(tmp_path, change, datum):
    folder = write(tmp_path / "hf", settings_of(), change(state_of()))
    with pytest.raises(UserError, match=datum):
        _import(folder, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize("other", [torch.bfloat16, torch.float32, torch.float64])
def test_layers_of_two_dtypes_lose_nothing(tmp_path, other):
    state = {name: value.half() for name, value in state_of().items()}
    state[UP] = (state_of()[UP] * 1e6).to(other)
    held = _import(write(tmp_path / "hf", settings_of(), state), tmp_path / "ours")
    found = held.params["llama.layers.mlp.up_proj.kernel"].astype(np.float64)
    for layer in range(2):
        truth = state[f"model.layers.{layer}.mlp.up_proj.weight"].double().numpy().T
        np.testing.assert_array_equal(found[layer], truth)


def test_dtype_makes_nothing_infinite(tmp_path):
    state = state_of()
    state[UP][0, :3] = 70000.0
    folder = write(tmp_path / "hf", settings_of(), state)
    with pytest.raises(UserError, match=r"up_proj.*3 of its numbers.*70000.*float16.*65504"):
        _import(folder, tmp_path / "ours", dtype="float16")
    held = _import(folder, tmp_path / "ours", dtype="bfloat16")
    wanted = np.float32(70000.0).astype(ml_dtypes.bfloat16)
    assert held.params["llama.layers.mlp.up_proj.kernel"][1, 0, 0] == wanted


# --- settings -------------------------------------------------------------------------------------

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
LAYERED = {"full_attention": {"rope_type": "default"}}
# family, changes of config.json, the datum that the refusal names; "" where it is imported
SETTINGS = [
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, ""),
    ("llama", {"rope_theta": None, "rope_parameters": {"rope_theta": 500.0}}, ""),
    ("llama", {"rope_scaling": LLAMA3, "rope_theta": 500.0}, ""),
    ("llama", {"sliding_window": 64}, ""),
    ("llama", {"tie_word_embeddings": None, "max_position_embeddings": None}, ""),
    ("mistral", {}, ""),
    ("mistral", {"sliding_window": 4096}, ""),
    ("qwen2", {"sliding_window": 8, "use_sliding_window": False}, ""),
    ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2}, ""),
    ("qwen2", {"sliding_window": 8, "use_sliding_window": True,
               "layer_types": ["full_attention"] * 2}, ""),
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, "rope_theta"),
    ("llama", {"rope_scaling": {"rope_theta": 5e5, **LLAMA3}}, "rope_theta"),
    ("llama", {"rope_scaling": LLAMA3, "rope_parameters": LLAMA3 | {"factor": 2.0}}, "factor"),
    ("llama", {"rope_scaling": LLAMA3 | {"type": "linear"}}, "'linear'"),
    ("llama", {"rope_scaling": LLAMA3, "original_max_position_embeddings": 8},
     "original_max_position_embeddings"),
    ("llama", {"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "low_freq_factor"),
    ("llama", {"rope_scaling": {"factor": 2.0}}, "factor"),
    ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
    ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "'dynamic'"),
    ("qwen2", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn'"),
    ("llama", {"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "'longrope'"),
    ("llama", {"rope_parameters": LAYERED}, "full_attention"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.25}},
     "partial_rotary_factor"),
    ("mistral", {"sliding_window": 8}, "sliding_window is 8"),
    ("mistral", {"sliding_window": None, "max_position_embeddings": 32768},
     "sliding_window is 4096"),
    ("mistral", {"sliding_window": "wide"}, "sliding_window is 'wide'"),
    ("qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1},
     "sliding_window is 8"),
    ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("llama", {"layer_types": ["chunked_attention"] * 2}, "chunked_attention"),
    ("llama", {"attention_bias": True}, "attention_bias"),
    ("llama", {"mlp_bias": True}, "mlp_bias"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    ("llama", {"head_dim": 16}, "head_dim"),
    ("llama", {"num_key_value_heads": 4}, "num_key_value_heads"),
    ("llama", {"vocab_size": 321}, "vocab_size"),
    ("llama", {"tie_word_embeddings": True}, "tie_word_embeddings"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ("llama", {"max_position_embeddings": -1}, "max_position_embeddings"),
    ("llama", {"eos_token_id": 320}, "eos_token_id"),
    ("llama", {"eos_token_id": [2, -1]}, "eos_token_id"),
    ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
    ("llama", {"quantization_config": {"quant_method": "fp8"}}, "fp8"),
    ("mistral", {"compression_config": {"format": "pack"}}, "compression_config"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "changes", "datum"), SETTINGS)
def test_settings(tmp_path, family, changes, datum):
    settings = settings_of(family=family, **changes)
    folder = write(tmp_path / "hf", settings, state_of(family=family))
    told = describe(folder, hash=False)
    if datum:
        with pytest.raises(UserError, match=datum):
            _import(folder, tmp_path / "ours")
        if "tie" not in "".join(changes):  # info reads no tensors
            assert datum in told.problems[0] and told.next is None
        return
    held = _import(folder, tmp_path / "ours")
    assert told.problems == () and told.next
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    np.testing.assert_allclose(
        odd.our_logits(tmp_path / "ours"), odd.their_logits(theirs), atol=1e-4
    )
    assert held.max_position_embeddings == theirs.config.max_position_embeddings
    assert held.facts["source_config"] == settings


def test_biases_that_the_config_does_not_say(tmp_path):
    bias = "model.layers.{}.self_attn.{}.bias"
    extra = {bias.format(i, n): torch.ones(s) for i in (0, 1) for n, s in
             (("q_proj", 32), ("k_proj", 16), ("v_proj", 16), ("o_proj", 32))}  # fmt: skip
    for number, (names, datum) in enumerate(
        ((("q_proj", "k_proj", "v_proj"), "attention_bias"), (("o_proj",), "o_proj.bias"))
    ):
        state = state_of() | {n: v for n, v in extra.items() if n.split(".")[4] in names}
        folder = write(tmp_path / str(number), settings_of(), state)
        with pytest.raises(UserError, match=datum):
            _import(folder, tmp_path / "ours")
    state = {n: v for n, v in state_of(family="qwen2").items() if not n.endswith(".bias")}
    folder = write(tmp_path / "qwen2", settings_of(family="qwen2"), state)
    with pytest.raises(UserError, match=r"q_proj.bias is missing"):
        _import(folder, tmp_path / "ours")


def test_a_window_is_no_trouble_below_it(tmp_path):
    """The remedy that the refusal names."""
    folder = write(
        tmp_path / "hf",
        settings_of(family="mistral", sliding_window=20),
        state_of(family="mistral"),
    )
    held = _import(folder, tmp_path / "ours", max_positions=20)
    assert held.max_position_embeddings == 20
    assert held.facts["source_config"]["sliding_window"] == 20
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    np.testing.assert_allclose(
        odd.our_logits(tmp_path / "ours"), odd.their_logits(theirs), atol=1e-4
    )
    with pytest.raises(UserError, match="--max-positions 65"):
        _import(folder, tmp_path / "ours", max_positions=65)


def test_positions_and_end_tokens_are_kept(tmp_path):
    generation = {"eos_token_id": [2, 5, 6], "bos_token_id": 1, "temperature": 0.6}
    settings = settings_of(max_position_embeddings=131072, rope_scaling=LLAMA3)
    folder = write(
        tmp_path / "hf", settings, state_of(), files={"generation_config.json": generation}
    )
    held = _import(folder, tmp_path / "ours")
    assert held.max_position_embeddings == 131072
    assert held.facts["end_tokens"] == [2, 5, 6]
    assert held.facts["source_generation_config"] == generation
    # a directory of before these facts is read, and says that they are unknown
    header = json.loads((tmp_path / "ours/config.json").read_text())
    before = {k: v for k, v in header.items() if k not in held.facts}
    (tmp_path / "ours/config.json").write_text(json.dumps(before))
    old = load_weights(tmp_path / "ours")
    assert old.max_position_embeddings is None and old.sha256 == held.sha256


# --- files ----------------------------------------------------------------------------------------


def test_an_index_beside_another_file_is_a_question(tmp_path):
    folder = tmp_path / "hf"
    odd.model().save_pretrained(folder, max_shard_size="20KB")
    (folder / "config.json").write_text(json.dumps(settings_of()))
    stale = {name: value * 2 for name, value in state_of().items()}
    odd.save_file(stale, folder / "model.safetensors")
    index = "model.safetensors.index.json"
    with pytest.raises(UserError, match=rf"model.safetensors and {index}"):
        _import(folder, tmp_path / "ours")
    assert index in describe(folder, hash=False).problems[0]
    norm = odd.model().state_dict()["model.norm.weight"].numpy()
    for name, factor in ((index, 1), ("model.safetensors", 2)):
        held = _import(folder, tmp_path / "ours", weights_file=name)
        np.testing.assert_array_equal(held.params["llama.norm.scale"], norm * factor)
    with pytest.raises(UserError, match=r"pytorch_model.bin.*model.safetensors"):
        _import(folder, tmp_path / "ours", weights_file="pytorch_model.bin")
    # an index that lists that very file is no question
    (folder / index).write_text(
        json.dumps({"weight_map": dict.fromkeys(stale, "model.safetensors")})
    )
    _import(folder, tmp_path / "ours")
