"""LLaMA weights that do not fit, GGUF, and the real SmolLM2 against transformers."""

import json

import numpy as np
import pytest
import tiny_models as tiny
import torch
import transformers
from gguf import GGUFWriter
from safetensors.numpy import load_file, save_file

from ltu_jax.convert import export_weights, import_weights
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.preprocessing.text import load_tokenizer
from ltu_jax.weights.formats import gguf_llama, hf_llama, hf_rope
from ltu_jax.weights.name_tables import export
from ltu_jax.weights.store import load_weights, save_weights
from ltu_jax.weights.tensors import WeightsError, as_tensors

pytestmark = pytest.mark.optimised

SIZES = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
}  # fmt: skip


def _random(config):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return model


def test_bin_with_buffers_and_tied_copy(tmp_path):
    model = _random(transformers.LlamaConfig(**SIZES, tie_word_embeddings=True))
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    frequencies = 1.0 / (10000.0 ** (torch.arange(0, 8, 2).float() / 8))
    for layer in range(3):
        state[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = frequencies
    torch.save(state, tmp_path / "pytorch_model.bin")
    import_weights("hf-llama", weights=[tmp_path], out=tmp_path / "ours")
    assert "llama.lm_head.kernel" not in load_weights(tmp_path / "ours").params

    state["model.layers.1.self_attn.rotary_emb.inv_freq"] = 1.0 / (
        5000.0 ** (torch.arange(0, 8, 2).float() / 8)
    )
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="belongs to rope_theta 5000, the config says 10000"):
        hf_llama.from_hf(tmp_path)
    state.pop("model.layers.1.self_attn.rotary_emb.inv_freq")
    state["lm_head.weight"] = state["lm_head.weight"] + 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="lm_head.weight differs from the embedding"):
        hf_llama.from_hf(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_survives(tmp_path, dtype):
    model = _random(transformers.LlamaConfig(**SIZES)).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "hf")
    import_weights("hf-llama", weights=[tmp_path / "hf"], out=tmp_path / "ours")
    weights = load_weights(tmp_path / "ours")
    found = weights.params["llama.layers.mlp.up_proj.kernel"]
    assert found.dtype.name == dtype
    truth = model.state_dict()["model.layers.2.mlp.up_proj.weight"].float().numpy()
    np.testing.assert_array_equal(found[2].astype(np.float32), truth.T)


def _settings(**changes):
    base = transformers.LlamaConfig(**SIZES).to_dict()
    return {k: v for k, v in (base | changes).items() if v is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "another architecture: found model_type gpt2, expected llama"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not implemented"),
        ({"mlp_bias": True}, "mlp_bias True is not implemented"),
        ({"num_attention_heads": 5}, "5 heads of 8 do not fit"),
        ({"num_key_value_heads": 4}, "num_key_value_heads 4 of 8 does not fit"),
        ({"rms_norm_eps": None}, "the config has no rms_norm_eps"),
        ({"num_hidden_layers": 4}, "num_hidden_layers is 3 in the weights and 4 in the config"),
        ({"hidden_size": 5120}, "a width-32 checkpoint over a 13B base"),
        ({"vocab_size": "many"}, "vocab_size is 'many'; expected an integer"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
            "RoPE scaling 'yarn' is not implemented",
        ),
    ],
)
def test_a_config_that_does_not_fit(tmp_path, changes, message):
    _random(transformers.LlamaConfig(**SIZES)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(_settings(**changes)))
    with pytest.raises(WeightsError, match=message):
        hf_llama.from_hf(tmp_path)


def test_shapes_and_numbers_that_no_llama_has(tmp_path):
    _random(transformers.LlamaConfig(**SIZES)).save_pretrained(tmp_path)
    good = load_file(tmp_path / "model.safetensors")
    embed, far = "model.embed_tokens.weight", f"model.layers.{10**8}.mlp.up_proj.weight"
    for changes, message in (
        ({embed: np.ones(3, np.float32)}, r"embed_tokens.weight is \[3\], not a matrix"),
        ({far: np.ones((1, 1), np.float32)}, "a layer has number 100000000, of 31 tensors"),
        (
            {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.int64)},
            r"inv_freq is \[4\] of int64; expected 4 fractions",
        ),
    ):
        save_file(good | changes, tmp_path / "model.safetensors")
        with pytest.raises(WeightsError, match=message):
            hf_llama.from_hf(tmp_path)


def test_missing_and_surplus_names(tmp_path):
    model = _random(transformers.LlamaConfig(**SIZES))
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    state["model.layers.1.mlp.up_proj.lost"] = state.pop("model.layers.1.mlp.up_proj.weight")
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError) as caught:
        import_weights("hf-llama", weights=[tmp_path], out=tmp_path / "ours")
    assert "1 missing: model.layers.1.mlp.up_proj.weight" in str(caught.value)
    assert "1 surplus: model.layers.1.mlp.up_proj.lost" in str(caught.value)
    assert not (tmp_path / "ours").exists()


def _write_gguf(file, config, params, *, family="llama", spm=None, **metadata):
    """A float32 GGUF as llama.cpp's converter lays it out, of our parameters."""
    writer = GGUFWriter(str(file), family)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    for key, value in metadata.items():
        writer.add_string(f"{family}.{key}", value)
    if spm is not None:
        size = spm.GetPieceSize()
        kinds = [
            2 if spm.IsUnknown(i) else 3 if spm.IsControl(i) else 6 if spm.IsByte(i) else 1
            for i in range(size)
        ]
        writer.add_tokenizer_model("llama")
        writer.add_token_list([spm.IdToPiece(i) for i in range(size)])
        writer.add_token_scores([spm.GetScore(i) for i in range(size)])
        writer.add_token_types(kinds)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
    table = gguf_llama.rules(
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        permuted=family == "llama",
    )
    for name, tensor in export(table, as_tensors(params)).items():
        writer.add_tensor(name, tensor.read())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": True}, {"attention_bias": True}],
    ids=["untied", "tied", "biases"],
)
def test_gguf_round_trip(tmp_path, changes):
    from ltu_jax.models.llama import Llama

    config = tiny.llama_config(**changes)
    params = tiny.random_params(Llama.functional(config))
    family = "qwen2" if config.attention_bias else "llama"
    _write_gguf(tmp_path / "x.gguf", config, params, family=family)
    import_weights("gguf", weights=[tmp_path / "x.gguf"], out=tmp_path / "ours")
    weights = load_weights(tmp_path / "ours")
    assert LlamaConfig.from_dict(weights.config) == config
    for path, array in params.items():
        assert weights.params[path].tobytes() == array.tobytes(), path


def test_gguf_damages(tmp_path):
    from ltu_jax.models.llama import Llama

    config = tiny.llama_config()
    params = tiny.random_params(Llama.functional(config))
    file = tmp_path / "x.gguf"
    _write_gguf(file, config, params)
    content = file.read_bytes()
    for size in (10, 300, len(content) // 2, len(content) - 40):
        file.write_bytes(content[:size])
        with pytest.raises(WeightsError, match="is damaged.*interrupted download"):
            gguf_llama.from_gguf(file)
    file.write_bytes(b"PK" + content)
    with pytest.raises(WeightsError, match="is not a GGUF file"):
        gguf_llama.from_gguf(file)
    _write_gguf(file, config, params, **{"rope.scaling.type": "yarn"})
    with pytest.raises(WeightsError, match="llama.rope.scaling.type is yarn, which is not"):
        gguf_llama.from_gguf(file)
    _write_gguf(file, config, params, family="gpt2")
    with pytest.raises(WeightsError, match="another architecture: found gpt2, expected llama"):
        gguf_llama.from_gguf(file)


def test_gguf_sentencepiece_tokenizer(tmp_path, golden):
    import sentencepiece

    from ltu_jax.models.llama import Llama

    truth = sentencepiece.SentencePieceProcessor(
        model_file=str(golden / "text_cases" / "spm320.model")
    )
    config = tiny.llama_config(vocab_size=320)
    params = tiny.random_params(Llama.functional(config))
    _write_gguf(tmp_path / "x.gguf", config, params, spm=truth)
    import_weights("gguf", weights=[tmp_path / "x.gguf"], out=tmp_path / "ours")
    found = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "ours/tokenizer.model"))
    for text in ("Hello world", "  two  spaces ", "Zürich, 12:30 €", "line\none", ""):
        assert found.EncodeAsIds(text) == truth.EncodeAsIds(text), text
        assert found.Decode(found.EncodeAsIds(text)) == truth.Decode(truth.EncodeAsIds(text))
    assert (found.unk_id(), found.bos_id(), found.eos_id()) == (0, 1, 2)
    # Special tokens written in a text: the spaces around them stay, as with Vicuna's own files.
    cases = json.loads((golden / "text_cases" / "encode_320.json").read_text())
    ours = load_tokenizer(tmp_path / "ours")
    special = [case for case in cases if "</s>" in case["text"] or "<s>" in case["text"]]
    assert special
    for case in special:
        assert [ours.bos_id, *ours.encode(case["text"])] == case["ids"], case["text"]


def test_gguf_llama3_scaling_is_recognised(tmp_path):
    config = tiny.llama_config(head_dim=64, rope_theta=500_000.0)
    ours = {"head_dim": 64, "rope_theta": 500_000.0}
    hf = transformers.LlamaConfig(
        **SIZES, head_dim=64,
        rope_parameters=LLAMA3
        | {"rope_theta": 500_000.0, "factor": 32.0, "original_max_position_embeddings": 8192},
    )  # fmt: skip
    rotary = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(hf)
    plain = hf_rope.inverse_frequencies(head_dim=64, theta=config.rope_theta)
    factors = plain / rotary.inv_freq.numpy()
    found = gguf_llama._rope_scaling(factors, ours, path=tmp_path)
    assert found["factor"] == 32.0
    with pytest.raises(WeightsError, match="no published LLaMA-3"):
        gguf_llama._rope_scaling(factors * 1.1, ours, path=tmp_path)


def test_real_smollm2_equals_transformers(smollm2_dir, tmp_path):
    weights = load_weights(smollm2_dir, kind="llama", verify=False)
    config = LlamaConfig.from_dict(weights.config)
    export_weights("hf", checkpoint=smollm2_dir, out=tmp_path / "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert model.dtype == torch.float32
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    prompt = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        truth = model(ids).logits.numpy()
        answer = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    # measured 8.6e-5: logits reach 36, and transformers' float32 is 9e-5 away from its float64
    found = tiny.logits(config, weights.params, ids.numpy())
    np.testing.assert_allclose(found, truth, atol=1e-4)
    assert "Paris" in tokenizer.decode(answer)  # the weights make sense, not only agree


def test_a_plain_llama_is_not_exported_as_ltu_as(tmp_path):
    from ltu_jax.models.llama import Llama

    config = tiny.llama_config()
    save_weights(
        tmp_path / "w", kind="llama", config=tiny.as_dict(config),
        params=tiny.random_params(Llama.functional(config)), source={},
    )  # fmt: skip
    with pytest.raises(ValueError, match="'llama' weights; --to ltu-as needs ltu-as weights"):
        export_weights("ltu-as", checkpoint=tmp_path / "w", out=tmp_path / "x.safetensors")
