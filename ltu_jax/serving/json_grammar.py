"""Answers that have to be JSON: which tokens may come next, by llguidance."""

import functools
import importlib.util
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.tokenizer import Tokenizer
from ltu_jax.serving.engine_types import JsonGrammar
from ltu_jax.serving.token_texts import TokenTexts

_MARK = "\x02"  # a text's beginning gets a space in front; what stands behind this does not
# White space between tokens of JSON is fixed: a model that may write any writes it for ever.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer):
        texts = TokenTexts(tokenizer)
        ids = range(tokenizer.vocab_size)
        self.bos_token_id, self.eos_token_id = tokenizer.bos_id, tokenizer.eos_id
        self.special_token_ids = [index for index in ids if texts.special(index)]
        self.tokens = [
            (b"\xff" if texts.special(index) else b"") + texts.data(index) for index in ids
        ]
        self._encode = tokenizer.encode
        self._ids = {data: index for index, data in reversed(list(enumerate(self.tokens))) if data}
        self._longest = max(map(len, self._ids))

    def __call__(self, text: bytes | str) -> list[int]:
        """Return the ids of bytes in the middle of a text: as the model would write them."""
        data = text if isinstance(text, bytes) else text.encode()
        before = self._encode(_MARK)
        ids = self._encode(_MARK + data.decode("utf-8", "replace"))
        same = ids[: len(before)] == before
        if same and b"".join(self.tokens[one] for one in ids[len(before) :]) == data:
            return ids[len(before) :]
        return self._longest_tokens(data)

    def _longest_tokens(self, data: bytes) -> list[int]:
        """Where the tokenizer does not keep these bytes, or is not given the whole of a character.

        A byte without a token ends it.
        """
        ids, place = [], 0
        while place < len(data):
            ends = range(min(len(data), place + self._longest), place, -1)
            end = next((end for end in ends if data[place:end] in self._ids), None)
            if end is None:
                break
            ids.append(self._ids[data[place:end]])
            place = end
        return ids


@dataclass(frozen=True, kw_only=True)
class JsonGrammars:
    """Makes matchers for one tokenizer; `rows` are those of the model's embedding."""

    tokenizer: Tokenizer
    rows: int
    ends: tuple[int, ...]

    def matcher(self, grammar: JsonGrammar) -> "JsonMatcher":
        """Return the state of an answer that has not begun.

        Raises:
            UserError: llguidance is not installed, or a schema that it does not understand.
        """
        library, known = self._library
        schema = {"type": "object"} if grammar.schema is None else grammar.schema
        try:
            text = library.LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_LAYOUT)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"grammar.schema is no JSON schema: {error}") from None
        matcher = library.LLMatcher(known, text, log_level=0)
        if matcher.is_error():
            raise UserError(f"grammar.schema cannot be followed: {_first_line(matcher)}")
        return JsonMatcher(matcher, words=-(-self.rows // 32))

    def prepare(self) -> None:
        """Read the vocabulary now, where llguidance is there: it takes a second or more."""
        if importlib.util.find_spec("llguidance") is not None:
            _ = self._library

    @functools.cached_property
    def _library(self) -> tuple[Any, Any]:
        try:
            import llguidance
        except ImportError:
            raise UserError(
                "JSON answers need llguidance, which is not installed: pip install 'ltu_jax[serve]'"
            ) from None
        wrapped = llguidance.TokenizerWrapper(_Vocabulary(self.tokenizer))
        slices = llguidance.LLTokenizer.json_slices()
        known = llguidance.LLTokenizer(
            wrapped, n_vocab=self.rows, eos_token=list(self.ends), slices=slices
        )
        return llguidance, known


class JsonMatcher:
    """The state of one answer."""

    def __init__(self, matcher: Any, *, words: int):
        self._matcher, self._words = matcher, words

    def allowed(self) -> np.ndarray:
        """Return which tokens may come next, uint32 words of one bit a token."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        words = np.zeros(4 * self._words, np.uint8)
        words[: len(bits)] = bits[: len(words)]
        return words.view("<u4").astype(np.uint32)

    def take(self, token: int) -> None:
        """Add a token.

        Raises:
            UserError: the grammar's limits are reached, or the token was not allowed.
        """
        self._matcher.consume_token(token)
        self._check()

    @property
    def complete(self) -> bool:
        """Tell whether nothing can follow."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UserError(f"grammar: {_first_line(self._matcher)}")


def _first_line(matcher: Any) -> str:
    return matcher.get_error().partition("\n")[0]
