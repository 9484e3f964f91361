"""The tokenizer of a GGUF file: rebuilt of its metadata, or given beside it."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.preprocessing.tokenizer import load_tokenizer
from ltu_jax.weights import store
from ltu_jax.weights.tensors import WeightsError, damaged

_CONTROL, _USER_DEFINED = 3, 4
_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How text is cut before the merges, by the name in tokenizer.ggml.pre: as GPT-2 does; that with
# every digit alone; or by the pattern above with so many digits together.
_GPT2, _DIGITS = "gpt2", "digits"
_CUTS = (
    dict.fromkeys(("gpt-2", "default", "phi-2", "mpt", "olmo", "jais", "gigachat"), _GPT2)
    | dict.fromkeys(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"),
        _DIGITS,
    )
    | dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"), "1,3")
    | dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "kormo"), "1")
)
# LLaMA-3's vocabulary has tokens that no merges lead to; a word that is one of them is that token.
_WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3")
_COMPOSED = ("qwen2",)  # Qwen2 composes its text (NFC) first; its distilled namesakes do not


def _pre_tokenizer(name: str, *, path: Path) -> Any:
    """Return how the named family cuts text before BPE, as its own tokenizer.json does."""
    from tokenizers import Regex, pre_tokenizers

    level, cut = pre_tokenizers.ByteLevel, _CUTS.get(name)
    if cut is None:
        raise WeightsError(
            f"{path}: its way to cut text, tokenizer.ggml.pre {str(name)[:80]!r}, is not known; "
            "give the folder of the model's own tokenizer.json with --tokenizer DIR"
        )
    if cut == _GPT2:
        return level(add_prefix_space=False, use_regex=True)
    if cut == _DIGITS:
        return pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), level(add_prefix_space=False)]
        )
    split = pre_tokenizers.Split(Regex(_LLAMA3_SPLIT % cut), behavior="isolated")
    return pre_tokenizers.Sequence([split, level(add_prefix_space=False, use_regex=False)])


def given(folder: Path, fields: Mapping[str, Any], *, path: Path) -> dict[str, Path]:
    """Return the model's own tokenizer files, of `--tokenizer DIR`, in place of the metadata.

    Raises:
        WeightsError: none there, or the tokenizer of another model.
    """
    folder = folder if folder.is_dir() else folder.parent
    files = {n: folder / n for n in store.TOKENIZER_FILES if (folder / n).is_file()}
    tokenizer = load_tokenizer(folder)
    tokens = fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        return files
    for index in range(tokenizer.vocab_size):
        ours = tokenizer.token(index)
        theirs = tokens[index] if index < len(tokens) else None
        if ours is not None and ours != theirs:
            raise WeightsError(
                f"--tokenizer {folder} is not the tokenizer of {path}: its token {index} is "
                f"{ours!r}, that of the file {theirs!r}"
            )
    return files


def files(
    fields: Mapping[str, Any], *, path: Path
) -> tuple[dict[str, str | bytes], tuple[str, ...]]:
    """Rebuild the tokenizer from the metadata: tokenizer.json or a sentencepiece tokenizer.model.

    Returns:
        ({file name: content}, notes).

    Raises:
        WeightsError: a tokenizer model or pre-tokenizer that is not known.
    """
    model = fields.get("tokenizer.ggml.model")
    if model is None:
        return {}, ("the file has no tokenizer",)
    _check_tokenizer(fields, path=path)
    tokens = fields["tokenizer.ggml.tokens"]
    special = {
        name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in (
            ("bos_token", "bos"), ("eos_token", "eos"),
            ("unk_token", "unknown"), ("pad_token", "padding"),
        )
        if f"tokenizer.ggml.{key}_token_id" in fields
    }  # fmt: skip
    named: Mapping[str, Any] = special
    if model == "llama":
        # A plain string here would mean, as in old LLaMA files, that the spaces around a special
        # token written in a text are stripped; Vicuna's files say with these flags that they stay.
        flags = {"__type": "AddedToken", "lstrip": False, "rstrip": False, "normalized": True}
        named = {name: {"content": token, **flags} for name, token in special.items()}
    settings = named | {
        "tokenizer_class": "PreTrainedTokenizerFast" if model == "gpt2" else "LlamaTokenizer",
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", model == "llama")),
        "add_eos_token": bool(fields.get("tokenizer.ggml.add_eos_token", False)),
        "clean_up_tokenization_spaces": False,
    }
    if "tokenizer.chat_template" in fields:
        settings["chat_template"] = fields["tokenizer.chat_template"]
    made: dict[str, str | bytes] = {
        "tokenizer_config.json": json.dumps(settings, indent=2, ensure_ascii=False)
    }
    if model == "gpt2":
        made["tokenizer.json"] = _byte_level(fields, path=path)
    elif model == "llama":
        made["tokenizer.model"] = _sentencepiece(fields, special)
    else:
        raise WeightsError(f"{path}: tokenizer model {model!r} is not known (gpt2, llama are)")
    notes = ()
    if model == "gpt2" and "tokenizer.ggml.pre" not in fields:
        notes = (
            "the file does not say how text is cut (tokenizer.ggml.pre): it is cut as GPT-2 does; "
            "where the model does it otherwise, give its own tokenizer with --tokenizer DIR",
        )
    return made, notes


def _check_tokenizer(fields: Mapping[str, Any], *, path: Path) -> None:
    """Require the lists of a tokenizer: there, of one length, of one kind.

    Raises:
        WeightsError: they are not.
    """
    tokens = fields.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise damaged(path, "its tokenizer.ggml.tokens is no list of texts")
    lists = {"token_type": int} | (
        {"scores": (int, float)} if fields["tokenizer.ggml.model"] == "llama" else {}
    )
    for name, kind in lists.items():
        stated = fields.get(f"tokenizer.ggml.{name}")
        if (
            not isinstance(stated, list)
            or len(stated) != len(tokens)
            or not all(isinstance(value, kind) for value in stated)
        ):
            raise damaged(path, f"its tokenizer.ggml.{name} does not fit its tokens")
    for key in ("bos", "eos", "unknown", "padding"):
        stated = fields.get(f"tokenizer.ggml.{key}_token_id", 0)
        if type(stated) is not int or not 0 <= stated < len(tokens):
            raise damaged(path, f"its tokenizer.ggml.{key}_token_id is {stated}, of {len(tokens)}")


def _merges(given: Any, vocabulary: Mapping[str, int], *, path: Path) -> list[tuple[str, str]]:
    """Return the pairs of tokens that are joined, in their order.

    Raises:
        WeightsError: no list, no pair, or a part or result that is no token.
    """
    if not isinstance(given, list) or not all(isinstance(merge, str) for merge in given):
        raise damaged(path, "its tokenizer.ggml.merges is no list of texts")
    merges = []
    for merge in given:
        pair = tuple(merge.split(" "))
        if len(pair) != 2:
            raise damaged(path, f"its tokenizer.ggml.merges has {merge[:80]!r}, which is no pair")
        for token in (*pair, "".join(pair)):
            if token not in vocabulary:
                raise damaged(
                    path,
                    f"its tokenizer.ggml.merges has {merge[:80]!r}, but {token[:80]!r} is none of "
                    f"its {len(vocabulary)} tokens",
                )
        merges.append(pair)
    return merges


def _byte_level(fields: Mapping[str, Any], *, path: Path) -> str:
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    tokens = fields["tokenizer.ggml.tokens"]
    kinds = fields["tokenizer.ggml.token_type"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        raise WeightsError(f"{path}: its vocabulary has a token twice")
    name = fields.get("tokenizer.ggml.pre", "default")
    cut = _pre_tokenizer(name, path=path)
    merges = _merges(fields.get("tokenizer.ggml.merges"), vocabulary, path=path)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, ignore_merges=name in _WHOLE_WORDS)
    )
    tokenizer.pre_tokenizer = cut
    if name in _COMPOSED:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, kinds, strict=True):
        if kind in (_CONTROL, _USER_DEFINED):
            added = AddedToken(token, special=kind == _CONTROL, normalized=False)
            tokenizer.add_special_tokens([added]) if kind == _CONTROL else tokenizer.add_tokens(
                [added]
            )
    return tokenizer.to_str()


def _field(number: int, value: int | float | str | bytes) -> bytes:
    """One protocol-buffer field. By hand, because the generated module that sentencepiece ships
    refuses any protobuf runtime older than itself."""
    if isinstance(value, float):
        return _varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _sentencepiece(fields: Mapping[str, Any], special: Mapping[str, str]) -> bytes:
    """Build a sentencepiece BPE model of the pieces, scores and types that llama.cpp kept.

    Field numbers are those of sentencepiece_model.proto.
    """
    tokens = fields["tokenizer.ggml.tokens"]
    kinds = [int(kind) for kind in fields["tokenizer.ggml.token_type"]]
    scores = [float(score) for score in fields["tokenizer.ggml.scores"]]
    pieces = b"".join(
        _field(1, _field(1, token) + _field(2, score) + _field(3, kind))
        for token, score, kind in zip(tokens, scores, kinds, strict=True)
    )
    bpe, byte = 2, 6
    trainer = _field(3, bpe) + _field(4, len(tokens)) + _field(35, int(byte in kinds))
    for name, number in (("unk_token", 40), ("bos_token", 41), ("eos_token", 42)):
        if name in special:
            trainer += _field(number, tokens.index(special[name]))
            trainer += _field(number + 5, special[name])
    prefix = int(bool(fields.get("tokenizer.ggml.add_space_prefix", True)))
    normalizer = _field(1, "identity") + _field(3, prefix) + _field(4, 0) + _field(5, 1)
    return pieces + _field(2, trainer) + _field(3, normalizer)
