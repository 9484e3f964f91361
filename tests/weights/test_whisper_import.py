"""Whisper from Hugging Face and CTranslate2, against live transformers models."""

import json
import struct

import numpy as np
import pytest
import tiny_models
import tiny_whisper
import torch
import transformers

from ltu_jax.convert import import_weights
from ltu_jax.models.sizes import WHISPER_SIZES
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.weights.formats import ct2_whisper, hf_whisper, whisper_tokens
from ltu_jax.weights.name_tables import export
from ltu_jax.weights.store import load_weights
from ltu_jax.weights.tensors import WeightsError, as_tensors

pytestmark = pytest.mark.optimised


@pytest.fixture(scope="module")
def random_hf(tmp_path_factory):
    model = tiny_whisper.hf_model()
    folder = tmp_path_factory.mktemp("hf-whisper")
    model.save_pretrained(folder)
    out = folder.parent / "ours"
    import_weights("hf-whisper", weights=[folder], out=out)
    return model, folder, load_weights(out, kind="whisper")


def _same_as_before(folder, weights, tmp_path) -> None:
    import_weights("hf-whisper", weights=[folder], out=tmp_path / "ours")
    again = load_weights(tmp_path / "ours", kind="whisper")
    assert again.config == weights.config
    tiny_models.identical(dict(again.params), dict(weights.params))


def test_shards_with_an_index(random_hf, tmp_path):
    model, _, weights = random_hf
    model.save_pretrained(tmp_path / "hf", max_shard_size="40KB")
    assert len(list((tmp_path / "hf").glob("*.safetensors"))) > 2
    _same_as_before(tmp_path / "hf", weights, tmp_path)
    shard = next((tmp_path / "hf").glob("*-00002-of-*"))
    shard.unlink()
    with pytest.raises(WeightsError, match=f"lacks 1 of .* shards.*{shard.name}"):
        hf_whisper.from_hf(tmp_path / "hf")


@pytest.mark.parametrize("tied", [True, False], ids=["with proj_out", "without"])
@pytest.mark.parametrize("prefix", ["model.", ""])
def test_pickled_weights(random_hf, tmp_path, tied, prefix):
    model, folder, weights = random_hf
    state = {
        prefix + name.removeprefix("model."): value
        for name, value in model.state_dict().items()
        if name != "proj_out.weight"
    }
    if tied:
        state["proj_out.weight"] = model.proj_out.weight.detach()
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    _same_as_before(tmp_path, weights, tmp_path)


def test_random_model_computes_the_same(random_hf):
    model, _, weights = random_hf
    mel = np.random.default_rng(0).normal(size=(2, 100, 20)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, 51865, (2, 7))
    found = tiny_whisper.compute(weights.config, weights.params, mel, ids)
    for ours, truth in zip(found, tiny_whisper.reference(model, mel, ids), strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model.decoder.layer_norm.bias": None}, "1 missing: decoder.layer_norm.bias"),
        ({"model.encoder.head.weight": torch.zeros(2, 2)}, "1 surplus: encoder.head.weight"),
        (
            {"model.encoder.layers.1.fc2.bias": torch.zeros(25)},
            r"encoder.layers.1.fc2.bias is \[25\], expected \[24\]",
        ),
        ({"proj_out.weight": torch.zeros(51865, 24)}, "differs from the embedding; not tied"),
        ({"encoder.conv1.bias": torch.zeros(24)}, "both encoder.conv1.bias and model.encoder"),
        ({"model.encoder.conv1.weight": torch.zeros(24, 60)}, "expected 3 axes"),
    ],
)
def test_every_name_and_shape_counts(random_hf, tmp_path, changes, message):
    model, folder, _ = random_hf
    state = model.state_dict() | changes
    state = {name: value for name, value in state.items() if value is not None}
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(WeightsError, match=message):
        tiny_models.opened(hf_whisper.from_hf(tmp_path), "whisper")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "gpt2"}, "another architecture: found model_type gpt2"),
        ({"activation_function": "relu"}, "activation_function is 'relu'; Whisper has 'gelu'"),
        ({"scale_embedding": True}, "scale_embedding is True; Whisper has False"),
        ({"decoder_attention_heads": None}, "attention_heads are 3 and None; the shapes do not"),
    ],
)
def test_configs_of_another_model_are_named(random_hf, tmp_path, changes, message):
    settings = json.loads((random_hf[1] / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(WeightsError, match=message):
        hf_whisper.from_hf(tmp_path)


def test_real_tiny_en_equals_transformers(whisper_tiny_dir):
    weights = load_weights(whisper_tiny_dir, kind="whisper", dtype=np.float32)
    config = WhisperConfig.from_dict(weights.config)
    assert config == WHISPER_SIZES["tiny.en"]
    state = export(hf_whisper.HF_RULES, as_tensors(dict(weights.params)))
    model = transformers.WhisperForConditionalGeneration(tiny_whisper.full_config(config)).eval()
    state = {name: torch.from_numpy(array) for name, array in tiny_models.numbers(state).items()}
    model.model.load_state_dict(state, strict=True)
    mel = np.random.default_rng(0).uniform(-1, 1.5, (1, 3000, 80)).astype(np.float32)
    ids = np.asarray([[50257, 50362, 843, 523, 616, 5891, 3399, 1265]])
    found = tiny_whisper.compute(weights.config, weights.params, mel, ids)
    for ours, truth in zip(found, tiny_whisper.reference(model, mel, ids), strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-4, rtol=0)


def test_real_tiny_en_comes_with_its_tokenizer(whisper_tiny_dir):
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(whisper_tiny_dir / "tokenizer.json"))
    ids = tokenizer.encode(" And so, my fellow Americans", add_special_tokens=False).ids
    assert tokenizer.decode(ids).strip() == "And so, my fellow Americans"
    generation = json.loads((whisper_tiny_dir / "generation.json").read_text())
    assert not generation["multilingual"]
    assert generation["special"] == {
        "eot": 50256, "sot": 50257, "translate": 50357, "transcribe": 50358, "sot_lm": 50359,
        "sot_prev": 50360, "no_speech": 50361, "no_timestamps": 50362, "timestamp_begin": 50363,
    }  # fmt: skip
    assert generation["begin_suppress_tokens"] == [220, 50256]
    assert {50257, 50358, 50359, 50360, 50361} <= set(generation["suppress_tokens"])


def test_special_tokens_of_the_multilingual_vocabularies():
    assert whisper_tokens.special_tokens(51865, languages=99)["timestamp_begin"] == 50364
    assert whisper_tokens.special_tokens(51866, languages=100)["timestamp_begin"] == 50365


def _ct2(config: dict, params: dict, *, spec=b"WhisperSpec\0", dtype=(np.float16, 4)) -> bytes:
    """A CTranslate2 model.bin (version 6), written from its description."""
    tensors = tiny_models.numbers(export(ct2_whisper.RULES, as_tensors(params)))

    def text(value: bytes) -> bytes:
        return struct.pack("<H", len(value)) + value

    def record(name: str, array: np.ndarray, code: int) -> bytes:
        head = text(name.encode() + b"\0") + struct.pack("<B", array.ndim)
        dims = b"".join(struct.pack("<I", size) for size in array.shape)
        return head + dims + struct.pack("<BI", code, array.nbytes) + array.tobytes()

    records = [record(name, array.astype(dtype[0]), dtype[1]) for name, array in tensors.items()]
    for side, key in (("encoder", "n_audio_head"), ("decoder", "n_text_head")):
        records.append(record(f"{side}/num_heads", np.asarray(config[key], np.int16), 2))
    records.append(record("decoder/activation", np.asarray(3, np.int8), 1))
    records.append(record("decoder/alignment_layer", np.asarray(-1, np.int16), 2))
    alias = text(b"decoder/projection/weight\0") + text(b"decoder/embeddings/weight\0")
    head = struct.pack("<I", 6) + text(spec) + struct.pack("<II", 3, len(records))
    return head + b"".join(records) + struct.pack("<I", 1) + alias


def test_ct2_in_parts_and_its_damages(random_hf, tmp_path):
    _, _, weights = random_hf
    half = {path: array.astype(np.float16) for path, array in weights.params.items()}
    content = _ct2(weights.config, half)
    for number, piece in ((1, content[:5000]), (2, content[5000:])):
        (tmp_path / f"p{number}").mkdir()
        (tmp_path / f"p{number}" / f"model.bin.part{number}").write_bytes(piece)
    parts = [tmp_path / "p2", tmp_path / "p1"]
    import_weights("ct2-whisper", weights=parts, out=tmp_path / "ours")
    found = load_weights(tmp_path / "ours")
    assert found.config == weights.config
    for path, array in half.items():
        assert found.params[path].tobytes() == array.tobytes(), path
    assert found.tokenizer_dir is None

    file = tmp_path / "model.bin"
    for size in (3, 100, len(content) - 10):
        file.write_bytes(content[:size])
        with pytest.raises(WeightsError, match="is damaged.*interrupted download"):
            ct2_whisper.from_ct2([file])
    file.write_bytes(content)
    with pytest.raises(WeightsError, match="its sha256 is not abc"):
        ct2_whisper.from_ct2([file], sha256="abc")
    file.write_bytes(_ct2(weights.config, half, spec=b"TransformerSpec\0"))
    with pytest.raises(WeightsError, match="CTranslate2 TransformerSpec, expected WhisperSpec"):
        ct2_whisper.from_ct2([file])
    file.write_bytes(_ct2(weights.config, half, dtype=(np.int8, 1)))
    with pytest.raises(WeightsError, match="is quantised"):
        ct2_whisper.from_ct2([file])
    with pytest.raises(WeightsError, match="no CTranslate2 model.bin there"):
        ct2_whisper.from_ct2([tmp_path / "ours"])
