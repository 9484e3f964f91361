"""Tokenizers of a weights directory: sentencepiece or `tokenizer.json`, and what was added to them.

Behaviour follows transformers 4.28's slow LlamaTokenizer, with which the official model was
trained, and the `tokenizers` library for every other vocabulary.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.added_tokens import (
    ADDED_FILE,
    AddedToken,
    SpecialToken,
    read_added,
    read_object,
    read_specials,
)


class Tokenizer(Protocol):
    """What the project needs of a tokenizer; `encode` adds neither BOS nor EOS."""

    bos_id: int
    eos_id: int
    pad_id: int
    vocab_size: int  # every id is below; with gaps there are fewer tokens

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`; a special token written in the text becomes its control id."""
        ...

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Return the text of `ids`; ids without a token (padded rows of a model) have none."""
        ...

    def token_id(self, token: str) -> int:
        """Return the id of one token by its name; ValueError when the vocabulary lacks it."""
        ...

    def token(self, index: int) -> str | None:
        """Return the name of the token with this id, None where there is none."""
        ...

    @property
    def identity(self) -> str:
        """Hex SHA-256 of all that decides which ids a text becomes."""
        ...


@dataclass(frozen=True, kw_only=True)
class SentencePieceTokenizer:
    """LLaMA-1/2, Vicuna and Mistral vocabularies, as by transformers 4.28's slow LlamaTokenizer."""

    model: Any
    specials: tuple[SpecialToken, ...]
    bos_id: int
    eos_id: int
    pad_id: int
    vocab_size: int
    added: tuple[AddedToken, ...] = ()  # those that the sentencepiece model itself does not have

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
        after `<s>` is spaced when `</s>` follows, and not when the sequence was cut. An added token
        stands between spaces.
        """
        added = {token.index: token for token in self.added}
        parts: list[str] = []
        run: list[int] = []
        for index in map(int, ids):
            if index not in added:
                if index < self.model.get_piece_size():
                    run.append(index)
            elif not (skip_special and added[index].special):
                parts += [self._run(run, skip_special)] if run else []
                parts.append(added[index].text)
                run = []
        parts += [self._run(run, skip_special)] if run else []
        return " ".join(parts)

    def _run(self, ids: list[int], skip_special: bool) -> str:
        """The text of ids that are all of the sentencepiece model."""
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
        if token in self._added_ids:
            return self._added_ids[token]
        index = self.model.piece_to_id(token)
        if self.model.id_to_piece(index) != token:
            raise UserError(f"the sentencepiece vocabulary has no token {token!r}")
        return index

    def token(self, index: int) -> str | None:
        """Return the token with this id, None where there is none."""
        if index < self.model.get_piece_size():
            return self.model.id_to_piece(index)
        return next((token.text for token in self.added if token.index == index), None)

    @cached_property
    def identity(self) -> str:
        """Hex SHA-256 of the vocabulary and the special tokens."""
        specials = repr((self.specials, self.bos_id, self.eos_id)).encode()
        # a vocabulary without additions has the identity that it always had
        more = repr(self.added).encode() if self.added else b""
        return hashlib.sha256(self.model.serialized_model_proto() + specials + more).hexdigest()

    @cached_property
    def _by_text(self) -> dict[str, SpecialToken | AddedToken]:
        return {token.text: token for token in (*self.specials, *self.added)}

    @cached_property
    def _added_ids(self) -> dict[str, int]:
        return {token.text: token.index for token in self.added}

    @cached_property
    def _by_id(self) -> dict[int, str]:
        return {self.token_id(special.text): special.text for special in self.specials}

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

    def token(self, index: int) -> str | None:
        """Return the token with this id, None where there is none."""
        return self.model.id_to_token(index)

    @cached_property
    def identity(self) -> str:
        """Hex SHA-256 of the vocabulary and the special tokens."""
        content = self.model.to_str() + repr((self.bos_id, self.eos_id))
        return hashlib.sha256(content.encode()).hexdigest()


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load the tokenizer of a weights directory, or one named tokenizer file.

    `tokenizer.model` (sentencepiece) goes before `tokenizer.json`, as in the official code. The
    special tokens are those of `special_tokens_map.json` or `tokenizer_config.json`; a
    sentencepiece model knows its own. Tokens that were added have the ids that `added_tokens.json`,
    `tokenizer_config.json` or `tokenizer.json` give them. Without a pad token the pad id is that of
    <unk>, else of EOS (masks make its value harmless). Raises UserError: no tokenizer, unreadable,
    no EOS named, one token with two ids.
    """
    path = Path(path)
    candidates = [path] if path.is_file() else [path / "tokenizer.model", path / "tokenizer.json"]
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise UserError(
            f"{path}: no tokenizer.model or tokenizer.json here; convert the language model again, "
            "or copy its tokenizer files into this folder"
        )
    named = read_specials(file.parent)
    added = read_added(file, named=named)
    if file.suffix == ".json":
        return _load_fast(file, named=named, added=added)
    return _load_sentencepiece(file, named=named, added=added)


def require_rows(tokenizer: Tokenizer, *, rows: int, subject: str) -> None:
    """Refuse a tokenizer with ids that the embedding has no row for; spare rows are fine.

    A lookup would take the last row for such an id, without a word.

    Raises:
        UserError: there is such an id; the message names its token.
    """
    if tokenizer.vocab_size > rows:
        last = tokenizer.vocab_size - 1
        raise UserError(
            f"{subject}: its tokenizer has the ids 0 to {last} ({tokenizer.token(last)!r} is "
            f"{last}), its embedding only {rows} rows; take the tokenizer that belongs to the "
            "model, remove the added tokens from its files, or give the model their rows (in "
            "transformers resize_token_embeddings) and save it again"
        )


def _lacks(file: Path, key: str, text: str) -> UserError:
    return UserError(
        f"{file}: lacks the {key} {text!r} that the config beside it names; take all tokenizer "
        f'files from the same model, or give its id in {ADDED_FILE}: {{"{text}": ID}}'
    )


def _load_sentencepiece(
    file: Path, *, named: dict[str, SpecialToken], added: Mapping[str, AddedToken]
) -> SentencePieceTokenizer:
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(file))
    except RuntimeError as error:
        raise UserError(
            f"{file}: not a sentencepiece model; copy the file again, or remove it where the "
            "tokenizer.json beside it is the model's own (LLaMA-3 has a tokenizer.model of "
            "another kind)"
        ) from error
    size = model.get_piece_size()
    beyond = {text: token for text, token in added.items() if token.index >= size}
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
    ids = {}
    for key, special in named.items():
        index = model.piece_to_id(special.text)
        if special.text in beyond:
            index = beyond[special.text].index
        elif model.id_to_piece(index) != special.text and special.text not in added:
            raise _lacks(file, key, special.text)
        ids[key] = index
    for token in added.values():
        if token.index < size and model.id_to_piece(token.index) != token.text:
            raise UserError(
                f"{file}: its id {token.index} is the piece {model.id_to_piece(token.index)!r}, in "
                f"the files beside it the added token {token.text!r}; take all tokenizer files "
                "from the same model"
            )
    return SentencePieceTokenizer(
        model=model,
        specials=tuple(specials.values()),
        bos_id=ids["bos_token"],
        eos_id=ids["eos_token"],
        pad_id=ids.get("pad_token", ids["unk_token"]),
        vocab_size=max([size, *(token.index + 1 for token in beyond.values())]),
        added=tuple(sorted(beyond.values(), key=lambda token: token.index)),
    )


def _load_fast(
    file: Path, *, named: dict[str, SpecialToken], added: Mapping[str, AddedToken]
) -> FastTokenizer:
    import tokenizers

    if "model" not in read_object(file):
        raise UserError(f"{file}: not a tokenizers file (no 'model' in it); copy the file again")
    if "eos_token" not in named:
        raise UserError(
            f"{file.parent}: no tokenizer_config.json or special_tokens_map.json naming eos_token; "
            "copy it from the language model's folder"
        )
    try:
        model = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"{file}: the tokenizers library cannot read it ({error}); copy the file again"
        ) from None
    # Truncation or padding saved in the file would change texts silently.
    model.no_truncation()
    model.no_padding()
    for token in sorted(added.values(), key=lambda token: token.index):
        if model.token_to_id(token.text) is None:
            entry = tokenizers.AddedToken(
                token.text,
                special=token.special,
                normalized=False,
                lstrip=token.strip_left,
                rstrip=token.strip_right,
            )
            model.add_special_tokens([entry]) if token.special else model.add_tokens([entry])
        if model.token_to_id(token.text) != token.index:
            raise UserError(
                f"{file}: the files beside it give the added token {token.text!r} the id "
                f"{token.index}; here it is {model.token_to_id(token.text)}. Take all tokenizer "
                "files from the same model"
            )
    pad = named.get("pad_token", named.get("unk_token", named["eos_token"]))
    # Qwen2 names no BOS: its sequences start with its pad token <|endoftext|>.
    bos = named.get("bos_token", pad)
    ids = {}
    for key, token in {"bos": bos, "eos": named["eos_token"], "pad": pad}.items():
        ids[key] = model.token_to_id(token.text)
        if ids[key] is None:
            raise _lacks(file, f"{key} token", token.text)
    return FastTokenizer(
        model=model,
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["pad"],
        vocab_size=1 + max(model.get_vocab(with_added_tokens=True).values()),
    )
