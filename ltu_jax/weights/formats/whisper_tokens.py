"""The tokenizer files of a Whisper weights directory, from whatever its source has.

What a Whisper weights directory carries for transcription, besides the parameters:

- `tokenizer.json` (the `tokenizers` library; copied from the source, or made of OpenAI's
  `.tiktoken`). Byte-level BPE plus the special tokens from <|endoftext|> to <|notimestamps|>. The
  1,501 timestamp tokens that follow need no entry: id `timestamp_begin + k` is the time `0.02 * k`
  seconds. So drop ids >= `timestamp_begin` before `Tokenizer.decode`.
  `encode(text, add_special_tokens=False)` works.
- `generation.json`, made here: {"multilingual": bool, "suppress_tokens": [int],
  "begin_suppress_tokens": [int], "special": {"eot", "sot", "translate", "transcribe",
  "sot_lm", "sot_prev", "no_speech", "no_timestamps", "timestamp_begin": int},
  "languages": {"en": id, ...}}. `suppress_tokens` is OpenAI's "-1" set (non-speech symbols plus
  the task tokens); `begin_suppress_tokens` are the blank and <|endoftext|>. An English-only
  model (vocabulary 51864) has the prompt [sot] or [sot, no_timestamps]; a multilingual one
  [sot, language, task(, no_timestamps)]. Special ids are those of tokenizer.json, which must be
  numbered as OpenAI numbers them; the token table may have more rows.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.files import read_json
from ltu_jax.preprocessing.whisper_vocabulary import LANGUAGES, Vocabulary, non_speech_ids
from ltu_jax.weights.tensors import WeightsError, damaged

ENGLISH_VOCAB = 51864  # larger vocabularies are multilingual
_BYTE_PAIRS = {True: 50257, False: 50256}  # of the multilingual and of the English tokenizer
_TIMESTAMPS = 1501
# the order in which OpenAI's tokenizer numbers them, after the languages
_AFTER_LANGUAGES = {
    "translate": "<|translate|>", "transcribe": "<|transcribe|>", "sot_lm": "<|startoflm|>",
    "sot_prev": "<|startofprev|>", "no_speech": "<|nospeech|>",
    "no_timestamps": "<|notimestamps|>",
}  # fmt: skip
_CONTROL = ("sot", "translate", "transcribe", "sot_lm", "sot_prev", "no_speech")

Files = dict[str, Any]


def special_tokens(n_vocab: int, *, languages: int) -> dict[str, int]:
    """Return the special ids of OpenAI's tokenizers by vocabulary size (its numbering rule)."""
    eot = _BYTE_PAIRS[n_vocab > ENGLISH_VOCAB]
    special = {"eot": eot, "sot": eot + 1}
    special |= {name: eot + 2 + languages + i for i, name in enumerate(_AFTER_LANGUAGES)}
    return special | {"timestamp_begin": special["no_timestamps"] + 1}


def published_tokens(n_vocab: int) -> dict[str, int]:
    """Return the special ids of a vocabulary that OpenAI has published; {} for any other."""
    count = _language_count(n_vocab)
    return special_tokens(n_vocab, languages=count) if count in (99, 100) else {}


def _language_count(n_vocab: int) -> int:
    """Return how many languages a vocabulary of OpenAI's layout has room for."""
    pairs = _BYTE_PAIRS[n_vocab > ENGLISH_VOCAB]
    return n_vocab - pairs - 2 - len(_AFTER_LANGUAGES) - _TIMESTAMPS


def tokenizer_files(
    folders: Sequence[Path],
    config: Mapping[str, int],
    *,
    suppress: Sequence[int] | None,
    begin: Sequence[int] | None,
) -> tuple[Files, tuple[str, ...]]:
    """Return the first tokenizer.json of some folders, and its generation.json.

    Args:
        folders: where to look.
        config: WhisperConfig as a dict.
        suppress: tokens that the source never generates; None takes OpenAI's "-1" set.
        begin: tokens that the source does not begin with; None takes OpenAI's.

    Returns:
        ({file name: path or content}, notes); no files when there is no tokenizer.

    Raises:
        WeightsError: a tokenizer of another model.
    """
    tokenizer = next(
        (f / "tokenizer.json" for f in folders if (f / "tokenizer.json").is_file()), None
    )
    if tokenizer is None:
        return {}, ("no tokenizer.json beside the weights: these can encode audio, not transcribe",)
    generation = _generation(
        read_json(tokenizer), config, suppress=suppress, begin=begin, subject=tokenizer
    )
    return {"tokenizer.json": tokenizer, "generation.json": generation}, ()


def given_tokenizer(path: str | Path, config: Mapping[str, int]) -> Files:
    """Return the tokenizer files of `--tokenizer PATH`, for weights that came without.

    Args:
        path: a tokenizer.json, a `.tiktoken` of OpenAI's package, or a folder with one of them
            (a Hugging Face Whisper or a weights directory of the same vocabulary).
        config: WhisperConfig as a dict.

    Raises:
        WeightsError: nothing there, damage, or a tokenizer of another vocabulary.
    """
    path = Path(path)
    multilingual = config["n_vocab"] > ENGLISH_VOCAB
    ours = "multilingual.tiktoken" if multilingual else "gpt2.tiktoken"
    places = [path / "tokenizer.json", path / ours] if path.is_dir() else [path]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise WeightsError(
            f"--tokenizer {path}: no tokenizer.json and no {ours} there; give the folder of a "
            "Hugging Face Whisper of the same vocabulary"
        )
    if file.suffix == ".tiktoken":
        content = _from_tiktoken(file, config["n_vocab"])
        made: Path | str = content
        settings = json.loads(content)
    else:
        made, settings = file, read_json(file)
    generation = _generation(settings, config, suppress=None, begin=None, subject=file)
    return {"tokenizer.json": made, "generation.json": generation}


def _generation(
    settings: Any,
    config: Mapping[str, int],
    *,
    suppress: Sequence[int] | None,
    begin: Sequence[int] | None,
    subject: Path,
) -> str:
    """Return the generation.json of a tokenizer.json."""
    named = settings.get("added_tokens") if isinstance(settings, dict) else None
    named = named if isinstance(named, list) else []
    added = {
        entry["content"]: entry["id"]
        for entry in named
        if isinstance(entry, dict)
        and isinstance(entry.get("content"), str)
        and type(entry.get("id")) is int
    }
    vocabulary = _vocabulary(added.get, rows=config["n_vocab"], subject=subject)
    if (last := max(added.values())) >= config["n_vocab"]:
        name = next(name for name, index in added.items() if index == last)
        raise WeightsError(
            f"{subject} has the token {name!r} with id {last}, these weights "
            f"{config['n_vocab']} rows"
        )
    special = _special(vocabulary)
    languages = {
        content[2:-2]: number for content, number in added.items() if number in vocabulary.languages
    }
    for name, ids in (("suppress_tokens", suppress), ("begin_suppress_tokens", begin)):
        _check_ids(ids, rows=config["n_vocab"], subject=f"{subject.parent}: {name}")
    if suppress is None or begin is None:
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_str(json.dumps(settings))
        except Exception as error:  # the library raises nothing narrower
            raise damaged(subject, f"the tokenizers library cannot read it ({error})") from None

        def encode(text: str) -> list[int]:
            return tokenizer.encode(text, add_special_tokens=False).ids

        control = [special[name] for name in _CONTROL]
        suppress = sorted({*non_speech_ids(encode), *control}) if suppress is None else suppress
        begin = [*encode(" "), special["eot"]] if begin is None else begin
    return json.dumps(
        {
            "multilingual": vocabulary.multilingual,
            "special": special,
            "languages": languages,
            "suppress_tokens": list(suppress),
            "begin_suppress_tokens": list(begin),
        }
    )


def _vocabulary(id_of: Callable[[str], int | None], *, rows: int, subject: Path) -> Vocabulary:
    try:
        return Vocabulary.of_names(id_of, rows=rows)
    except ValueError as error:
        raise WeightsError(
            f"{subject} is not a Whisper tokenizer, or belongs to another Whisper: {error}"
        ) from None


def _special(vocabulary: Vocabulary) -> dict[str, int]:
    """Return the special ids under the names of generation.json."""
    return {
        "eot": vocabulary.end,
        "sot": vocabulary.start,
        "translate": vocabulary.translate,
        "transcribe": vocabulary.transcribe,
        "sot_lm": vocabulary.start_of_lm,
        "sot_prev": vocabulary.previous,
        "no_speech": vocabulary.no_speech,
        "no_timestamps": vocabulary.no_timestamps,
        "timestamp_begin": vocabulary.timestamp,
    }


def _check_ids(ids: Any, *, rows: int, subject: str) -> None:
    if ids is None:
        return
    if not isinstance(ids, list):
        raise WeightsError(f"{subject} is {str(ids)[:80]!r}; expected a list of ids")
    for index in ids:
        if type(index) is not int or not 0 <= index < rows:
            raise WeightsError(f"{subject} has {str(index)[:80]}; the token table has {rows} rows")


def compare_generation(
    stated: Mapping[str, Any], ours: Mapping[str, Any], *, subject: Path
) -> None:
    """Require a generation_config.json to name the ids that the tokenizer beside it has.

    `decoder_start_token_id` is not compared: transformers writes its own default there.

    Raises:
        WeightsError: it names others, or says another kind of model.
    """
    special, languages = ours["special"], ours["languages"]
    wanted: dict[str, Any] = {"no_timestamps_token_id": special["no_timestamps"]}
    told: dict[str, Any] = {"no_timestamps_token_id": stated.get("no_timestamps_token_id")}
    if "lang_to_id" in stated:  # an English model has no use for them
        wanted["is_multilingual"], told["is_multilingual"] = (
            ours["multilingual"], stated.get("is_multilingual"),
        )  # fmt: skip
    for key, ids in (("lang_to_id", languages), ("task_to_id", special)):
        listed = stated.get(key)
        for name, index in listed.items() if isinstance(listed, Mapping) else ():
            short = name.removeprefix("<|").removesuffix("|>")
            wanted[f"{key}: {name}"], told[f"{key}: {name}"] = ids.get(short), index
    for key, value in told.items():
        if value is not None and value != wanted[key]:
            raise WeightsError(
                f"{subject}: {key} is {str(value)[:80]}, in the tokenizer.json beside it it is "
                f"{wanted[key]}; take both files from the same model"
            )


def load(folder: Path, *, rows: int) -> tuple[Any, Vocabulary]:
    """Load the `tokenizers.Tokenizer` of a weights directory and the layout of its ids.

    Raises:
        WeightsError: unreadable, or of another Whisper than one with `rows` tokens.
    """
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise damaged(file, f"the tokenizers library cannot read it ({error})") from None
    return tokenizer, _vocabulary(tokenizer.token_to_id, rows=rows, subject=file)


def _from_tiktoken(file: Path, n_vocab: int) -> str:
    """Make tokenizer.json of OpenAI's byte-pair ranks, special tokens numbered as OpenAI does."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    multilingual = n_vocab > ENGLISH_VOCAB
    ranks = _read_ranks(file)
    wanted = _BYTE_PAIRS[multilingual]
    if len(ranks) != wanted:
        name = "multilingual.tiktoken" if multilingual else "gpt2.tiktoken"
        raise WeightsError(
            f"{file} has {len(ranks)} byte-pair tokens; a vocabulary of {n_vocab} takes {wanted}, "
            f"those of OpenAI's {name}"
        )
    count = _language_count(n_vocab)
    if not 0 < count <= len(LANGUAGES):
        raise WeightsError(
            f"a vocabulary of {n_vocab} leaves room for {count} languages; OpenAI's Whisper has "
            f"51864, 51865 or 51866 tokens. Give a tokenizer.json instead of {file}"
        )
    letters = _letters()
    spelt = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        tuple(spelt[part] for part in _halves(token, ranks, file=file))
        for token in ranks
        if len(token) > 1
    ]
    model = models.BPE(vocab={spelt[token]: rank for token, rank in ranks.items()}, merges=merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    languages = (f"<|{code}|>" for code in LANGUAGES[:count])
    names = ("<|endoftext|>", "<|startoftranscript|>", *languages, *_AFTER_LANGUAGES.values())
    tokenizer.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in names])
    return tokenizer.to_str()


def _read_ranks(file: Path) -> dict[bytes, int]:
    """Return {token: rank} in the order of the ranks, which count from 0."""
    ranks: dict[bytes, int] = {}
    try:
        for line in file.read_text(encoding="ascii").splitlines():
            token, rank = line.split()
            # the multilingual file has an empty token, written as one sign of padding
            ranks[b"" if token == "=" else base64.b64decode(token, validate=True)] = int(rank)
    except (UnicodeDecodeError, binascii.Error, ValueError):
        raise damaged(file, "a line of it is not `base64 rank`") from None
    if list(ranks.values()) != list(range(len(ranks))):
        raise damaged(file, "its ranks do not count up from 0")
    return ranks


def _letters() -> list[str]:
    """Return the letter of each byte in byte-level BPE: itself where it can be printed."""
    printed = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printed else next(others)) for byte in range(256)]


def _halves(token: bytes, ranks: Mapping[bytes, int], *, file: Path) -> list[bytes]:
    """Return the two tokens whose merge makes `token`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = (ranks.get(a + b, len(ranks)) for a, b in zip(parts, parts[1:], strict=False))
        rank, place = min((rank, place) for place, rank in enumerate(pairs))
        if rank >= ranks[token]:
            raise damaged(file, f"no earlier tokens make up its token of rank {ranks[token]}")
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    if not all(part in ranks for part in parts):
        raise damaged(file, f"the parts of its token of rank {ranks[token]} are missing")
    return parts
