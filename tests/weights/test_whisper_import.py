"""Whisper from Hugging Face and CTranslate2, against live transformers models."""

import json
import struct

import numpy as np
import pytest
import torch
import transformers

from ltu_jax.convert import import_weights, model_shapes
from ltu_jax.models import build
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.weights import ct2_whisper, whisper
from ltu_jax.weights.io import WeightsError
from ltu_jax.weights.rules import export
from ltu_jax.weights.store import load_weights


def _hf_config(**changes):
    values = dict(
        vocab_size=51865, num_mel_bins=20, d_model=24, encoder_layers=2, decoder_layers=3,
        encoder_attention_heads=3, decoder_attention_heads=4, encoder_ffn_dim=96,
        decoder_ffn_dim=96, max_source_positions=50, max_target_positions=30, dropout=0.0,
    )  # fmt: skip
    return transformers.WhisperConfig(**(values | changes))


@pytest.fixture(scope="module")
def random_hf(tmp_path_factory):
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(_hf_config()).eval()
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.1)
    folder = tmp_path_factory.mktemp("hf-whisper")
    model.save_pretrained(folder)
    out = folder.parent / "ours"
    import_weights("hf-whisper", weights=[folder], out=out)
    return model, folder, load_weights(out, kind="whisper")


def test_hf_round_trip_is_bit_identical(random_hf):
    model, _, weights = random_hf
    _, shapes = model_shapes("whisper", weights.config)
    back = dict(export(whisper.HF_RULES, weights.params, shapes))
    state = {
        name.removeprefix("model."): value
        for name, value in model.state_dict().items()
        if name != "proj_out.weight"
    }
    assert back.keys() == state.keys()
    for name, array in back.items():
        assert array.tobytes() == state[name].contiguous().numpy().tobytes(), name


def test_random_model_computes_the_same(random_hf):
    model, _, weights = random_hf
    mel = torch.randn(2, 20, 100)
    ids = torch.randint(0, 51865, (2, 7))
    with torch.no_grad():
        truth = model(input_features=mel, decoder_input_ids=ids)
    fns = build.whisper(WhisperConfig.from_dict(weights.config))
    params = dict(weights.params)
    encoded = fns.encode(params, mel.numpy().transpose(0, 2, 1))
    np.testing.assert_allclose(encoded, truth.encoder_last_hidden_state, atol=1e-4)
    cache = fns.init_cache(params, encoded, length=7)
    found, _ = fns.decode(params, ids.numpy(), cache)
    np.testing.assert_allclose(found, truth.logits, atol=1e-4, rtol=1e-4)


def test_real_tiny_en_encoder_equals_transformers(whisper_tiny_dir):
    weights = load_weights(whisper_tiny_dir, kind="whisper", dtype=np.float32)
    config = WhisperConfig.from_dict(weights.config)
    assert config == build.WHISPER_SIZES["tiny.en"]
    _, shapes = model_shapes("whisper", weights.config)
    state = {
        name: torch.from_numpy(array)
        for name, array in export(whisper.HF_RULES, dict(weights.params), shapes)
    }
    hf = _hf_config(
        vocab_size=51864, num_mel_bins=80, d_model=384, encoder_layers=4, decoder_layers=4,
        encoder_attention_heads=6, decoder_attention_heads=6, encoder_ffn_dim=1536,
        decoder_ffn_dim=1536, max_source_positions=1500, max_target_positions=448,
    )  # fmt: skip
    model = transformers.WhisperModel(hf).eval()
    model.load_state_dict(state, strict=True)
    mel = np.random.default_rng(0).uniform(-1, 1.5, (1, 3000, 80)).astype(np.float32)
    with torch.no_grad():
        truth = model.encoder(torch.from_numpy(mel.transpose(0, 2, 1))).last_hidden_state
    found = build.whisper(config).encode(dict(weights.params), mel)
    np.testing.assert_allclose(found, truth, atol=1e-4)


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
    assert whisper.special_tokens(51865, languages=99)["timestamp_begin"] == 50364
    assert whisper.special_tokens(51866, languages=100)["timestamp_begin"] == 50365


def _ct2(config: dict, params: dict, *, spec=b"WhisperSpec\0", dtype=(np.float16, 4)) -> bytes:
    """A CTranslate2 model.bin (version 6), written from its description."""
    _, shapes = model_shapes("whisper", config)
    tensors = dict(export(ct2_whisper.RULES, params, shapes))

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


def test_another_architecture_is_named(random_hf, tmp_path):
    _, folder, _ = random_hf
    settings = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"model_type": "gpt2"}))
    with pytest.raises(WeightsError, match="another architecture: found model_type gpt2"):
        whisper.from_hf(tmp_path)
