"""`filter` and `score` on what `generate` wrote: what is accepted; no model is asked again."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.open_asqa import __main__ as command
from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.open_ended.blind_answers import read_answers
from ltu_jax.clients import clap
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.core.jsonl import write_jsonl
from tests.support.openai_server import servers
from tests.support.small_build import SOURCES, make_build
from tests.support.stub_writer import chat, is_probe, pairs_of

NUMBER = "number that is not known"
BAD = {
    "q": "What else is heard in it?",
    "a": "Another 99 red balloons go by, and this seems to please whoever watches them.",
}
UNSURE = {
    "q": "Where may this have been recorded?",
    "a": "That cannot be determined, it is unclear where anybody was at that time.",
}


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers() as start:
        yield start


@pytest.fixture
def build(tmp_path, serve):
    """A build with pairs of all sources, two of each clip of a known kind."""

    def reply(number, path, body):
        pairs = [] if is_probe(body) else [*pairs_of(body, count=3), BAD, UNSURE]
        return chat(json.dumps({"pairs": pairs}))

    made = make_build(tmp_path / "b", clips=5)
    url = serve(reply).url
    command.command(["generate", str(made.root), "--model", "m", "--endpoint", url])
    return made


def filtered(build, *options):
    command.command(["filter", str(build.root), *options])
    files = {source: build.file(source, build_folder.FILTER) for source in SOURCES}
    return {source: read_json(path) for source, path in files.items() if path.exists()}


def lines_of(build, source, name):
    return list(build.lines(source, name))


def test_every_pair_is_in_one_of_the_two_files(build):
    reports = filtered(build)
    for source in SOURCES:
        accepted = lines_of(build, source, build_folder.ACCEPTED)
        refused = lines_of(build, source, build_folder.REFUSED)
        reasons = [line.pop("reason") for line in refused]
        given = lines_of(build, source, build_folder.OPEN_ENDED)
        assert [line for line in given if line in accepted] == accepted
        assert [line for line in given if line in refused] == refused
        assert len(accepted) + len(refused) == len(given) == reports[source]["pairs"] == 25
        assert {line["question"] for line in accepted}.isdisjoint({BAD["q"]})
        # of equal texts of five clips the first is kept, and there is room for one in sixteen
        assert len(accepted) == 16
        assert reports[source]["refused"] == {
            reason: reasons.count(reason) for reason in sorted(set(reasons))
        } == {"double": 4, NUMBER: 5}  # fmt: skip
        assert reports[source]["unique answers"] == 1.0


def test_processes_write_the_bytes_of_one(build, capsys):
    found = []
    for workers in ("1", "2"):
        capsys.readouterr()
        filtered(build, "--workers", workers)
        names = (build_folder.ACCEPTED, build_folder.REFUSED, build_folder.FILTER)
        files = [build.file(source, name) for source in SOURCES for name in names]
        found.append(([path.read_bytes() for path in files], capsys.readouterr().out))
        for path in files:
            path.unlink()
    assert found[0] == found[1]


@pytest.mark.parametrize("how, left", [("keep", 1), ("drop", 0), ("share=0.01", 0)])
def test_unanswerable_pairs_are_kept_or_not(build, how, left):
    filtered(build, "--unanswerable", how)
    accepted = lines_of(build, "clotho", build_folder.ACCEPTED)
    assert sum(line["question"] == UNSURE["q"] for line in accepted) == left


def test_a_question_cap_holds_and_the_last_filtering_counts(build):
    filtered(build, "--question-cap", "1", "--only", "clotho")
    questions = [line["question"] for line in lines_of(build, "clotho", build_folder.ACCEPTED)]
    assert len(questions) == len(set(questions))
    before = build.file("clotho", build_folder.ACCEPTED).read_bytes()
    filtered(build)
    filtered(build, "--question-cap", "1", "--only", "clotho")
    assert build.file("clotho", build_folder.ACCEPTED).read_bytes() == before


def test_other_pairs_are_filtered_anew(build, serve):
    filtered(build)
    server = serve(lambda number, path, body: chat(json.dumps({"pairs": pairs_of(body, count=2)})))
    for model, there in (("m", True), ("other", False)):
        generate = ["generate", str(build.root), "--model", model, "--only", "clotho"]
        command.command([*generate, "--structured", "schema", "--endpoint", server.url])
        for name in (build_folder.ACCEPTED, build_folder.REFUSED, build_folder.FILTER):
            assert build.file("clotho", name).exists() == there
            assert build.file("fma", name).exists()


def test_what_was_filtered_is_gone_when_a_kill_comes_between(build, serve, monkeypatch):
    filtered(build, "--only", "clotho")
    server = serve(lambda number, path, body: chat(json.dumps({"pairs": pairs_of(body, count=2)})))
    generate = ["generate", str(build.root), "--model", "other", "--only", "clotho"]
    generate += ["--structured", "schema", "--endpoint", server.url]

    def killed(path, missing_ok=False):
        raise KeyboardInterrupt

    with monkeypatch.context() as at_the_first, pytest.raises(KeyboardInterrupt):
        at_the_first.setattr(Path, "unlink", killed)
        command.command(generate)
    command.command(generate)
    assert {line["model"] for line in lines_of(build, "clotho", build_folder.OPEN_ENDED)} == {
        "other"
    }
    assert not build.file("clotho", build_folder.ACCEPTED).exists()


def blind(number, path, body):
    """A server that answers all questions in words of the stub's answers, or in other ones."""
    if is_probe(body):
        return chat('{"answers": ["I."]}')
    questions = json.loads(body["messages"][1]["content"])["questions"]
    answers = [
        question.split()[5] + " stands out, a scene to a listener" if place % 2 else "No idea."
        for place, question in enumerate(questions)
    ]
    return chat(json.dumps({"answers": answers}))


def test_blind_answers_are_read_behind_what_a_model_thinks_first():
    thought = '<think>Either {"answers": ["A cat."]} or {something} else.</think>\n'
    assert read_answers(f'{thought}{{"answers": ["A dog."]}}') == ["A dog."]


def test_agreement_is_scored_once_and_thresholds_need_no_model(build, serve):
    server = serve(blind)
    arguments = ["score", str(build.root), "--agreement", "--model", "j", "--endpoint", server.url]
    assert command.command(arguments) == 0
    assert len(server.requests) == 1 + 5 * len(SOURCES)
    for _, _, body in server.requests[1:]:
        asked = json.loads(body["messages"][1]["content"])
        assert set(asked) == {"clip", "questions"} and "stands out" not in str(asked)
    assert command.command(arguments) == 0
    assert len(server.requests) == 1 + 5 * len(SOURCES)
    kept = []
    for least in ("0", "0.2", "0.5", "0.8", "1"):
        reports = filtered(build, "--least-agreement", least)
        kept.append(sum(report["accepted"] for report in reports.values()))
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[1] > kept[-1]
    assert len(server.requests) == 1 + 5 * len(SOURCES)
    assert "low agreement" in reports["clotho"]["refused"]


def twice(number, path, body):
    """A server whose second answers are the first ones but for every other question."""
    if is_probe(body):
        return chat('{"answers": ["I."]}')
    questions = json.loads(body["messages"][1]["content"])["questions"]
    answers = ["Unsure." if place == 2 else f"The {question.split()[5]} of a distant bell rings on"
               for place, question in enumerate(questions)]  # fmt: skip
    if "seed" in body:
        answers = [answer if place % 2 else answer.replace("distant bell", "loud engine")
                   for place, answer in enumerate(answers)]  # fmt: skip
    return chat(json.dumps({"answers": answers}))


def test_consistency_compares_two_answers_of_one_model(build, serve):
    server, clips = serve(twice), 5 * len(SOURCES)
    model = ["--model", "j", "--endpoint", server.url]
    assert command.command(["score", str(build.root), "--agreement", *model]) == 0
    assert len(server.requests) == 1 + clips
    assert command.command(["score", str(build.root), "--consistency", *model]) == 0
    assert len(server.requests) == 1 + 2 * clips  # the first answers are known already
    seeds = [body.get("seed") for _, _, body in server.requests[1:]]
    assert seeds[:clips] == [None] * clips and len(set(seeds[clips:])) == clips
    both = ["score", str(build.root), "--agreement", "--consistency", *model]
    assert command.command(both) == 0 and len(server.requests) == 1 + 2 * clips
    filtered(build)
    names = (build_folder.ACCEPTED, build_folder.REFUSED)
    found = {
        (line["clip_id"], line["question"]): line["scores"]
        for name in names
        for line in lines_of(build, "clotho", name)
    }
    asked = lines_of(build, "clotho", build_folder.OPEN_ENDED)
    scores = [found[line["clip_id"], line["question"]] for line in asked]
    assert {frozenset(one) for one in scores} == {frozenset(("agreement", "consistency"))}
    for place in range(0, 25, 5):
        other, same, unsure, *_ = (one["consistency"] for one in scores[place : place + 5])
        assert 0 < other < same == 1 and unsure == 0
    kept = []
    for least in ("0", "0.3", "0.6", "1"):
        reports = filtered(build, "--least-consistency", least)
        kept.append(sum(report["accepted"] for report in reports.values()))
    assert kept == sorted(kept, reverse=True) and kept[0] > kept[1] > kept[2] >= kept[3] > 0
    assert "low consistency" in reports["clotho"]["refused"]
    assert len(server.requests) == 1 + 2 * clips


class NamedClap:
    """CLAP's place: the similarity is a function of the text alone."""

    loaded = 0

    def __init__(self, source):
        NamedClap.loaded += 1
        self.name = f"CLAP ({source})"

    def scores(self, audio, texts):
        assert len(audio) == 1 and audio[0].std() > 0
        return np.array([[len(text) % 10 / 10 for text in texts]], np.float32)


def test_clap_scores_sounds_that_have_audio(build, monkeypatch, tmp_path):
    monkeypatch.setattr(clap, "Clap", NamedClap)
    noise = np.random.default_rng(0).normal(size=16_000) * 0.1
    soundfile.write(tmp_path / "a.wav", noise, 16_000)
    for source in ("clotho", "vggsound", "iemocap"):
        clips = [c.to_json() | {"audio": str(tmp_path / "a.wav")} for c in build.clips(source)]
        write_jsonl(build.file(source, build_folder.CLIPS), clips)
    command.command(["score", str(build.root), "--clap", "tiny"])
    reports = filtered(build, "--least-clap", "0.5")
    for line in lines_of(build, "clotho", build_folder.ACCEPTED):
        assert len(line["answer"]) % 10 >= 5
    assert "low clap" in reports["clotho"]["refused"]
    assert reports["freesound"]["refused"] == {
        "no score of clap": 20,
        NUMBER: 5,
    }
    assert reports["iemocap"]["accepted"] == 16  # of words, which CLAP does not hear


def test_a_least_score_that_is_no_number_is_refused(build, capsys):
    with pytest.raises(SystemExit) as stop:
        command.command(["filter", str(build.root), "--least-clap", "nan"])
    assert stop.value.code == 2
    assert "--least-clap: 'nan' is no number" in capsys.readouterr().err


def test_a_build_without_pairs_and_wrong_options_are_named(tmp_path, build):
    empty = make_build(tmp_path / "empty", sources=("clotho",))
    with pytest.raises(UserError, match="no open-ended pairs of clotho yet"):
        command.command(["filter", str(empty.root)])
    with pytest.raises(UserError, match="no open-ended pairs of clotho yet"):
        command.command(["score", str(empty.root), "--clap", "x"])
    for options, named in (
        (("--unanswerable", "some"), "--unanswerable some"),
        (("--unanswerable", "share=2"), "unanswerable"),
        (("--near", "7"), "--near 7"),
        (("--question-cap", "0"), "question.cap"),
    ):
        with pytest.raises(UserError, match=named):
            command.command(["filter", str(build.root), *options])
    with pytest.raises(UserError, match="--clap MODEL, or --agreement or --consistency"):
        command.command(["score", str(build.root)])
    cold = ["--consistency", "--model", "j", "--endpoint", "http://127.0.0.1:1/v1"]
    with pytest.raises(UserError, match="--temperature 0 .* raise it"):
        command.command(["score", str(build.root), *cold, "--temperature", "0"])
    with pytest.raises(UserError, match="--endpoint and --model"):
        command.command(["score", str(build.root), "--agreement"])
