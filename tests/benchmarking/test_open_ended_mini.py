"""The benchmark's own steps, with a stub in the model's place."""

from benchmarks import open_ended_mini
from tests.support.openai_server import servers
from tests.support.stub_writer import FaultyWriter


def test_counts_are_those_of_the_build(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = open_ended_mini.make_build(tmp_path, clips=10)
    assert [len(list(folder.clips(source))) for source in folder.sources()] == [3, 2, 2, 3]
    with servers() as start:
        server = start(FaultyWriter(passing=0.0))
        open_ended_mini.ask(folder, url=server.url, model="m")
    found = open_ended_mini.measured(folder)
    assert found["clips"] == 10
    assert found["accepted"] + sum(found["refused"].values()) == found["pairs"] > 0
    assert 0 < found["replies that parse whole"] <= found["replies"]
