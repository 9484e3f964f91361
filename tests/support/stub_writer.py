"""A stand-in for a language model that writes pairs, and the faults of real servers."""

import collections
import hashlib
import json
import re
import threading
from typing import Any

from tests.support.openai_server import Reply, ok

_TONES = ("calm", "distant", "sudden", "bright", "muffled", "steady", "rough", "gentle", "tense")
_KINDS = (
    "texture", "distance", "rhythm", "colour", "weight", "space", "warmth", "motion", "tension",
    "contrast", "silence", "closeness", "sharpness", "softness", "depth", "clarity", "energy",
    "balance", "surprise", "patience", "urgency", "order", "mixture", "background", "pace",
    "density", "fullness", "roughness", "lightness", "echo", "façade", "direction",
)  # fmt: skip


_LETTERS = str.maketrans("0123456789", "ghijklmnop")


def fraction(*names: object) -> float:
    """Return a number in [0, 1) that belongs to these names."""
    return int(hashlib.sha256(repr(names).encode()).hexdigest()[:12], 16) / 16**12


def asked_of(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return how many pairs a request wants, and the user's JSON."""
    system, user = (message["content"] for message in body["messages"])
    return int(re.search(r"Write (\d+) (?:different|pair)", system)[1]), json.loads(user)


def pairs_of(body: dict[str, Any], *, count: int | None = None) -> list[dict[str, str]]:
    """Return pairs about the clip of a request that pass all rules; those of two clips differ."""
    wanted, user = asked_of(body)
    start = len(user.get("already asked", ()))
    facts = json.dumps(user["clip"], sort_keys=True) + str(body.get("seed"))
    digest = hashlib.sha256(facts.encode()).hexdigest()[:24]
    tag = " ".join(digest.translate(_LETTERS)[place : place + 6] for place in range(0, 24, 6))
    tone = _TONES[int(fraction(facts) * len(_TONES))]
    return [
        {
            "q": f"Which part does the {kind} play in how {tone} this is?",
            "a": f"The {kind} stands out from {tag}, so it suggests a {tone} scene to a listener.",
        }
        for kind in _KINDS[start : start + (wanted if count is None else count)]
    ]


def chat(content: str | None, *, finish: str = "stop", tokens: int = 50) -> Reply:
    """Return a server's reply with a text."""
    return ok(
        {
            "model": "stub-1",
            "choices": [{"message": {"content": content}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 300, "completion_tokens": tokens},
        }
    )


def request_name(body: dict[str, Any]) -> str:
    """Return what tells a request from others."""
    return json.dumps(body, sort_keys=True)


def is_probe(body: dict[str, Any]) -> bool:
    """Tell whether a request only tries out whether a schema is taken."""
    return len(body["messages"]) == 1


class FaultyWriter:
    """A server's replies: whether they fail is decided by the request and how often it came.

    Attributes:
        passing: share of first arrivals that end in 429, 500, silence or a cut connection.
        received: how often each request came.
        succeeded: how often each request was answered with a text.
    """

    def __init__(self, *, passing: float = 0.4, seed: int = 0, hang: threading.Event | None = None):
        self.passing, self.seed, self._hang = passing, seed, hang
        self.received: collections.Counter[str] = collections.Counter()
        self.succeeded: collections.Counter[str] = collections.Counter()
        self.charged = 0.0
        self.price = (0.15e-6, 0.6e-6)
        self._lock = threading.Lock()

    def __call__(self, number: int, path: str, body: dict[str, Any]) -> Reply:
        """Reply to a request."""
        name = request_name(body)
        with self._lock:
            self.received[name] += 1
            first = self.received[name] == 1
        if is_probe(body):
            return chat('{"pairs": []}')
        if first and (fault := fraction(self.seed, "passing", name)) < self.passing:
            return self._passing(fault / self.passing)
        reply = self.written(body)
        with self._lock:
            self.succeeded[name] += 1
            usage = json.loads(reply[2])["usage"]
            self.charged += self.price[0] * usage["prompt_tokens"]
            self.charged += self.price[1] * usage["completion_tokens"]
        return reply

    def _passing(self, kind: float) -> Reply:
        if kind < 0.4:
            return 429, {"Retry-After": "0"}, b'{"error": "slow down"}'
        if kind < 0.7:
            return 500, {"Retry-After": "0"}, b"oops"
        if kind < 0.8 and self._hang is not None:
            self._hang.wait(2)
        return 200, {"Content-Length": "1000"}, b'{"choices": [{"mess'

    def written(self, body: dict[str, Any]) -> Reply:
        """Return the text for a request: whole, of a wrong count, cut, or no JSON at all."""
        wanted, user = asked_of(body)
        pairs = pairs_of(body)
        text = json.dumps({"pairs": pairs}, ensure_ascii=False)
        kind = fraction(self.seed, "content", json.dumps(user["clip"], sort_keys=True))
        if kind < 0.05:
            return chat("I am sorry, I cannot do that.")
        if kind < 0.1:
            return chat(None)
        if kind < 0.25 and "already asked" not in user:
            place = int(len(text) * fraction("cut", text))
            return chat(text[:place], finish="length", tokens=self._limit(body))
        if kind < 0.35:
            return chat(json.dumps({"pairs": pairs[: wanted // 2 + 1]}))
        if kind < 0.45:
            return chat(json.dumps({"pairs": pairs_of(body, count=wanted + 2)}))
        if kind < 0.55:
            return chat(f"Here they are:\n```json\n{text}\n```")
        if kind < 0.6:
            return chat("\n".join(map(json.dumps, pairs)))
        return chat(text)

    def _limit(self, body: dict[str, Any]) -> int:
        return body["max_tokens"]
