"""`open_asqa generate` asks our own server: its fields are taken, its JSON and counts are read."""

import dataclasses
import json

from data_pipelines.open_asqa import __main__ as command
from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.open_ended.build_conversations import COUNTS
from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.core.files import read_json
from tests.serving import scripted
from tests.support.small_build import make_build

SOURCES = ("clotho", "libritts", "joint_audioset")


def words_of(request):
    """Return JSON by the schema that was asked for, with as many pairs as it allows."""
    pairs = request.grammar.schema["properties"]["pairs"]
    assert set(pairs["items"]["properties"]) == {"q", "a"}
    count = pairs["maxItems"]
    seed = request.sampling and request.sampling.seed
    made = [{"q": f"Why {seed} {number}?", "a": "So."} for number in range(count)]
    return [json.dumps({"pairs": made})]


def test_pairs_come_from_our_own_server(tmp_path, monkeypatch):
    submit = scripted.ScriptedEngine.submit
    monkeypatch.setattr(scripted, "words_of", words_of)
    monkeypatch.setattr(
        scripted.ScriptedEngine,
        "submit",  # the toy tokenizer makes a token of each letter, and 900 fit
        lambda self, asked: submit(self, dataclasses.replace(asked, prompt=asked.prompt[:900])),
    )
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    build = make_build(tmp_path, sources=SOURCES, clips=1)
    with scripted.served() as server:
        model = server.app.settings.model_name
        given = ["generate", str(build.root), "--endpoint", f"{server.url}/v1", "--model", model]
        assert command.command([*given, "--pairs", "3", "--workers", "2"]) == 0
        sent = len(server.engine.requests)
    assert sent == 1 + len(SOURCES)  # the first one finds out whether schemas are taken
    questions = set()
    for source in SOURCES:
        lines = list(build.lines(source, build_folder.OPEN_ENDED))
        questions |= {line["question"] for line in lines}
        assert len(lines) == 3
        assert read_json(build.file(source, COUNTS))["replies that parse whole"] == 1
    assert len(questions) == 9  # every clip has a seed of its own
    with open_ledger(build.root / build_folder.REPLIES, send=False) as ledger:
        key = lines[0]["request"]
        answer = ledger.look_up([key])[key].answer
    assert (answer.finish_reason, answer.completion_tokens) == ("stop", 1)
    assert answer.prompt_tokens > 0
