"""Every member of the LLaMA family in every way it is stored, in and out, against transformers."""

import json

import jax
import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers

from ltu_jax.convert import export_weights, import_weights
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.text_batch import TextBatch
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.name_tables import export
from ltu_jax.weights.store import load_weights

SIZES = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
SCALING = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
# What the config.json of LLaMA-1 and of Vicuna v1.1 says, and nothing besides: no rope_theta,
# no num_key_value_heads, no head_dim.
LLAMA_1 = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2,
    "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 48,
    "max_position_embeddings": 64, "model_type": "llama", "num_attention_heads": 4,
    "num_hidden_layers": 3, "pad_token_id": 0, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False, "torch_dtype": "float16", "transformers_version": "4.28.1",
    "use_cache": True, "vocab_size": 96,
}  # fmt: skip
# As transformers 4 wrote it: rope_theta and rope_scaling at the top.
LLAMA_3 = (LLAMA_1 | SIZES) | {
    "rope_theta": 500.0, "rope_scaling": SCALING, "rms_norm_eps": 1e-5, "attention_bias": False,
    "mlp_bias": False, "pretraining_tp": 1, "transformers_version": "4.43.0",
}  # fmt: skip
# name -> (config class, its arguments, config.json to put in place of the saved one)
FAMILY = {
    "llama-1": (
        transformers.LlamaConfig,
        dict(num_key_value_heads=4, rms_norm_eps=1e-6),
        LLAMA_1,
    ),
    "llama-2": (transformers.LlamaConfig, dict(rms_norm_eps=1e-5), None),
    "llama-3": (
        transformers.LlamaConfig,
        dict(rms_norm_eps=1e-5, rope_parameters=SCALING | {"rope_theta": 500.0}),
        LLAMA_3,
    ),
    "llama-3.2": (
        transformers.LlamaConfig,
        dict(
            rms_norm_eps=1e-5, tie_word_embeddings=True, head_dim=16,
            rope_parameters=SCALING | {"rope_theta": 500.0},
        ),
        None,
    ),
    "smollm2": (
        transformers.LlamaConfig,
        dict(
            rms_norm_eps=1e-5, tie_word_embeddings=True,
            rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        ),
        None,
    ),
    "mistral": (
        transformers.MistralConfig,
        dict(rms_norm_eps=1e-5, sliding_window=None, head_dim=16),
        None,
    ),
    "qwen2": (
        transformers.Qwen2Config,
        dict(
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        ),
        None,
    ),
}  # fmt: skip
STORED = ("safetensors", "sharded safetensors", "bin", "sharded bin")
IDS = np.random.default_rng(1).integers(0, 96, (2, 20))


def _random(name):
    make, changes, settings = FAMILY[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(make(**(SIZES | changes))).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return model, settings


def _bin_shards(folder, state, *, shards):
    """`pytorch_model.bin` as transformers 4 wrote it, by hand: transformers 5 no longer does."""
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return
    placed = {}
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = dict(list(state.items())[number::shards])
        torch.save(part, folder / file)
        placed |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": placed}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def _store(model, folder, how, *, settings, state=None):
    folder.mkdir()
    if "bin" in how:
        model.config.save_pretrained(folder)
        _bin_shards(folder, state or model.state_dict(), shards=3 if "sharded" in how else 1)
    else:
        model.save_pretrained(folder, max_shard_size="20KB" if "sharded" in how else "5GB")
        assert (len(list(folder.glob("*.safetensors"))) > 1) == ("sharded" in how)
    if settings is not None:
        (folder / "config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module", params=FAMILY)
def member(request):
    """A random model, its logits, and our compiled forward."""
    model, settings = _random(request.param)
    with torch.no_grad():
        truth = model(torch.from_numpy(IDS)).logits.numpy()
    forwards = {}

    def ours(config, params):
        if repr(config) not in forwards:
            forwards[repr(config)] = jax.jit(Llama.functional(config).pure(Llama.__call__))
        positions = np.broadcast_to(np.arange(IDS.shape[1]), IDS.shape)
        text = TextBatch(input_ids=IDS, segment_ids=np.ones_like(IDS), positions=positions)
        return forwards[repr(config)](dict(params), text)

    return model, settings, truth, ours


@pytest.mark.parametrize("how", STORED)
def test_in_and_out(member, tmp_path, how):
    model, settings, truth, ours = member
    folder = _store(model, tmp_path / "hf", how, settings=settings)
    import_weights("hf-llama", weights=[folder], out=tmp_path / "ours")
    weights = load_weights(tmp_path / "ours", kind="llama")
    found = ours(LlamaConfig.from_dict(weights.config), weights.params)
    np.testing.assert_allclose(found, truth, atol=1e-4)

    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "again", dtype=torch.float32
    ).eval()
    tiny.identical(
        {name: value.numpy() for name, value in again.state_dict().items()},
        {name: value.numpy() for name, value in model.state_dict().items()},
    )
    with torch.no_grad():
        np.testing.assert_array_equal(again(torch.from_numpy(IDS)).logits.numpy(), truth)

    import_weights("hf-llama", weights=[tmp_path / "again"], out=tmp_path / "second")
    assert load_weights(tmp_path / "second").sha256 == weights.sha256


def test_the_old_config_is_read_by_transformers_too(tmp_path):
    """LLAMA_1 and LLAMA_3 describe the random models: transformers makes the same of them."""
    for name in ("llama-1", "llama-3"):
        model, settings = _random(name)
        folder = _store(model, tmp_path / name, "safetensors", settings=settings)
        again = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            np.testing.assert_array_equal(
                again.eval()(torch.from_numpy(IDS)).logits.numpy(),
                model(torch.from_numpy(IDS)).logits.numpy(),
            )


def _views(state):
    """The same numbers as views of one storage, every second one of them transposed."""
    flat = torch.cat([value.reshape(-1) for value in state.values()])
    views, begin = {}, 0
    for number, (name, value) in enumerate(state.items()):
        piece = flat[begin : begin + value.numel()]
        begin += value.numel()
        if value.ndim == 2 and number % 2:
            piece.copy_(value.T.reshape(-1))
            views[name] = piece.view(value.T.shape).T
            assert not views[name].is_contiguous()
        else:
            views[name] = piece.view(value.shape)
    return views


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("how", ["bin", "sharded bin"])
def test_views_of_one_storage(tmp_path, dtype, how):
    model, _ = _random("llama-2")
    model = model.to(getattr(torch, dtype))
    state = model.state_dict()
    folder = _store(model, tmp_path / "hf", how, settings=None, state=_views(state))
    config, params = tiny.opened(hf_llama.from_hf(folder), "llama")
    assert {tensor.dtype.name for tensor in params.values()} == {dtype}
    back = export(hf_llama.HF_RULES, params)
    assert back.keys() == state.keys()
    for name, tensor in back.items():
        wanted = state[name].contiguous().view(torch.uint8).numpy().tobytes()
        assert tensor.read().tobytes() == wanted, name


@pytest.mark.parametrize("copies", ["one storage", "two storages"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tied_output_in_a_bin(tmp_path, copies, dtype):
    model, _ = _random("smollm2")
    model = model.to(getattr(torch, dtype))
    state = dict(model.state_dict())
    embedding = state["model.embed_tokens.weight"]
    assert state["lm_head.weight"].data_ptr() == embedding.data_ptr()
    if copies == "two storages":
        state["lm_head.weight"] = embedding.clone()
    folder = _store(model, tmp_path / "hf", "bin", settings=None, state=state)
    config, params = tiny.opened(hf_llama.from_hf(folder), "llama")
    assert config["tie_word_embeddings"] and "llama.lm_head.kernel" not in params
    wanted = embedding.contiguous().view(torch.uint8).numpy().tobytes()
    assert params["llama.embed_tokens.embedding"].read().tobytes() == wanted


@pytest.mark.parametrize("how", STORED)
def test_bfloat16_in_and_out(tmp_path, how):
    model, settings = _random("llama-1")
    model = model.to(torch.bfloat16)
    folder = _store(model, tmp_path / "hf", how, settings=settings)
    import_weights("hf-llama", weights=[folder], out=tmp_path / "ours")
    export_weights("hf", checkpoint=tmp_path / "ours", out=tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
    assert again.dtype == torch.bfloat16
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_mistral_comes_back_as_a_llama(tmp_path):
    model, _ = _random("mistral")
    model.save_pretrained(tmp_path / "hf")
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings | {"sliding_window": 4096}))
    found = hf_llama.from_hf(tmp_path / "hf")
    assert found.source["model_type"] == "mistral"
    assert any("sliding window 4096 is not applied" in note for note in found.notes)
    config, _ = tiny.opened(found, "llama")
    settings = hf_llama.hf_config(config, dtype="float32", tokens={})
    assert settings["model_type"] == "llama" and settings["head_dim"] == 16


def test_a_delta_is_noted(tmp_path):
    model, settings = _random("llama-1")
    folder = _store(model, tmp_path / "vicuna-7b-delta-v1.1", "safetensors", settings=settings)
    assert any("says delta" in note for note in hf_llama.from_hf(folder).notes)
