"""OpenAI's Whisper checkpoints, in and out; names and sizes as the official files have them."""

import base64
import json

import numpy as np
import pytest
import tiny_models
import tiny_whisper
import torch
from tokenizers import Tokenizer

from ltu_jax.convert import export_weights, import_weights
from ltu_jax.models.sizes import WHISPER_SIZES
from ltu_jax.weights.formats import openai_whisper, whisper_tokens
from ltu_jax.weights.name_tables import foreign_shapes
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.store import load_weights
from ltu_jax.weights.tensors import WeightsError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random model, its `.pt` in float16 as OpenAI saves it, and the file."""
    model = tiny_whisper.hf_model().half().float()  # numbers that float16 holds
    saved = tiny_whisper.openai_checkpoint(model)
    saved["model_state_dict"] = {n: v.half() for n, v in saved["model_state_dict"].items()}
    file = tmp_path_factory.mktemp("openai") / "tiny.pt"
    torch.save(saved, file)
    return model, saved, file


def test_import_computes_what_transformers_computes(checkpoint, tmp_path):
    model, saved, file = checkpoint
    import_weights("openai-whisper", weights=[file], out=tmp_path / "ours")
    weights = load_weights(tmp_path / "ours", kind="whisper", dtype=np.float32)
    assert weights.config == saved["dims"]
    assert weights.tokenizer_dir is None
    mel = np.random.default_rng(0).normal(size=(2, 100, 20)).astype(np.float32)
    ids = np.random.default_rng(1).integers(0, 51865, (2, 7))
    found = tiny_whisper.compute(weights.config, weights.params, mel, ids)
    for ours, truth in zip(found, tiny_whisper.reference(model, mel, ids), strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-4, rtol=0)


def test_round_trip_is_bit_identical(checkpoint, tmp_path):
    _, saved, file = checkpoint
    import_weights("openai-whisper", weights=[file], out=tmp_path / "ours")
    export_weights("openai-whisper", checkpoint=tmp_path / "ours", out=tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert back.keys() == saved.keys()
    assert back["dims"] == saved["dims"]
    assert back["model_state_dict"].keys() == saved["model_state_dict"].keys()
    for name, value in saved["model_state_dict"].items():
        other = back["model_state_dict"][name]
        assert other.dtype == value.dtype and torch.equal(other, value), name


def test_encoder_names_and_shapes_are_those_of_large_v1(golden):
    truth = json.loads((golden / "whisper_large_names.json").read_text())
    config, shapes = model_shapes("whisper", truth["dims"])
    names = foreign_shapes(openai_whisper.RULES, shapes)
    encoder = {name: list(shape) for name, shape in names.items() if name.startswith("encoder.")}
    assert encoder == truth["state_dict"]
    dims, state = openai_whisper.to_openai(config, tiny_models.hollow(shapes))
    assert dims == truth["dims"] and list(dims) == list(truth["dims"])
    assert {name: tensor.shape for name, tensor in state.items()} == names


# (width, heads, encoder layers, decoder layers, mel bins, vocabulary, parameters), as published:
# sizes in the paper's table 1 and OpenAI's model cards. Counts: 39 M, 74 M, 244 M, 769 M, 1550 M
# and 809 M, which do not count the encoder's fixed positions.
PUBLISHED = {
    "tiny": (384, 6, 4, 4, 80, 51865, 39e6),
    "tiny.en": (384, 6, 4, 4, 80, 51864, 39e6),
    "base": (512, 8, 6, 6, 80, 51865, 74e6),
    "base.en": (512, 8, 6, 6, 80, 51864, 74e6),
    "small": (768, 12, 12, 12, 80, 51865, 244e6),
    "small.en": (768, 12, 12, 12, 80, 51864, 244e6),
    "medium": (1024, 16, 24, 24, 80, 51865, 769e6),
    "medium.en": (1024, 16, 24, 24, 80, 51864, 769e6),
    "large-v1": (1280, 20, 32, 32, 80, 51865, 1550e6),
    "large-v2": (1280, 20, 32, 32, 80, 51865, 1550e6),
    "large-v3": (1280, 20, 32, 32, 128, 51866, 1550e6),
    "turbo": (1280, 20, 32, 4, 128, 51866, 809e6),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    width, heads, layers, text_layers, mels, vocabulary, count = PUBLISHED[name]
    config = WHISPER_SIZES[name]
    settings, shapes = model_shapes("whisper", tiny_models.as_dict(config))
    dims, state = openai_whisper.to_openai(settings, tiny_models.hollow(shapes))
    assert dims == {
        "n_mels": mels, "n_audio_ctx": 1500, "n_audio_state": width, "n_audio_head": heads,
        "n_audio_layer": layers, "n_vocab": vocabulary, "n_text_ctx": 448, "n_text_state": width,
        "n_text_head": heads, "n_text_layer": text_layers,
    }  # fmt: skip
    assert state["decoder.blocks.0.cross_attn.key.weight"].shape == (width, width)
    assert len(state) == 11 + 15 * layers + 24 * text_layers
    total = sum(int(np.prod(tensor.shape)) for tensor in state.values()) - 1500 * width
    assert abs(total / count - 1) < 0.05  # the cards round; tiny is 37.2 M


def _changed(saved, file, *, dims=(), state=()):
    """The checkpoint with other dims or tensors; None takes an entry away."""
    made = {
        "dims": saved["dims"] | dict(dims),
        "model_state_dict": saved["model_state_dict"] | dict(state),
    }
    made = {k: {n: v for n, v in part.items() if v is not None} for k, part in made.items()}
    torch.save(made, file)
    return file


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"n_audio_layer": 3},
            "contradict its tensors: n_audio_layer is 3, the tensors say 2",
        ),
        ({"n_vocab": 51864}, "n_vocab is 51864, the tensors say 51865"),
        ({"n_mels": 80, "n_text_ctx": 448}, "n_mels is 80, .* 20; n_text_ctx is 448, .* 30"),
        ({"n_text_state": 32}, "n_text_state is 32, the tensors say 24"),
        ({"n_mels": None}, "dims are not those of Whisper: n_mels missing"),
        ({"n_speakers": 2}, "n_speakers unknown"),
        ({"n_audio_head": 0}, "n_audio_head is 0; dims are positive integers"),
        ({"n_text_head": "4"}, "n_text_head is '4'; dims are positive integers"),
    ],
)
def test_dims_that_lie_are_named(checkpoint, tmp_path, changes, message):
    file = _changed(checkpoint[1], tmp_path / "x.pt", dims=changes)
    with pytest.raises(WeightsError, match=message):
        openai_whisper.from_openai(file)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"decoder.ln.bias": None}, "1 missing: decoder.ln.bias"),
        ({"encoder.head.weight": torch.zeros(2, 2)}, "1 surplus: encoder.head.weight"),
        (
            {"encoder.blocks.1.mlp.2.bias": torch.zeros(25)},
            r"encoder.blocks.1.mlp.2.bias is \[25\], expected \[24\]",
        ),
    ],
)
def test_every_name_and_shape_counts(checkpoint, tmp_path, changes, message):
    file = _changed(checkpoint[1], tmp_path / "x.pt", state=changes)
    with pytest.raises(WeightsError, match=message):
        tiny_models.opened(openai_whisper.from_openai(file), "whisper")


def test_other_pickles_are_refused(checkpoint, tmp_path):
    _, saved, _ = checkpoint
    file = tmp_path / "x.pt"
    torch.save(saved["model_state_dict"], file)
    with pytest.raises(WeightsError, match="not an OpenAI Whisper.*this one has decoder"):
        openai_whisper.from_openai(file)
    torch.save(saved | {"model_state_dict": {"epoch": 3}}, file)
    with pytest.raises(WeightsError, match="'epoch' in its model_state_dict is a int, no tensor"):
        openai_whisper.from_openai(file)
    torch.save(saved | {"model_state_dict": {"a": torch.zeros(1)}}, file)
    with pytest.raises(WeightsError, match="not a Whisper; encoder.conv1.weight"):
        openai_whisper.from_openai(file)


# --- tokenizers -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def english(whisper_tiny_files, tmp_path_factory):
    """The real English tokenizer, and its byte pairs as OpenAI's gpt2.tiktoken has them."""
    real = json.loads((whisper_tiny_files / "tokenizer.json").read_text())
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in printed}
    others = [byte for byte in range(256) if byte not in printed]
    letters |= {chr(256 + place): byte for place, byte in enumerate(others)}
    ranks = sorted((rank, token) for token, rank in real["model"]["vocab"].items())
    lines = [
        base64.b64encode(bytes(letters[letter] for letter in token)) + f" {rank}".encode()
        for rank, token in ranks
        if rank < 50256
    ]
    folder = tmp_path_factory.mktemp("openai-assets")
    (folder / "gpt2.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    return real, folder, lines


def test_tiktoken_becomes_the_tokenizer_of_the_hub(english, whisper_tiny_files):
    real, folder, _ = english
    files = whisper_tokens.given_tokenizer(folder, {"n_vocab": 51864})
    made = json.loads(files["tokenizer.json"])
    assert made["model"]["vocab"] | {"<|endoftext|>": 50256} == real["model"]["vocab"]
    assert made["model"]["merges"] == [
        merge.split(" ") if isinstance(merge, str) else merge for merge in real["model"]["merges"]
    ]
    # OpenAI has renamed two tokens since that file was made
    renamed = {"<|iw|>": "<|he|>", "<|nocaptions|>": "<|nospeech|>"}
    assert [(entry["id"], entry["content"]) for entry in made["added_tokens"]] == [
        (entry["id"], renamed.get(entry["content"], entry["content"]))
        for entry in real["added_tokens"]
    ]
    ours, theirs = Tokenizer.from_str(files["tokenizer.json"]), Tokenizer.from_str(json.dumps(real))
    for text in (" And so, my fellow Americans", "naïve  日本語 ♪\n [x] it's 1961", ""):
        ids = theirs.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, add_special_tokens=False).ids == ids
        assert ours.decode(ids) == text


@pytest.mark.parametrize("source", ["weights directory", "tokenizer.json", "tiktoken"])
def test_suppressed_tokens_are_those_of_the_published_model(english, whisper_tiny_files, source):
    _, folder, _ = english
    path = {
        "weights directory": whisper_tiny_files,
        "tokenizer.json": whisper_tiny_files / "tokenizer.json",
        "tiktoken": folder / "gpt2.tiktoken",
    }[source]
    files = whisper_tokens.given_tokenizer(path, {"n_vocab": 51864})
    found = json.loads(files["generation.json"])
    truth = json.loads((whisper_tiny_files / "generation.json").read_text())
    assert found.pop("languages").keys() ^ truth.pop("languages").keys() <= {"iw", "he"}
    assert found == truth


def _pairs(count: int) -> bytes:
    """Ranks of 256 bytes, then of pairs and triples of them: a vocabulary of any size."""
    tokens = [bytes([byte]) for byte in range(256)]
    tokens += [bytes([a, b]) for a in range(256) for b in range(256)]
    made = [base64.b64encode(token) + f" {rank}".encode() for rank, token in enumerate(tokens)]
    return b"\n".join(made[: count - 1]) + b"\n= %d\n" % (count - 1)


@pytest.mark.parametrize(
    "n_vocab, languages, transcribe, timestamps",
    [(51865, 99, 50359, 50364), (51866, 100, 50360, 50365)],
)
def test_multilingual_numbering(tmp_path, n_vocab, languages, transcribe, timestamps):
    file = tmp_path / "multilingual.tiktoken"
    file.write_bytes(_pairs(50257))  # the last token is empty, as in OpenAI's file
    files = whisper_tokens.given_tokenizer(tmp_path, {"n_vocab": n_vocab})
    generation = json.loads(files["generation.json"])
    assert generation["multilingual"] and len(generation["languages"]) == languages
    assert generation["languages"]["en"] == 50259
    assert generation["special"]["transcribe"] == transcribe
    assert generation["special"]["timestamp_begin"] == timestamps
    assert n_vocab - timestamps == 1501
    assert generation["begin_suppress_tokens"][-1] == 50257
    tokenizer = Tokenizer.from_str(files["tokenizer.json"])
    assert tokenizer.token_to_id("<|yue|>") == (50358 if languages == 100 else None)
    assert tokenizer.token_to_id("<|notimestamps|>") == timestamps - 1


def test_import_with_a_tokenizer_can_transcribe(checkpoint, tmp_path):
    (tmp_path / "multilingual.tiktoken").write_bytes(_pairs(50257))
    out = tmp_path / "ours"
    import_weights("openai-whisper", weights=[checkpoint[2]], out=out, tokenizer=tmp_path)
    assert load_weights(out).tokenizer_dir == out
    assert not openai_whisper.from_openai(checkpoint[2], tokenizer=out).notes
    (note,) = openai_whisper.from_openai(checkpoint[2]).notes
    assert "not transcribe" in note and "--tokenizer" in note


def test_wrong_tokenizers_are_named(english, whisper_tiny_files, tmp_path):
    _, folder, lines = english
    given = whisper_tokens.given_tokenizer
    with pytest.raises(WeightsError, match="no tokenizer.json and no multilingual.tiktoken there"):
        given(folder, {"n_vocab": 51865})
    with pytest.raises(WeightsError, match="50256 byte-pair tokens; .* takes 50257"):
        given(folder / "gpt2.tiktoken", {"n_vocab": 51865})
    with pytest.raises(WeightsError, match="belongs to another Whisper"):
        given(whisper_tiny_files, {"n_vocab": 51865})
    with pytest.raises(WeightsError, match="belongs to another Whisper"):
        given(whisper_tiny_files, {"n_vocab": 300})
    file = tmp_path / "gpt2.tiktoken"
    for content, message in (
        (b"\n".join([*lines[:-1], b"IGdhemVk"]), "is not `base64 rank`"),
        (b"\n".join([*lines[:-1], b"I\xff 50255"]), "is not `base64 rank`"),
        (b"\n".join([lines[1], lines[0], *lines[2:]]), "do not count up from 0"),
        (b"\n".join([*lines[:-1], b"AAECAwQF 50255"]), "no earlier tokens make up"),
    ):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=message):
            given(file, {"n_vocab": 51864})
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {}}))
    with pytest.raises(WeightsError, match="not a Whisper tokenizer"):
        given(tmp_path, {"n_vocab": 51864})
