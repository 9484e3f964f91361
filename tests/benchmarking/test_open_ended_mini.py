"""The benchmark's steps: with a stub in the model's place, and with the model, of three clips."""

import collections
import json
import os

from benchmarks import open_ended_mini
from benchmarks.served_process import served
from data_pipelines.open_asqa.build_folder import OPEN_ENDED, REPLIES
from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer, read_pairs
from ltu_jax.clients.call_ledger import open_ledger
from tests.support import compilation
from tests.support.openai_server import servers
from tests.support.stub_writer import FaultyWriter


def test_counts_are_those_of_the_build(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = open_ended_mini.make_build(tmp_path, clips=10)
    assert [len(list(folder.clips(source))) for source in folder.sources()] == [3, 2, 2, 3]
    with servers() as start:
        server = start(FaultyWriter(passing=0.0))
        extra = {"repetition_penalty": 1.1}
        asked = open_ended_mini.Asked(pairs=5, temperature=0.9, extra=extra)
        open_ended_mini.ask(folder, url=server.url, model="m", asked=asked)
        for _, _, body in server.requests:
            assert body["repetition_penalty"] == 1.1
        assert {body["temperature"] for _, _, body in server.requests[1:]} == {0.9}
    found = open_ended_mini.measured(folder)
    assert found["clips"] == 10
    assert found["accepted"] + sum(found["refused"].values()) == found["pairs"] > 0
    assert 0 < found["replies that parse whole"] <= found["replies"]
    read = found["to read"]
    assert len(read) == min(20, found["accepted"]) > 0
    clips = {clip.clip_id: clip for source in folder.sources() for clip in folder.clips(source)}
    for pair in read:
        assert pair["question"] and pair["answer"]
        assert tuple(pair.get("labels", ())) == clips[pair["clip_id"]].labels


def test_more_clips_and_another_start_ask_for_nothing_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    asked = open_ended_mini.Asked()
    with servers() as start:
        server = start(FaultyWriter(passing=0.0))
        for clips in (8, 8, 12):
            folder = open_ended_mini.make_build(tmp_path, clips=clips)
            before = open_ended_mini.answered(folder)
            open_ended_mini.ask(folder, url=server.url, model="m", asked=asked)
            usable = open_ended_mini.answered(folder)
            assert before <= usable and (before == usable) == (clips == 8 and before > 0)
        sent = collections.Counter(json.dumps(body) for _, _, body in server.requests)
    assert set(sent.values()) == {1} and len(sent) >= 1 + 12


def test_a_small_real_model_writes_pairs_through_our_server(tmp_path, smollm2_files, monkeypatch):
    """Three clips; what the bar of 200 clips counts is counted of these."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    environment = os.environ | {
        "XLA_FLAGS": compilation.XLA_FLAGS,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "true",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    options = ("--checkpoint", str(smollm2_files), "--max-batch", "1", "--slot-tokens", "768",
               "--deadline", "3600")  # fmt: skip
    folder = open_ended_mini.make_build(tmp_path / "build", clips=3)
    with served(*options, log=tmp_path / "log", environment=environment) as server:
        one = open_ended_mini.Asked(pairs=1)
        for _ in range(2):  # the second time asks for nothing
            open_ended_mini.ask(folder, url=f"{server.url}/v1", model=server.model, asked=one)
            answered = server.count("vllm:request_success_total")
            assert answered == 4  # one of them finds out whether schemas are taken
    found = open_ended_mini.measured(folder)
    assert found["clips"] == 3 and found["passed"] is None
    reasons = found["replies that were cut"] + sum(found["given up"].values())
    assert found["replies that parse whole"] + reasons == found["all replies"] == 3
    assert found["accepted"] + sum(found["refused"].values()) == found["pairs"] >= 1
    lines = [line for source in folder.sources() for line in folder.lines(source, OPEN_ENDED)]
    with open_ledger(folder.root / REPLIES, send=False) as ledger:
        calls = ledger.look_up([line["request"] for line in lines])
    assert len(calls) == len(lines) == found["pairs"]
    for line in lines:
        answer = calls[line["request"]].answer
        assert QuestionAnswer(line["question"], line["answer"]) in read_pairs(answer.content).pairs
        assert 0 < answer.completion_tokens <= 154
