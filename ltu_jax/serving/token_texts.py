"""The text and the bytes of each token alone."""

import functools
import re
from dataclasses import dataclass

from ltu_jax.preprocessing.tokenizer import FastTokenizer, Tokenizer
from ltu_jax.serving.engine_types import TokenLogprob

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_BLANK = "\u2581"  # sentencepiece's sign for a space


@functools.cache
def _bytes_of_signs() -> dict[str, int]:
    """The signs that byte-level vocabularies write bytes with: printable ones stand for themselves.

    The others follow from 256 on, in their order.
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    signs = {chr(byte): byte for byte in plain}
    return signs | {chr(256 + number): byte for number, byte in enumerate(others)}


@dataclass(frozen=True)
class TokenTexts:
    """What the tokens of a tokenizer stand for."""

    tokenizer: Tokenizer

    def data(self, token: int) -> bytes:
        """Return a token's bytes within a text; none for ids without a token, a special's name."""
        name = self.tokenizer.token(token)
        if name is None:
            return b""
        if self.special(token):
            return name.encode()
        if self._byte_level:
            signs = _bytes_of_signs()
            return b"".join(
                bytes([signs[sign]]) if sign in signs else sign.encode() for sign in name
            )
        byte = _BYTE.fullmatch(name)
        return bytes([int(byte[1], 16)]) if byte else name.replace(_BLANK, " ").encode()

    def special(self, token: int) -> bool:
        """Tell whether a token stands for no text."""
        return self.tokenizer.token(token) is not None and token in self._specials

    def logprob(self, token: int, value: float) -> TokenLogprob:
        """Return a token with its log-probability."""
        data = self.data(token)
        return TokenLogprob(
            id=token, token=data.decode("utf-8", "replace"), data=data, logprob=value
        )

    @functools.cached_property
    def _specials(self) -> frozenset[int]:
        tokenizer = self.tokenizer
        if isinstance(tokenizer, FastTokenizer):
            added = tokenizer.model.get_added_tokens_decoder()
            return frozenset(index for index, token in added.items() if token.special)
        named = {tokenizer.token_id(special.text) for special in tokenizer.specials}
        return frozenset(named | {token.index for token in tokenizer.added if token.special})

    @functools.cached_property
    def _byte_level(self) -> bool:
        tokenizer = self.tokenizer
        return isinstance(tokenizer, FastTokenizer) and "ByteLevel" in str(tokenizer.model.decoder)
