"""What stands beside a vocabulary: its special tokens by name, and the tokens added to it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json

ADDED_FILE = "added_tokens.json"
_SPECIAL_KEYS = ("bos_token", "eos_token", "unk_token", "pad_token")
_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")  # the later one wins


@dataclass(frozen=True, kw_only=True)
class SpecialToken:
    """A special token and whether the spaces beside it in a text are swallowed."""

    text: str
    strip_left: bool
    strip_right: bool


@dataclass(frozen=True, kw_only=True)
class AddedToken:
    """A token that was added to a finished vocabulary, and its id; `special` ones are not shown."""

    text: str
    index: int
    special: bool
    strip_left: bool
    strip_right: bool


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in `file`; {} where there is none."""
    content = read_json(file) if file.is_file() else {}
    if not isinstance(content, dict):
        raise UserError(f"{file} is not a JSON object; copy the file again")
    return content


def _flags(token: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "strip_left": bool(token.get("lstrip", False)),
        "strip_right": bool(token.get("rstrip", False)),
    }


def read_specials(folder: Path) -> dict[str, SpecialToken]:
    """Read bos/eos/unk/pad of a folder; special_tokens_map.json wins, as in transformers 4.28.

    Raises:
        UserError: a file that is no JSON object, a token that is no text.
    """
    specials = {}
    for name in _SETTINGS:
        content = read_object(folder / name)
        for key in _SPECIAL_KEYS:
            token = content.get(key)
            if isinstance(token, dict) and isinstance(token.get("content"), str):  # an AddedToken
                specials[key] = SpecialToken(text=token["content"], **_flags(token))
            elif isinstance(token, str) and token:
                # The 4.28 slow tokenizer strips around a plain-string token on both sides.
                specials[key] = SpecialToken(text=token, strip_left=True, strip_right=True)
            elif token:
                raise UserError(f"{folder / name}: {key} is {token!r}; expected a token")
    return specials


def read_added(file: Path, *, named: Mapping[str, SpecialToken]) -> dict[str, AddedToken]:
    """{text: token} of all the files that give an added token its id.

    Args:
        file: tokenizer.model or tokenizer.json; the others lie beside it.
        named: as of `read_specials`.

    Raises:
        UserError: one token with two ids, one id with two tokens, or no number.
    """
    names = {token.text for token in named.values()}
    for name in _SETTINGS:
        more = read_object(file.parent / name).get("additional_special_tokens")
        for token in more if isinstance(more, list) else ():
            names.add(str(token.get("content") if isinstance(token, dict) else token))
    slow = file.suffix != ".json"
    by_text: dict[str, AddedToken] = {}
    by_id: dict[int, tuple[str, Path]] = {}
    for source, text, index, given in _given_ids(file):
        if not isinstance(text, str) or not text or not re.fullmatch(r"[0-9]{1,9}", str(index)):
            raise UserError(
                f"{source}: the added token {str(text)[:80]!r} has the id {str(index)[:80]!r}; "
                "expected a text and a number"
            )
        token = AddedToken(
            text=text,
            index=int(index),
            special=bool(given.get("special", False)) or text in names,
            **(_flags(given) if given else _unflagged(text, named, slow=slow)),
        )
        earlier = by_text.get(text, token)
        other, where = by_id.get(earlier.index, (text, source))
        if (other, earlier.index) != (text, token.index):
            raise UserError(
                f"{source}: the added token {text!r} has the id {token.index}; in {where} "
                f"{other!r} is {earlier.index}. Take all tokenizer files from the same model"
            )
        by_text[text] = replace(token, special=token.special or earlier.special)
        by_id[token.index] = (text, source)
    return by_text


def _unflagged(text: str, named: Mapping[str, SpecialToken], *, slow: bool) -> dict[str, bool]:
    """The flags of a token of added_tokens.json, which has none.

    A name that is a special token's has that one's; around others 4.28's slow tokenizer strips.
    """
    if slow and text in (by_text := {token.text: token for token in named.values()}):
        return {
            "strip_left": by_text[text].strip_left,
            "strip_right": by_text[text].strip_right,
        }
    return {"strip_left": slow, "strip_right": slow}


def _given_ids(file: Path) -> Iterator[tuple[Path, Any, Any, Mapping[str, Any]]]:
    """(file, token, id, flags), the file whose flags count last."""
    folder = file.parent
    for text, index in read_object(folder / ADDED_FILE).items():
        yield folder / ADDED_FILE, text, index, {}
    # the `tokenizers` library reads those of its own file itself
    if file.suffix != ".json" and (folder / "tokenizer.json").is_file():
        listed = read_object(folder / "tokenizer.json").get("added_tokens") or []
        for entry in listed if isinstance(listed, list) else [listed]:
            entry = entry if isinstance(entry, dict) else {}
            yield folder / "tokenizer.json", entry.get("content"), entry.get("id"), entry
    decoder = read_object(folder / _SETTINGS[0]).get("added_tokens_decoder") or {}
    for index, entry in decoder.items() if isinstance(decoder, dict) else ():
        entry = entry if isinstance(entry, dict) else {"content": entry}
        yield folder / _SETTINGS[0], entry.get("content"), index, entry
