"""Texts to unit vectors, for the official match of answers to class names by cosine similarity.

By default a Sentence-Transformers model in JAX (all-MiniLM-L6-v2), which anyone can run again; the
paper's text-embedding-ada-002, or any other, through an OpenAI-compatible server.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ltu_jax.clients.endpoint import KEY_VARIABLE, Endpoint, EndpointError, split_spec
from ltu_jax.clients.local_embedding import LocalEmbedder
from ltu_jax.clients.reply_cache import ReplyCache, key
from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError

_PER_REQUEST = 256  # texts; OpenAI takes 2,048 and 300,000 tokens
_AT_ONCE = 1024  # texts between two writes to the cache


class EmbeddingBackend(Protocol):
    """An embedder whose vectors can be kept: equal `identity` means equal vectors."""

    name: str
    identity: str

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointEmbedder:
    """An embedding model of an OpenAI-compatible server, such as text-embedding-ada-002.

    A blank text is not sent, servers refuse it: its vector is zeros, as far from every text.
    """

    endpoint: Endpoint
    model: str

    @property
    def name(self) -> str:
        """How metrics call it."""
        return self.model

    @property
    def identity(self) -> str:
        """The server's address and the model's name: all that is known of it."""
        return key("embeddings", self.endpoint.url, self.model)

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
        """Return a unit vector for each text, in order; [0, 0] for none.

        Raises:
            UserError: the server fails (see `Endpoint.post`), or a reply without a usable vector
                for each text.
        """
        places = [place for place, text in enumerate(texts) if text.strip()]
        vectors: list[np.ndarray] = []
        for start in range(0, len(places), _PER_REQUEST):
            some = [texts[place] for place in places[start : start + _PER_REQUEST]]
            reply = self.endpoint.post("/embeddings", {"model": self.model, "input": some})
            vectors.append(self._vectors(reply, count=len(some)))
        sizes = {part.shape[1] for part in vectors}
        if len(sizes) > 1:
            raise self._unusable(f"vectors of {' and '.join(map(str, sorted(sizes)))} numbers")
        result = np.zeros((len(texts), sizes.pop() if sizes else 0), np.float32)
        if vectors:
            result[places] = np.concatenate(vectors)
        return result

    def _vectors(self, reply: dict[str, Any], *, count: int) -> Float[np.ndarray, "N E"]:
        """Return the vectors of a reply in the order of its "index" fields."""
        try:
            entries = {entry["index"]: entry["embedding"] for entry in reply["data"]}
            numbers = np.array([entries[place] for place in range(count)], np.float64)
        except (KeyError, TypeError, ValueError, OverflowError):
            numbers = np.zeros(0)
        if numbers.ndim != 2 or len(reply["data"]) != count or not numbers.size:
            raise self._unusable(f"no vector for each of {count} texts: {str(reply)[:200]!r}")
        lengths = np.linalg.norm(numbers, axis=1, keepdims=True)
        if not (np.isfinite(lengths).all() and lengths.all()):
            raise self._unusable("a vector without direction (zeros, or not numbers)")
        return (numbers / lengths).astype(np.float32)

    def _unusable(self, what: str) -> EndpointError:
        return EndpointError(
            f"{self.endpoint.url}/embeddings replied with {what}; check that {self.model} is an "
            "embedding model there"
        )


class CachedEmbedder:
    """An embedder that asks `backend` for each text once, ever; what is done survives a kill."""

    def __init__(self, backend: EmbeddingBackend, cache: ReplyCache):
        self.backend, self.cache = backend, cache
        self.name, self.identity = backend.name, backend.identity

    def __call__(self, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
        """Return the backend's vectors of `texts`.

        Raises:
            UserError: the backend fails, or the cache does.
        """
        keys = {text: key("embedding", self.backend.identity, text) for text in texts}
        known = self.cache.get(list(keys.values()))
        missing = [text for text, name in keys.items() if name not in known]
        for start in range(0, len(missing), _AT_ONCE):
            some = missing[start : start + _AT_ONCE]
            vectors = np.asarray(self.backend(some), "<f4")
            made = {keys[t]: v.tobytes() for t, v in zip(some, vectors, strict=True)}
            self.cache.put(made)
            known |= made
        vectors = [np.frombuffer(known[keys[text]], "<f4") for text in texts]
        sizes = {len(vector) for vector in vectors if vector.any()}
        if len(sizes) > 1:
            raise UserError(
                f"{self.name} gave vectors of {' and '.join(map(str, sorted(sizes)))} numbers: the "
                f"model behind that name has changed; delete {self.cache.path} and run again"
            )
        result = np.zeros((len(texts), sizes.pop() if sizes else 0), np.float32)
        for row, vector in zip(result, vectors, strict=True):
            if vector.any():
                row[:] = vector
        return result


def open_embedder(spec: str, *, cache: Path, key_variable: str = KEY_VARIABLE) -> CachedEmbedder:
    """Return the embedder of a command line's "PATH" or "URL#model", with a cache.

    Args:
        spec: a Sentence-Transformers folder, or a server's address up to /v1, "#", a model.
        cache: the SQLite file that keeps vectors.
        key_variable: the environment variable with the server's key.

    Raises:
        UserError: neither of the two, or what is there cannot be used.
    """
    if "://" not in spec:
        return CachedEmbedder(LocalEmbedder(spec), ReplyCache(cache))
    url, model = split_spec(spec)
    endpoint = Endpoint(url=url, key_variable=key_variable)
    return CachedEmbedder(EndpointEmbedder(endpoint=endpoint, model=model), ReplyCache(cache))
