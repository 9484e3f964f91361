"""Pairs by a language model: from a real server on this machine, whatever that does."""

import dataclasses
import json
import random
import re

import pytest

from data_pipelines.open_asqa import __main__ as command
from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.open_ended.build_conversations import COUNTS
from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.core.jsonl import write_jsonl
from tests.support.openai_server import servers
from tests.support.small_build import SOURCES, make_build
from tests.support.stub_writer import FaultyWriter, chat, is_probe, pairs_of

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


def contents(build):
    """The bytes of all results of `generate`."""
    return {
        path.relative_to(build.root): path.read_bytes()
        for path in sorted(build.root.glob("*/open_ended.json*"))
    }


@pytest.fixture
def undisturbed(tmp_path, serve, generate):
    """A build as it becomes when only contents are faulty, no call."""
    build = make_build(tmp_path / "undisturbed", clips=6)
    generate(build, serve(FaultyWriter(passing=0.0)))
    return build


def test_faults_of_calls_change_nothing_and_no_text_is_paid_for_twice(
    tmp_path, serve, generate, undisturbed
):
    build, writer = make_build(tmp_path / "b", clips=6), FaultyWriter(passing=0.6)
    status, said = generate(build, serve(writer), "--timeout", "5")
    assert status == 1  # some clips never get a reply that can be used
    assert contents(build) == contents(undisturbed)
    usable = [n for n, body in ((n, json.loads(n)) for n in writer.succeeded)
              if json.loads(writer.written(body)[2])["choices"][0]["finish_reason"] == "length"
              or b'\\"q\\"' in writer.written(body)[2]]  # fmt: skip
    assert {writer.succeeded[name] for name in usable} == {1}
    assert all(writer.succeeded[name] == 2 for name in writer.succeeded if name not in usable)
    for text in ("429", "500", "broke the connection", "no pair in the reply", "empty reply"):
        assert text in said
    counts = read_json(build.file("clotho", COUNTS))
    assert counts["pairs"] == len(lines_of(build, "clotho"))


def test_a_server_that_says_nothing_is_tried_again(tmp_path, serve, generate):
    build, writer = (
        make_build(tmp_path / "b", sources=("clotho",), clips=2),
        FaultyWriter(passing=0),
    )
    server = None

    def reply(number, path, body):
        if number == 2:
            server.stop.wait(5)
        return writer(number, path, body)

    server = serve(reply)
    generate(build, server, "--timeout", "0.3")
    assert lines_of(build, "clotho")


def test_cut_after_any_character_the_whole_pairs_stay_and_the_rest_is_asked_for(
    tmp_path, serve, generate
):
    build = make_build(tmp_path / "b", sources=("vggsound",), clips=1)
    first = {"text": None}

    def reply(cut):
        def answer(number, path, body):
            if is_probe(body):
                return chat('{"pairs": []}')
            text = json.dumps({"pairs": pairs_of(body)}, ensure_ascii=False)
            if "already asked" in body["messages"][1]["content"] or body["max_tokens"] > 514:
                return chat(text)
            first["text"] = text
            return chat(text[:cut], finish="length")

        return answer

    generate(build, serve(reply(0)))
    (length,) = {len(first["text"])}
    begins = [first["text"].find('{"q"', place) for place in range(length)]
    ends = {first["text"].find("}", begin) + 1 for begin in begins if begin >= 0}
    cuts = sorted({0, 1, 9, 10, length - 1, length, *ends, *(end - 1 for end in ends)})
    for cut in cuts:
        build = make_build(tmp_path / f"b{cut}", sources=("vggsound",), clips=1)
        server = serve(reply(cut))
        assert generate(build, server)[0] == 0
        bodies = [body for _, _, body in server.requests if not is_probe(body)]
        whole_pairs = sum(end <= cut for end in ends)
        assert len(lines_of(build, "vggsound")) == 5
        assert len(bodies) == (1 if whole_pairs == 5 else 2)
        if len(bodies) == 2:
            assert f"Write {5 - whole_pairs} different" in bodies[1]["messages"][0]["content"]
            asked = json.loads(bodies[1]["messages"][1]["content"]).get("already asked", [])
            lines = lines_of(build, "vggsound")
            assert asked == [line["question"] for line in lines[:whole_pairs]]
            assert bodies[1]["max_tokens"] == 2 * (64 + (5 - whole_pairs) * 90)
            assert len({line["request"] for line in lines}) == 1 + (whole_pairs > 0)
    assert len({line["question"] for line in lines}) == 5


def test_a_reply_that_is_always_cut_ends_after_four_parts(tmp_path, serve, generate):
    build = make_build(tmp_path / "b", sources=("vggsound",), clips=1)
    server = serve(lambda n, p, body: chat("{", finish="length"))
    status, _ = generate(build, server, "--structured", "off")
    assert status == 0 and lines_of(build, "vggsound") == []
    limits = [body["max_tokens"] for _, _, body in server.requests]
    assert limits == [514, 1028, 2056, 4112]


def test_patterns_of_the_schema_refuse_what_the_form_of_the_prompt_says(tmp_path, serve, generate):
    build = make_build(tmp_path / "b", sources=("vggsound",), clips=1)
    server = serve(whole)
    assert generate(build, server, "--patterns")[0] == 0
    assert len(server.requests) == 2
    for _, _, body in server.requests:
        pairs = body["response_format"]["json_schema"]["schema"]["properties"]["pairs"]
        assert pairs["minItems"] == pairs["maxItems"]
        texts = {name: own["pattern"] for name, own in pairs["items"]["properties"].items()}
        assert re.search(texts["q"], "Why might the dog bark at this hour?")
        answer = "The dog barks in short bursts, which suggests that somebody comes near."
        assert re.search(texts["a"], answer) and not re.search(texts["a"], answer[:-1])
        for text in ("the question", "the answer", "...", "What?"):
            assert not re.search(texts["q"], text) and not re.search(texts["a"], text)


def results_of(path, writer, generator):
    """The results of a batch file as a server gives them, in any order and some twice."""
    lines = []
    for line in path.read_text().splitlines():
        asked = json.loads(line)
        assert asked["url"] == "/v1/chat/completions" and asked["method"] == "POST"
        body = json.loads(writer.written(asked["body"])[2])
        response = {"status_code": 200, "request_id": "r", "body": body}
        lines.append({"id": "x", "custom_id": asked["custom_id"], "response": response})
    generator.shuffle(lines)
    return [json.dumps(line | {"error": None}) for line in lines + lines[:3]]


def test_batch_files_give_the_same_pairs(tmp_path, generate, undisturbed):
    build, writer = make_build(tmp_path / "b", clips=6), FaultyWriter(passing=0)
    folder, generator, rounds = build.root / "batches", random.Random(0), 0
    while True:
        _, said = generate(build, None, "--batch-files", "--budget", "5")
        new = [path for path in folder.glob("*.jsonl") if str(path) in said]
        if not new:
            break
        rounds += 1
        for path in new:
            lines = results_of(path, writer, generator)
            if rounds == 1:  # some expire: they come back in a file of errors
                for number in range(5):
                    key = json.loads(lines[number])["custom_id"]
                    lines = [line for line in lines if key not in line]
                    error = {"code": "batch_expired", "message": "too late"}
                    failed = {"custom_id": key, "response": None, "error": error}
                    (folder / "results" / f"errors{number}.jsonl").write_text(json.dumps(failed))
            lines.append(json.dumps({"custom_id": "of another folder", "response": None}))
            half = len(lines) // 2
            for part, some in enumerate((lines[half:], lines[:half])):
                out = folder / "results" / f"{path.stem}-{part}.jsonl"
                out.write_text("\n".join(some) + "\n")
    assert 2 <= rounds <= 6
    assert contents(build) == contents(undisturbed)
    with open_ledger(build.root / build_folder.REPLIES, send=False) as ledger:
        assert ledger.calls_by_state()["failed"] == 5
        assert ledger.committed == ledger.cost > 0


def test_batch_files_wait_and_can_be_abandoned(tmp_path, generate):
    build = make_build(tmp_path / "b", sources=("clotho",), clips=3)
    first, _ = generate(build, None, "--batch-files")
    again, said = generate(build, None, "--batch-files")
    assert (first, again) == (1, 1) and "3 requests wait" in said
    assert len(list((build.root / "batches").glob("*.jsonl"))) == 1
    with pytest.raises(UserError, match=r"requests-0001\.jsonl"):
        generate(build, None, "--batch-files", "--abandon", "requests-0009.jsonl")
    generate(build, None, "--batch-files", "--abandon", "requests-0001.jsonl")
    old, new = sorted((build.root / "batches").glob("*.jsonl"))
    assert old.read_bytes() == new.read_bytes()


def test_a_cut_file_of_results_is_named_and_what_came_is_kept(tmp_path, generate):
    build, writer = (
        make_build(tmp_path / "b", sources=("clotho",), clips=3),
        FaultyWriter(passing=0),
    )
    generate(build, None, "--batch-files")
    folder = build.root / "batches"
    lines = results_of(folder / "requests-0001.jsonl", writer, random.Random(0))[:3]
    text = "\n".join(lines)
    (folder / "results" / "out.jsonl").write_text(text[:-20])
    with pytest.raises(UserError, match=r"out\.jsonl:3 .* cut off"):
        generate(build, None, "--batch-files")
    with open_ledger(build.root / build_folder.REPLIES, send=False) as ledger:
        assert ledger.open_batches() == {"requests-0001.jsonl": 1}
    (folder / "results" / "out.jsonl").write_text(text)
    _, said = generate(build, None, "--batch-files")
    assert "2 double" in said


def test_a_dry_run_sends_and_writes_nothing(tmp_path, serve, generate):
    build = make_build(tmp_path / "b", sources=("clotho", "iemocap"), clips=3)
    before = sorted(build.root.rglob("*"))
    status, said = generate(build, None, "--dry-run")
    assert status == 0 and sorted(build.root.rglob("*")) == before
    rows = {line.split()[0]: line.split()[1:] for line in said.splitlines()[1:4]}
    assert rows["clotho"][:4] == ["3", "0", "0", "3"]
    tokens_in, tokens_out = (int(cell.replace(",", "")) for cell in rows["all"][4:6])
    assert tokens_out == 6 * 20 * 60
    about = float(re.search(r"about \$([\d.]+)", said)[1])
    assert about == pytest.approx((tokens_in * 0.15 + tokens_out * 0.6) / 1e6, abs=0.005)
    generate(build, serve(whole), "--only", "clotho")
    rows = {line.split()[0]: line.split()[1:] for line in
            generate(build, None, "--dry-run")[1].splitlines()[1:4]}  # fmt: skip
    assert (rows["clotho"][2:4], rows["iemocap"][2:4]) == (["3", "0"], ["0", "3"])


def test_the_budget_stops_and_a_higher_one_goes_on(tmp_path, serve, generate, undisturbed):
    build, writer = make_build(tmp_path / "b", clips=6), FaultyWriter(passing=0.3)
    server = serve(writer)
    status, said = generate(build, server, "--budget", "0.01")
    assert status == 1 and "stopped: the budget of $0.01" in said and writer.charged <= 0.01
    generate(build, server, "--budget", "0.02")
    assert 0.01 < writer.charged <= 0.02
    generate(build, server, "--budget", "1")
    assert contents(build) == contents(undisturbed)


def test_a_server_without_schemas_is_asked_without(tmp_path, serve, generate):
    build = make_build(tmp_path / "b", sources=("clotho",), clips=2)

    def reply(number, path, body):
        if "response_format" in body:
            return 400, {}, b'{"error": "unknown field response_format"}'
        return whole(number, path, body)

    server = serve(reply)
    assert generate(build, server)[0] == 0
    assert len(lines_of(build, "clotho")) == 40 and len(server.requests) == 3
    generate(build, server, "--tries", "1")
    assert len(server.requests) == 3
    other = serve(whole)  # the same name of a model, on a server that takes schemas
    generate(build, other)
    assert is_probe(other.requests[0][2]) and "response_format" in other.requests[-1][2]


def test_clips_without_a_field_are_counted_and_not_asked_about(tmp_path, serve, generate):
    build = make_build(tmp_path / "b", sources=("as_strong", "iemocap", "audioset"), clips=3)
    clips = list(build.clips("as_strong"))
    clips[1] = dataclasses.replace(clips[1], events=None)
    write_jsonl(build.file("as_strong", build_folder.CLIPS), [clip.to_json() for clip in clips])
    clips = [dataclasses.replace(clip, dataset="as_2m") for clip in build.clips("audioset")]
    write_jsonl(build.file("audioset", build_folder.CLIPS), [clip.to_json() for clip in clips])
    server = serve(whole)
    _, said = generate(build, server, "--limit", "2")
    assert len(lines_of(build, "as_strong")) == 20 and "1 clips are not asked" in said
    assert read_json(build.file("as_strong", COUNTS))["clips without"] == {"events": 1}
    assert lines_of(build, "audioset") == []
    assert len(server.requests) == 1 + 4


def test_steps_that_are_missing_are_named(tmp_path, serve, generate):
    build = make_build(tmp_path / "b", sources=("mosei", "fma"))
    build.file("mosei", build_folder.STYLE).unlink()
    with pytest.raises(UserError, match=r"^mosei: .*style.jsonl .* style .* --only mosei"):
        generate(build, serve(whole))
    build.file("fma", build_folder.SPOKEN_TEXT).unlink()
    with pytest.raises(UserError, match=r"^fma: .*spoken_text.jsonl .* transcribe .* --only fma"):
        generate(build, serve(whole))


@pytest.mark.parametrize(
    "options, named",
    [
        (("--only", "esc50"), "--only esc50"),
        (("--budget", "0"), "--budget|budget"),
        (("--extra", '{"n": 4}'), "--extra has n"),
        (("--extra", "[]"), "--extra"),
        (("--temperature", "3"), "temperature"),
        (("--workers", "0"), "workers"),
        (("--pairs", "0"), "pairs"),
        (("--rpm", "0"), "rpm"),
        (("--model", "x", "--budget", "1"), "no price for 'x'"),
        (("--tpm", "100"), "tokens"),
    ],
)
def test_options_that_are_none_are_named(tmp_path, serve, generate, options, named):
    build = make_build(tmp_path / "b", sources=("clotho",))
    server = serve(whole)
    with pytest.raises(UserError, match=named):
        generate(build, server, *options)
    assert len([body for _, _, body in server.requests if not is_probe(body)]) == 0


def test_two_at_once_do_not_share_a_folder(tmp_path, serve, generate):
    build = make_build(tmp_path / "b", sources=("clotho",))
    in_use = pytest.raises(UserError, match="in use by another process")
    with open_ledger(build.root / build_folder.REPLIES, send=True), in_use:
        generate(build, serve(whole))
