"""Embeddings from a real local server, and the cache around any embedder."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ltu_jax.clients import embedding
from ltu_jax.clients.embedding import CachedEmbedder, EndpointEmbedder, open_embedder
from ltu_jax.clients.endpoint import Endpoint, EndpointError
from ltu_jax.clients.reply_cache import ReplyCache, key
from ltu_jax.core.errors import UserError
from tests.support.openai_server import ok, servers

ROOT = Path(__file__).resolve().parents[2]


def vector(text):
    return [float(len(text)), float(ord(text[0])), 1.0]


def unit(text):
    return np.array(vector(text)) / np.linalg.norm(vector(text))


def embeddings(number, path, body):
    """What OpenAI replies, in an order that only the indices tell."""
    data = [
        {"object": "embedding", "index": place, "embedding": vector(text)}
        for place, text in enumerate(body["input"])
    ]
    return ok({"object": "list", "data": data[::-1], "model": body["model"]})


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers() as start:
        yield start


def client(server, model="text-embedding-ada-002"):
    return EndpointEmbedder(endpoint=Endpoint(url=server.url), model=model)


def test_vectors_come_in_the_order_of_the_texts_at_length_one(serve):
    server = serve(embeddings)
    found = client(server)(["dog", "a cat", "rain"])
    np.testing.assert_allclose(found, [unit("dog"), unit("a cat"), unit("rain")], atol=1e-7)
    assert found.dtype == np.float32
    path, _, body = server.requests[0]
    assert path == "/v1/embeddings"
    assert body == {"model": "text-embedding-ada-002", "input": ["dog", "a cat", "rain"]}


def test_many_texts_are_several_requests(serve):
    server = serve(embeddings)
    texts = [f"text {n}" for n in range(600)]
    found = client(server)(texts)
    np.testing.assert_allclose(found, [unit(text) for text in texts], atol=1e-7)
    assert [len(body["input"]) for _, _, body in server.requests] == [256, 256, 88]


def test_a_blank_text_is_not_sent_and_is_zeros(serve):
    server = serve(embeddings)
    found = client(server)(["", "dog", " \n"])
    np.testing.assert_allclose(found, [np.zeros(3), unit("dog"), np.zeros(3)], atol=1e-7)
    assert server.requests[0][2]["input"] == ["dog"]


def test_no_texts_are_no_request(serve):
    server = serve(embeddings)
    assert client(server)([]).shape == (0, 0) and server.requests == []


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [{"index": 0, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": []}, {"index": 1, "embedding": []}],
        [{"index": 0, "embedding": "AAAA"}, {"index": 1, "embedding": "AAAA"}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [None]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [10**400]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [float("nan")]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [0.0]}],
        [{"index": n, "embedding": [1.0]} for n in range(3)],
        "text",
    ],
)
def test_a_reply_without_a_usable_vector_for_each_text_is_an_error(serve, data):
    server = serve(lambda number, path, body: ok({"data": data}))
    with pytest.raises(EndpointError, match="check that text-embedding-ada-002 is an embedding m"):
        client(server)(["dog", "cat"])


def test_another_size_in_a_later_request_is_an_error(serve):
    def growing(number, path, body):
        data = [{"index": n, "embedding": [1.0] * number} for n in range(len(body["input"]))]
        return ok({"data": data})

    with pytest.raises(EndpointError, match="vectors of 1 and 2 numbers"):
        client(serve(growing))(["text"] * 300)


class Counting:
    """A backend that remembers what it was asked, and may be killed after some calls."""

    name, identity = "counting", "counting 1"

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked.append(list(texts))
        return np.array([unit(text) for text in texts], np.float32)


def test_a_text_is_asked_for_once_ever(tmp_path):
    backend, cache = Counting(), ReplyCache(tmp_path / "c.sqlite")
    first = CachedEmbedder(backend, cache)(["dog", "cat", "dog"])
    second = CachedEmbedder(backend, cache)(["cat", "rain", "dog"])
    assert backend.asked == [["dog", "cat"], ["rain"]]
    np.testing.assert_array_equal(first[[0, 1]], second[[2, 0]])
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_allclose(second[1], unit("rain"), atol=1e-7)


def test_two_backends_share_a_file_but_no_vector(tmp_path):
    one, other, cache = Counting(), Counting(), ReplyCache(tmp_path / "c.sqlite")
    other.identity = "counting 2"
    CachedEmbedder(one, cache)(["dog"])
    CachedEmbedder(other, cache)(["dog"])
    assert other.asked == [["dog"]]


def test_no_texts_are_no_vectors(tmp_path):
    assert CachedEmbedder(Counting(), ReplyCache(tmp_path / "c.sqlite"))([]).shape[0] == 0


def test_blank_texts_of_a_server_are_zeros_from_the_cache_too(serve, tmp_path):
    cached = CachedEmbedder(client(serve(embeddings)), ReplyCache(tmp_path / "c.sqlite"))
    assert not cached([""]).any()
    for _ in range(2):
        np.testing.assert_allclose(cached(["", "dog"]), [np.zeros(3), unit("dog")], atol=1e-7)


def test_a_model_that_changed_behind_its_name_is_an_error(tmp_path):
    cache = ReplyCache(tmp_path / "c.sqlite")
    CachedEmbedder(Counting(), cache)(["dog"])
    cache.put({key("embedding", "counting 1", "cat"): np.ones(7, "<f4").tobytes()})
    with pytest.raises(UserError, match="vectors of 3 and 7 numbers: the model behind that name"):
        CachedEmbedder(Counting(), cache)(["dog", "cat"])


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from ltu_jax.clients import embedding
from ltu_jax.clients.reply_cache import ReplyCache
embedding._AT_ONCE = 2
class Dying:
    name, identity, calls = "counting", "counting 1", 0
    def __call__(self, texts):
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([[len(text), ord(text[0]), 1.0] for text in texts])
cache = ReplyCache(Path(sys.argv[1]))
embedding.CachedEmbedder(Dying(), cache)(["dog", "cat", "rain", "sea", "bus"])
"""


def test_after_a_kill_only_the_rest_is_asked_for(tmp_path):
    file = tmp_path / "c.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(file)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    backend = Counting()
    CachedEmbedder(backend, ReplyCache(file))(["dog", "cat", "rain", "sea", "bus"])
    assert backend.asked == [["bus"]]


def test_a_spec_with_an_address_opens_a_server(serve, tmp_path):
    opened = open_embedder(f"{serve(embeddings).url}#ada", cache=tmp_path / "c.sqlite")
    assert opened.name == "ada"
    np.testing.assert_allclose(opened(["dog"]), [unit("dog")], atol=1e-7)


def test_a_spec_without_one_opens_a_folder(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(embedding, "LocalEmbedder", lambda path: opened.append(path) or Counting())
    assert open_embedder("some/folder", cache=tmp_path / "c.sqlite").name == "counting"
    assert opened == ["some/folder"]


def test_a_spec_that_is_neither_says_how_to_get_a_model(tmp_path):
    with pytest.raises(UserError, match="'?nothing.* is not a folder .*python -m ltu_jax.fetch"):
        open_embedder(str(tmp_path / "nothing"), cache=tmp_path / "c.sqlite")
