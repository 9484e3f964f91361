"""Tokenizers, the prompt template, labels and cut-off of LTU-AS, and the cleaning of transcripts.

Behaviour follows the official fine-tuning script (alpaca_short template, transformers 4.28 slow
LlamaTokenizer, DataCollatorForSeq2Seq with 25 audio positions in front), checked against
`tests/golden/text_cases`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json

IGNORE = -100  # label of a position that carries no loss

_RESPONSE = "### Response:"
_SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "pad_token")


class TrainOn(StrEnum):
    """Which tokens carry the loss: the whole sequence (the official setting) or the answer only."""

    ALL = "all"
    ANSWER = "answer"

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise UserError(f"train_on is {value!r}; it is one of {[str(known) for known in cls]}")


# --- tokenizers -----------------------------------------------------------------------------------


class Tokenizer(Protocol):
    """What the project needs of a tokenizer; `encode` adds neither BOS nor EOS."""

    bos_id: int
    eos_id: int
    pad_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; a special token written in the text becomes its control id."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`."""
        ...

    def token_id(self, token: str) -> int:
        """Return the id of one token by its name; ValueError when the vocabulary lacks it."""
        ...

    @property
    def identity(self) -> str:
        """Hex SHA-256 of all that decides which ids a text becomes."""
        ...


@dataclass(frozen=True, kw_only=True)
class SpecialToken:
    """A special token and whether the spaces beside it in a text are swallowed."""

    text: str
    strip_left: bool
    strip_right: bool


@dataclass(frozen=True, kw_only=True)
class SentencePieceTokenizer:
    """LLaMA-1/2, Vicuna and Mistral vocabularies, as by transformers 4.28's slow LlamaTokenizer."""

    model: Any
    specials: tuple[SpecialToken, ...]
    bos_id: int
    eos_id: int
    pad_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Encode the pieces around special tokens one by one: each gets its dummy-prefix space."""
        pieces = self._special_pattern.split(text)  # text, special, text, ..., text
        for place in range(1, len(pieces), 2):
            special = self._by_text[pieces[place]]
            if special.strip_left:
                pieces[place - 1] = pieces[place - 1].rstrip()
            if special.strip_right:
                pieces[place + 1] = pieces[place + 1].lstrip()
        ids = []
        for place, piece in enumerate(pieces):
            if place % 2:
                ids.append(self.token_id(piece))
            else:
                ids.extend(self.model.encode(piece))
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`, without special tokens or with them in the official spacing.

        The official string is this one with one more space in front. With specials shown, each
        special that does not follow another puts a space before the text that it ends: the text
        after `<s>` is spaced when `</s>` follows, and not when the sequence was cut.
        """
        ids = [int(index) for index in ids]
        if skip_special:
            return self.model.decode([index for index in ids if index not in self._by_id])
        out, run, after_special = "", [], False
        for index in ids:
            if index in self._by_id:
                out += ("" if after_special else " ") + self.model.decode(run) + self._by_id[index]
                run, after_special = [], True
            else:
                run.append(index)
                after_special = False
        return out + self.model.decode(run)

    def token_id(self, token: str) -> int:
        """Return the id of one piece by its name."""
        index = self.model.piece_to_id(token)
        if self.model.id_to_piece(index) != token:
            raise UserError(f"the sentencepiece vocabulary has no token {token!r}")
        return index

    @cached_property
    def identity(self) -> str:
        """Hex SHA-256 of the vocabulary and the special tokens."""
        specials = repr((self.specials, self.bos_id, self.eos_id)).encode()
        return hashlib.sha256(self.model.serialized_model_proto() + specials).hexdigest()

    @cached_property
    def _by_text(self) -> dict[str, SpecialToken]:
        return {special.text: special for special in self.specials}

    @cached_property
    def _by_id(self) -> dict[int, str]:
        return {self.model.piece_to_id(text): text for text in self._by_text}

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._by_text, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")


@dataclass(frozen=True, kw_only=True)
class FastTokenizer:
    """Every other vocabulary (SmolLM2, LLaMA-3, Qwen2, Whisper), from a `tokenizer.json`."""

    model: Any
    bos_id: int
    eos_id: int
    pad_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]:
        """Encode without the post-processor: no BOS, no EOS."""
        return self.model.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`, with or without special tokens."""
        return self.model.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def token_id(self, token: str) -> int:
        """Return the id of one token by its name."""
        index = self.model.token_to_id(token)
        if index is None:
            raise UserError(f"the tokenizer has no token {token!r}")
        return index

    @cached_property
    def identity(self) -> str:
        """Hex SHA-256 of the vocabulary and the special tokens."""
        content = self.model.to_str() + repr((self.bos_id, self.eos_id))
        return hashlib.sha256(content.encode()).hexdigest()


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load the tokenizer of a weights directory, or one named tokenizer file.

    `tokenizer.model` (sentencepiece) goes before `tokenizer.json`, as in the official code. The
    special tokens are those of `special_tokens_map.json` or `tokenizer_config.json`; a
    sentencepiece model knows its own. Without a pad token the pad id is that of <unk>, else of EOS
    (masks make its value harmless). Raises UserError: no tokenizer, unreadable, no EOS named.
    """
    path = Path(path)
    candidates = [path] if path.is_file() else [path / "tokenizer.model", path / "tokenizer.json"]
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise UserError(
            f"{path}: no tokenizer.model or tokenizer.json here; convert the language model again, "
            "or copy its tokenizer files into this folder"
        )
    named = _named_specials(file.parent)
    if file.suffix == ".json":
        return _load_fast(file, named=named)
    return _load_sentencepiece(file, named=named)


def _named_specials(folder: Path) -> dict[str, SpecialToken]:
    """Read bos/eos/unk/pad of a folder; special_tokens_map.json wins, as in transformers 4.28."""
    found = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        content = read_json(folder / name) if (folder / name).is_file() else {}
        for key in _SPECIAL_KEYS:
            token = content.get(key)
            if isinstance(token, dict):  # an AddedToken
                found[key] = SpecialToken(
                    text=token["content"],
                    strip_left=token.get("lstrip", False),
                    strip_right=token.get("rstrip", False),
                )
            elif token:
                # The 4.28 slow tokenizer strips around a plain-string token on both sides.
                found[key] = SpecialToken(text=token, strip_left=True, strip_right=True)
    return found


def _load_sentencepiece(file: Path, *, named: dict[str, SpecialToken]) -> SentencePieceTokenizer:
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except RuntimeError as error:
        raise UserError(f"{file}: not a sentencepiece model; copy the file again") from error
    own = {"bos_token": model.bos_id(), "eos_token": model.eos_id(), "unk_token": model.unk_id()}
    for key, index in own.items():
        if index < 0:
            raise UserError(f"{file}: defines no {key}; LTU-AS needs a vocabulary with BOS and EOS")
        # Not named in a config: Vicuna v1.1's AddedToken(lstrip=False, rstrip=False).
        piece = SpecialToken(text=model.id_to_piece(index), strip_left=False, strip_right=False)
        named = {key: piece, **named}
    # A token named twice, as a plain string and as an AddedToken, counts as the AddedToken.
    plain_first = sorted(named.values(), key=lambda token: not token.strip_left)
    specials = {token.text: token for token in plain_first}
    for text in specials:
        if model.id_to_piece(model.piece_to_id(text)) != text:
            raise UserError(
                f"{file}: lacks the special token {text!r} that the config beside it names; "
                "take all tokenizer files from the same model"
            )
    return SentencePieceTokenizer(
        model=model,
        specials=tuple(specials.values()),
        bos_id=model.piece_to_id(named["bos_token"].text),
        eos_id=model.piece_to_id(named["eos_token"].text),
        pad_id=model.piece_to_id(named.get("pad_token", named["unk_token"]).text),
        vocab_size=model.get_piece_size(),
    )


def _load_fast(file: Path, *, named: dict[str, SpecialToken]) -> FastTokenizer:
    import tokenizers

    if "model" not in read_json(file):
        raise UserError(f"{file}: not a tokenizers file (no 'model' in it); copy the file again")
    if "eos_token" not in named:
        raise UserError(
            f"{file.parent}: no tokenizer_config.json or special_tokens_map.json naming eos_token; "
            "copy it from the language model's folder"
        )
    model = tokenizers.Tokenizer.from_file(str(file))
    # Truncation or padding saved in the file would change texts silently.
    model.no_truncation()
    model.no_padding()
    pad = named.get("pad_token", named.get("unk_token", named["eos_token"]))
    # Qwen2 names no BOS: its sequences start with its pad token <|endoftext|>.
    bos = named.get("bos_token", pad)
    ids = {}
    for key, token in {"bos": bos, "eos": named["eos_token"], "pad": pad}.items():
        ids[key] = model.token_to_id(token.text)
        if ids[key] is None:
            raise UserError(
                f"{file}: lacks the {key} token {token.text!r} that the config beside it names; "
                "take all tokenizer files from the same model"
            )
    return FastTokenizer(
        model=model,
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["pad"],
        vocab_size=model.get_vocab_size(with_added_tokens=True),
    )


# --- prompt, labels, batches ----------------------------------------------------------------------


def prompt(instruction: str, spoken_text: str | None) -> str:
    """Return the alpaca_short prompt; "" or None leaves the Input block out, blanks do not."""
    head = f"### Instruction:\n{instruction}\n\n"
    if spoken_text:
        head += f"### Input:\n{spoken_text}\n\n"
    return f"{head}{_RESPONSE}\n"


def prompt_ids(tokenizer: Tokenizer, *, instruction: str, spoken_text: str | None) -> list[int]:
    """Return BOS and the ids of the prompt: what generation starts from."""
    return [tokenizer.bos_id, *tokenizer.encode(prompt(instruction, spoken_text))]


def response(text: str) -> str:
    """Return the stripped text between the first "### Response:" and the next (get_response)."""
    parts = text.split(_RESPONSE)
    if len(parts) < 2:
        raise UserError(f"no {_RESPONSE!r} in {text[:80]!r}")
    return parts[1].strip()


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A tokenised question and answer: ids from BOS to EOS (when not cut), labels as long."""

    input_ids: list[int]
    labels: list[int]


def tokenize_pair(
    tokenizer: Tokenizer,
    *,
    instruction: str,
    spoken_text: str | None,
    output: str,
    cutoff: int,
    train_on: TrainOn | str = TrainOn.ALL,
) -> Pair:
    """Tokenise prompt + answer as the official fine-tuning script does.

    The ids are cut on the right to `cutoff` including BOS; EOS follows only when the result is
    shorter than `cutoff` and does not end in EOS already, so a cut example never learns to stop.
    Labels are not shifted: a copy of the ids, where `train_on="answer"` (the official
    train_on_inputs=False) puts -100 on as many tokens as the prompt alone has. The official code
    with add_eos_token=True leaves one prompt token unmasked when the prompt itself was cut; that is
    a bug and not copied. Raises UserError on a cutoff below 2.
    """
    train_on = TrainOn(train_on)
    if cutoff < 2:
        raise UserError(f"cutoff is {cutoff}; it must leave room for BOS and one token")
    text = prompt(instruction, spoken_text) + output
    ids = [tokenizer.bos_id, *tokenizer.encode(text)][:cutoff]
    if len(ids) < cutoff and ids[-1] != tokenizer.eos_id:
        ids.append(tokenizer.eos_id)
    labels = list(ids)
    if train_on is TrainOn.ANSWER:
        asked = len(prompt_ids(tokenizer, instruction=instruction, spoken_text=spoken_text))
        asked = min(asked, len(ids))
        labels[:asked] = [IGNORE] * asked
    return Pair(input_ids=ids, labels=labels)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Left-padded `input_ids`, `labels` int32 [B, T]; `attention_mask` float32 [B, A + T]."""

    input_ids: np.ndarray
    labels: np.ndarray
    attention_mask: np.ndarray


def collate(
    pairs: Sequence[Pair], *, pad_id: int, audio_tokens: int = 25, pad_multiple: int = 8
) -> Batch:
    """Left-pad to a multiple of `pad_multiple`, with ones for the audio in front of the mask."""
    if not pairs:
        raise UserError("collate got no pairs")
    longest = max(len(pair.input_ids) for pair in pairs)
    width = -(-longest // pad_multiple) * pad_multiple
    input_ids = np.full((len(pairs), width), pad_id, np.int32)
    labels = np.full((len(pairs), width), IGNORE, np.int32)
    mask = np.zeros((len(pairs), audio_tokens + width), np.float32)
    mask[:, :audio_tokens] = 1
    for row, pair in enumerate(pairs):
        length = len(pair.input_ids)
        input_ids[row, width - length :] = pair.input_ids
        labels[row, width - length :] = pair.labels
        mask[row, audio_tokens + width - length :] = 1
    return Batch(input_ids=input_ids, labels=labels, attention_mask=mask)


# --- names and cleaning ---------------------------------------------------------------------------

_THANKS = re.compile(
    r"(?:(?:[Tt]hanks|[Tt]hank you) for watching|THANKS FOR WATCHING|THANK YOU FOR WATCHING)[.!]?"
)


def remove_thanks(transcript: str) -> str:
    """Remove "thanks for watching" and its like, which Whisper invents on clips without speech."""
    return _THANKS.sub("", transcript)


def feature_name(audio_id: str) -> str:
    """Return the official name of a clip's feature file: three folders and the stem, by "_"."""
    *folders, file = audio_id.split("/")
    return "_".join(folders[-3:]) + "_" + ".".join(file.split(".")[:-1]) + ".npz"
