"""The text of an answer as its tokens come, in time linear in their number.

What is given out never changes: half characters, white space that the end would strip, and what may
become a stop string are held back. The pieces joined are `tokenizer.decode(tokens).strip()`.
"""

from collections.abc import Sequence

from ltu_jax.preprocessing.tokenizer import Tokenizer

_HALF = "\ufffd"


class Detokenizer:
    """Tokens to settled text; only the newest tokens are decoded, behind the few before them."""

    def __init__(self, tokenizer: Tokenizer):
        self._decode = tokenizer.decode
        self._ids: list[int] = []
        self._context = 0  # where decoding starts, so that spaces are as in the whole text
        self._settled = 0  # ids whose text is out
        self._base = ""  # the text of the ids between
        self._shown = 0  # characters of the newest ids that are out

    def push(self, token: int) -> str:
        """Add a token; return the text that is settled now."""
        self._ids.append(token)
        window = self._decode(self._ids[self._context :])
        if not window.startswith(self._base):
            return ""  # a byte changes the characters before it until its own is complete
        fresh = window[len(self._base) :]
        whole = fresh.rstrip(_HALF)
        new = whole[self._shown :]
        self._shown = max(self._shown, len(whole))
        if fresh and len(fresh) == len(whole):
            self._context, self._settled, self._shown = self._settled, len(self._ids), 0
            self._base = self._decode(self._ids[self._context : self._settled])
        return new

    def flush(self) -> str:
        """Return what is left: half characters, as the replacement sign."""
        return self._decode(self._ids[self._context :])[len(self._base) + self._shown :]


class AnswerText:
    """The text of one answer.

    Attributes:
        stopped: the stop string that ended the text, None before.
    """

    def __init__(self, tokenizer: Tokenizer, *, stop: Sequence[str] = ()):
        self._detokenizer = Detokenizer(tokenizer)
        self._stop = tuple(stop)
        self._held = ""
        self._begun = False
        self.stopped: str | None = None

    def push(self, token: int) -> str:
        """Add a token; return the text that may be shown."""
        return self._add(self._detokenizer.push(token))

    def flush(self) -> str:
        """Return what is left at the end of the answer."""
        if self.stopped is not None:
            return ""
        return self._add(self._detokenizer.flush()) + self._rest()

    def _add(self, new: str) -> str:
        self._held += new if self._begun else new.lstrip()
        self._begun = self._begun or bool(self._held)
        # The one that is complete first, so that it does not matter how tokens cut the text.
        found = [
            (start + len(stop), start, stop)
            for stop in self._stop
            if (start := self._held.find(stop)) >= 0
        ]
        if found:
            _, start, self.stopped = min(found)
            return self._held[:start].rstrip()
        shown = self._held[: len(self._held) - self._beginning()].rstrip()
        self._held = self._held[len(shown) :]
        return shown

    def _beginning(self) -> int:
        """The length of the longest end of what is held that begins a stop string."""
        longest = min(max(map(len, self._stop), default=1) - 1, len(self._held))
        return next(
            (
                size
                for size in range(longest, 0, -1)
                if any(stop.startswith(self._held[-size:]) for stop in self._stop)
            ),
            0,
        )

    def _rest(self) -> str:
        return "" if self.stopped is not None else self._held.rstrip()
