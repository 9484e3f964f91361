"""Pairs by a language model: from a real server on this machine, whatever that does."""

import json

import pytest

from data_pipelines.open_asqa import __main__ as command
from data_pipelines.open_asqa import build_folder
from ltu_jax.clients.call_ledger import open_ledger
from tests.support.openai_server import servers
from tests.support.small_build import SOURCES, make_build
from tests.support.stub_writer import chat, is_probe, pairs_of

PRICES = '[models."m"]\ninput = 0.15\noutput = 0.6\nbatch = 0.5\n'


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers() as start:
        yield start


@pytest.fixture
def generate(tmp_path, capsys):
    """Runs the command on a build; returns its status and what it printed."""
    (tmp_path / "prices.toml").write_text(PRICES)

    def run(build, server=None, *more):
        given = ["generate", str(build.root), "--model", "m", "--wait", "0.01", *more]
        given += ["--prices", str(tmp_path / "prices.toml")]
        if server is not None:
            given += ["--endpoint", server.url]
        status = command.command(given)
        return status, capsys.readouterr().out

    return run


def lines_of(build, source):
    return list(build.lines(source, build_folder.OPEN_ENDED))


def whole(number, path, body):
    return chat(json.dumps({"pairs": [] if is_probe(body) else pairs_of(body)}))


def test_every_source_gets_its_pairs_and_nothing_is_asked_twice(tmp_path, serve, generate):
    build, server = make_build(tmp_path / "b"), serve(whole)
    assert generate(build, server)[0] == 0
    asked = [body for _, _, body in server.requests if not is_probe(body)]
    assert len(asked) == 4 * len(SOURCES)
    for source in SOURCES:
        lines = lines_of(build, source)
        assert len({line["clip_id"] for line in lines}) == 4
        assert len({line["request"] for line in lines}) == 4
        with open_ledger(build.root / build_folder.REPLIES, send=False) as ledger:
            record = ledger.look_up([lines[0]["request"]])[lines[0]["request"]]
        assert lines[0]["question"] in record.answer.content
    before = {
        source: build.file(source, build_folder.OPEN_ENDED).read_bytes() for source in SOURCES
    }
    count = len(server.requests)
    assert generate(build, server)[0] == 0
    assert len(server.requests) == count
    for source, content in before.items():
        assert build.file(source, build_folder.OPEN_ENDED).read_bytes() == content
