"""Tokenizers as people have them: imported and usable, or refused by the name of what is wrong."""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import odd_weights as odd
import pytest
import transformers
from odd_weights import FAST, byte_level, settings_of, state_of, write

from ltu_jax.convert import import_weights
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.tokenizer import load_tokenizer
from ltu_jax.weights.identify.describe import describe
from ltu_jax.weights.store import load_weights

TEXTS = (
    "Hello world", "  two  spaces ", "don't we'll WE'LL", "1234567 12 7", "Zürich, 12:30 €\n\n x",
    "你好 🎵", "a\tb\r\n\r\nc   ", "Cafe\u0301 e\u0301", "", "barking!!! ...",
)  # fmt: skip
PAD, PAD_ID = "[PAD]", 320


def _import(source: Path, out: Path, *, kind: str = "hf-llama", **options):
    import_weights(kind, weights=[source], out=out, **options)
    return load_weights(out)


# --- tokenizers -----------------------------------------------------------------------------------


def _named_specials(**more) -> dict:
    flags = {"lstrip": False, "rstrip": False, "normalized": True, "single_word": False}
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {key: {"content": text, **flags} for key, text in names.items()} | more


def _decoder(index: int, **flags) -> dict:
    entry = {"content": PAD, "lstrip": False, "rstrip": False, "special": True} | flags
    return {"added_tokens_decoder": {str(index): entry}}


WITH_PAD = {"special_tokens_map.json": _named_specials(pad_token=PAD)}
# files beside tokenizer.model, rows, and the datum of the refusal or the spaces kept at [PAD]
PIECES = [
    ({**WITH_PAD, "added_tokens.json": {PAD: PAD_ID}}, 321, None),
    ({**WITH_PAD, "added_tokens.json": {PAD: PAD_ID}}, 384, None),  # padded
    ({**WITH_PAD, "tokenizer_config.json": _decoder(PAD_ID)}, 321, None),
    ({**WITH_PAD, "tokenizer.json": {"added_tokens": [{"id": PAD_ID, "content": PAD}]}}, 321, None),
    ({**WITH_PAD, "added_tokens.json": {PAD: PAD_ID}, "tokenizer_config.json": _decoder(PAD_ID)},
     321, None),
    ({"special_tokens_map.json": _named_specials()}, 320, None),
    ({**WITH_PAD, "added_tokens.json": {PAD: PAD_ID}}, 320, r"'\[PAD\]' is 320.*320 rows"),
    ({"added_tokens.json": {"<extra>": 400}}, 321, "'<extra>' is 400"),
    (WITH_PAD, 321, r"'\[PAD\]'"),
    ({**WITH_PAD, "added_tokens.json": {PAD: 7}}, 321, r"id 7 is the piece.*'\[PAD\]'"),
    ({**WITH_PAD, "added_tokens.json": {PAD: PAD_ID}, "tokenizer_config.json": _decoder(321)},
     322, r"'\[PAD\]' has the id 321.*added_tokens.json"),
    ({**WITH_PAD, "added_tokens.json": {PAD: PAD_ID, "[MASK]": PAD_ID}}, 322, r"'\[MASK\]'"),
    ({**WITH_PAD, "added_tokens.json": {PAD: "many"}}, 321, "'many'"),
    ({**WITH_PAD, "added_tokens.json": [PAD]}, 321, "added_tokens.json"),
    ({"tokenizer_config.json": {"eos_token": {"id": 2}}}, 321, "eos_token"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "rows", "datum"), PIECES)
def test_tokens_added_to_sentencepiece(tmp_path, golden, files, rows, datum):
    import sentencepiece

    file = golden / "text_cases" / "spm320.model"
    folder = write(
        tmp_path / "hf", settings_of(rows), state_of(rows),
        files=files | {"tokenizer.model": file.read_bytes()},
    )  # fmt: skip
    if datum:
        with pytest.raises(UserError, match=datum):
            _import(folder, tmp_path / "ours")
        assert not (tmp_path / "ours").exists()
        assert re.search(datum, describe(folder, hash=False).problems[0])
        return
    _import(folder, tmp_path / "ours")
    ours, truth = load_tokenizer(tmp_path / "ours"), sentencepiece.SentencePieceProcessor(str(file))
    assert ours.vocab_size <= rows
    for text in TEXTS:
        assert ours.encode(text) == truth.EncodeAsIds(text), text
        assert ours.decode(ours.encode(text)) == truth.Decode(truth.EncodeAsIds(text))
    assert ours.decode([5, rows - 1, 6]) is not None  # a row without a token is no traceback
    if rows == 320:
        return
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, PAD_ID)
    # a plain string strips around itself, an AddedToken that says otherwise does not
    flagged = any(
        "added_tokens" in json.dumps(v) for k, v in files.items() if k.startswith("token")
    )
    parts = ("Hello ", " world") if flagged else ("Hello", "world")
    ids = [*truth.EncodeAsIds(parts[0]), PAD_ID, *truth.EncodeAsIds(parts[1])]
    assert ours.encode(f"Hello {PAD} world") == ids
    assert PAD not in ours.decode(ids) and PAD in ours.decode(ids, skip_special=False)
    if rows == 321:
        ids = np.array([ids * 2])
        theirs = odd.their_logits(odd.model(rows), ids)
        np.testing.assert_allclose(odd.our_logits(tmp_path / "ours", ids), theirs, atol=1e-4)


# added_tokens.json and tokenizer_config.json beside a tokenizer.json of 300 tokens, and the datum
BESIDE = [
    ({"<x>": 300, "<y>": 301}, FAST, 320, None),
    ({}, FAST | {"added_tokens_decoder": {"300": {"content": "<x>", "special": False}}}, 320, None),
    ({}, FAST, 300, None),
    ({}, FAST, 299, r"ids 0 to 299.*299 rows"),
    ({"<x>": 300}, FAST, 300, "'<x>' is 300"),
    ({"<x>": 305}, FAST, 320, "'<x>' the id 305"),
    ({"hello": 300}, FAST, 320, "'hello' the id 300"),
    ({}, {"bos_token": "<s>"}, 320, "eos_token"),
    ({}, FAST | {"eos_token": "<|im_end|>"}, 320, r"'<\|im_end\|>'"),
]


@pytest.mark.parametrize(("added", "settings", "rows", "datum"), BESIDE)
def test_tokens_added_to_a_fast_tokenizer(tmp_path, added, settings, rows, datum):
    from tokenizers import Tokenizer

    files = {"tokenizer.json": byte_level(), "tokenizer_config.json": settings}
    files |= {"added_tokens.json": added} if added else {}
    folder = write(tmp_path / "hf", settings_of(rows), state_of(rows), files=files)
    if datum:
        with pytest.raises(UserError, match=datum):
            _import(folder, tmp_path / "ours")
        return
    _import(folder, tmp_path / "ours")
    ours, truth = load_tokenizer(tmp_path / "ours"), Tokenizer.from_str(byte_level())
    for text in TEXTS:
        ids = truth.encode(text, add_special_tokens=False).ids
        assert ours.encode(text) == ids and ours.decode(ids) == text
    if added or len(settings) > len(FAST):
        assert ours.encode("hello<x>hello").count(300) == 1
        assert ours.decode(ours.encode("hello<x>hello")) == "hello<x>hello"


def test_a_broken_tokenizer_file_is_named(tmp_path):
    broken = json.dumps({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}})
    files = {"tokenizer.json": broken, "tokenizer_config.json": FAST}
    folder = write(tmp_path / "hf", settings_of(), state_of(), files=files)
    with pytest.raises(UserError, match=r"tokenizer.json"):
        _import(folder, tmp_path / "ours")


# --- GGUF -----------------------------------------------------------------------------------------

_GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{{0}}}|"
    r" ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CUTS = {
    "deepseek-r1-qwen": _GPT4.format(1), "stablelm2": _GPT4.format(1),
    "llama-bpe": _GPT4.format("1,3"), "smaug-bpe": _GPT4.format("1,3"), "gpt-2": _GPT2,
}  # fmt: skip


def _byte_pairs(text: str, pattern: str) -> list[int]:
    """Byte-pair encoding by its definition: cut, then join the earliest merge, again and again."""
    import regex
    from tokenizers import pre_tokenizers

    held = json.loads(byte_level())["model"]
    order = {tuple(m): n for n, m in enumerate(held["merges"])}
    letters = {b: c for b, c in zip(_BYTES, _LETTERS, strict=True)}
    assert set(letters.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    ids = []
    for word in regex.findall(pattern, text):
        parts = [letters[byte] for byte in word.encode()]
        while True:
            pairs = [(order.get(p, 10**9), i) for i, p in enumerate(itertools.pairwise(parts))]
            rank, place = min(pairs, default=(10**9, 0))
            if rank == 10**9:
                break
            parts[place : place + 2] = ["".join(parts[place : place + 2])]
        ids += [held["vocab"][part] for part in parts]
    return ids


_PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = _PRINTED + [b for b in range(256) if b not in _PRINTED]
_LETTERS = [chr(b) for b in _PRINTED] + [chr(0x100 + n) for n in range(256 - len(_PRINTED))]


@pytest.mark.parametrize("pre", CUTS)
def test_gguf_cuts_text_as_its_family_does(tmp_path, pre):
    file = odd.write_gguf(tmp_path / "x.gguf", pre=pre)
    held = _import(file, tmp_path / "ours", kind="gguf")
    ours = load_tokenizer(tmp_path / "ours")
    for text in TEXTS:
        assert ours.encode(text) == _byte_pairs(text, CUTS[pre]), text
        assert ours.decode(ours.encode(text)) == text
    assert held.max_position_embeddings == 64 and held.facts["end_tokens"] == [2]
    assert describe(file, hash=False).next


def test_gguf_qwen2_cuts_text_as_transformers_does(tmp_path):
    held = json.loads(byte_level())["model"]
    truth = transformers.Qwen2Tokenizer(
        vocab=held["vocab"], merges=[tuple(m) for m in held["merges"]], unk_token="<unk>",
        eos_token="</s>", pad_token="</s>",
    )  # fmt: skip
    file = odd.write_gguf(tmp_path / "x.gguf", family="qwen2", pre="qwen2")
    _import(file, tmp_path / "ours", kind="gguf")
    ours = load_tokenizer(tmp_path / "ours")
    for text in TEXTS:
        assert ours.encode(text) == truth(text).input_ids, text


def test_gguf_takes_the_models_own_tokenizer(tmp_path):
    file = odd.write_gguf(tmp_path / "x.gguf", pre="of-next-year")
    with pytest.raises(UserError, match="'of-next-year'.*--tokenizer"):
        _import(file, tmp_path / "ours", kind="gguf")
    told = describe(file, hash=False)
    assert "of-next-year" in told.problems[0] and told.next is None
    files = {"tokenizer.json": byte_level(), "tokenizer_config.json": FAST}
    given = write(tmp_path / "own", {}, {}, files=files)
    _import(file, tmp_path / "ours", kind="gguf", tokenizer=given)
    assert load_tokenizer(tmp_path / "ours").decode([1, *range(3, 12)]) != ""
    other = json.loads(byte_level())
    other["model"]["vocab"] |= {"!": 4, '"': 3}
    (given / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match="not the tokenizer of"):
        _import(file, tmp_path / "ours", kind="gguf", tokenizer=given)


_TOKENS = sorted(v := json.loads(byte_level())["model"]["vocab"], key=v.get)
GGUFS = [
    (dict(merges=["h e", "zz qq"]), "'zz qq'.*'zz'"),
    (dict(merges=["h e", "he q"]), "'he q'.*'heq'"),
    (dict(merges=["h e", "lone"]), "'lone'"),
    (dict(merges=[]), "tokenizer.ggml.merges"),
    (dict(tokens=[*_TOKENS, "<new>"]), "'<new>' is 300.*300 rows"),
    (dict(fields={"vocab_size": 301}), "vocab_size is 301"),
    (dict(fields={"rope.scaling.factor": 4.0}), "rope.scaling.factor is 4"),
    (dict(fields={"rope.scaling.type": "linear"}), "rope.scaling.type is linear"),
    (dict(fields={"expert_count": 8}), "expert_count is 8"),
    (dict(fields={"attention.sliding_window": 8}), "attention.sliding_window is 8"),
    (dict(fields={"attention.causal": False}), "attention.causal"),
    (dict(fields={"logit_scale": 0.5}), "logit_scale"),
    (dict(tensors={"output_norm.weight": np.ones(32, np.int8)}), "int8: output_norm.weight"),
    (dict(tensors={"output_norm.weight": np.full(32, np.nan, np.float32)}), "weight has 32"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "datum"), GGUFS)
def test_gguf_that_contradicts_itself(tmp_path, changes, datum):
    file = odd.write_gguf(tmp_path / "x.gguf", **changes)
    with pytest.raises(UserError, match=datum):
        _import(file, tmp_path / "ours", kind="gguf")
    if "tensors" not in changes:
        assert re.search(datum, describe(file, hash=False).problems[0])
