"""Clips that are asked about in two calls: what words and sounds suggest, then questions."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from data_pipelines.open_asqa import __main__ as command
from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.open_ended.build_conversations import (
    COUNTS,
    SourceConversations,
    known_clips,
)
from data_pipelines.open_asqa.open_ended.clip_conversation import WriterSettings
from data_pipelines.open_asqa.open_ended.material import MissingFieldError
from data_pipelines.open_asqa.open_ended.prompt_files import prompt_of, prompts_of_two_calls
from data_pipelines.open_asqa.open_ended.two_calls import TwoCalls, questions
from data_pipelines.open_asqa.registry import SOURCES
from ltu_jax.clients.chat import ChatReply
from ltu_jax.core.files import read_json
from tests.support.openai_server import servers
from tests.support.small_build import make_build
from tests.support.stub_writer import asked_of, chat, is_probe, pairs_of

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "open_ended_prompts"
SOURCE = "joint_audioset"
SETTINGS = WriterSettings(model="m")
IMPLIED = "Somebody sings in the rain, which suggests a cheerful walk home through wet streets."


@pytest.fixture
def known(tmp_path):
    build = make_build(tmp_path / "k", sources=(SOURCE,), clips=2)
    return list(known_clips(build, SOURCE))[1]


@pytest.fixture
def asking(known):
    return TwoCalls(known, prompts_of_two_calls(SOURCE), SETTINGS)


def reply(*pairs, cut=None):
    text = json.dumps({"pairs": [{"q": q, "a": a} for q, a in pairs]})
    if cut is None:
        return ChatReply(content=text, finish_reason="stop")
    return ChatReply(content=text[:cut], finish_reason="length")


def test_what_is_sent_is_golden(asking):
    first = asking.next_request(())
    second = asking.next_request((reply(("What?", IMPLIED)),))
    for name, request in (("first", first), ("second", second)):
        (_, system), (_, user) = request.messages
        text = f"{request.prompt}\n\n{system}\n\n{json.dumps(json.loads(user), indent=1)}\n"
        assert text == (GOLDEN / f"{SOURCE}_{name}.txt").read_text()
    assert first.subject == second.subject and first.key != second.key


def test_the_pairs_are_that_of_the_first_call_and_those_of_the_second(asking):
    replies = (
        reply(("What is it?", IMPLIED), ("More?", "No.")),
        reply(("Why?", "So."), ("How?", "Thus.")),
    )
    assert asking.next_request(replies) is None
    implied, *others = asking.pairs(replies)
    assert implied.pair.question in questions() and implied.pair.answer == IMPLIED
    number = int(implied.wording.removeprefix("implied/"))
    assert questions()[number] == implied.pair.question and implied.part == 0
    assert [(one.pair.question, one.part, one.wording) for one in others] == [
        ("Why?", 1, ""), ("How?", 1, ""),
    ]  # fmt: skip
    assert asking.wanted == 11


def test_both_calls_may_be_cut_anywhere(asking):
    pairs = [(f"Why is it {n}?", f"It is {n}.") for n in range(10)]
    first, second = reply(("What is it?", IMPLIED)), reply(*pairs)
    for cut in range(0, len(first.content), 7):
        again = reply(("What is it?", IMPLIED), cut=cut)
        had = cut >= first.content.index('"}') + 2
        request = asking.next_request((again,))
        assert request.prompt.startswith(f"{SOURCE}_{'second' if had else 'first'}")
        assert request.most_tokens == (64 + 10 * 90 if had else 2 * (64 + 90))
        replies = (again, second) if had else (again, first, second)
        assert asking.next_request(replies) is None
        found = asking.pairs(replies)
        assert [one.part for one in found] == [len(replies) - 2] + [len(replies) - 1] * 10
    for cut in range(0, len(second.content), 31):
        replies = (first, reply(*pairs, cut=cut))
        had = [(one.pair.question, one.pair.answer) for one in asking.pairs(replies)[1:]]
        assert had == pairs[: len(had)]
        request = asking.next_request(replies)
        assert request.most_tokens == 2 * (64 + 90 * (10 - len(had)))


def test_a_first_call_that_is_always_cut_ends_the_clip(asking):
    replies = ()
    for part in range(4):
        assert asking.next_request(replies).most_tokens == (64 + 90) * 2**part
        replies = (*replies, reply(("What is it?", IMPLIED), cut=5))
    assert asking.next_request(replies) is None and asking.pairs(replies) == []


def test_what_is_still_to_come_is_told(asking):
    both = asking.ahead(())
    assert [one.pairs for one in both] == [1, 10]
    assert both[0].request.key == asking.next_request(()).key
    first = reply(("What is it?", IMPLIED))
    (second,) = asking.ahead((first,))
    assert second.request.key == asking.next_request((first,)).key
    assert abs(second.request.prompt_estimate - both[1].request.prompt_estimate) < 40
    assert asking.ahead((first, reply(("Why?", "So.")))) == []


def test_the_wordings_are_thirty_of_ours_and_all_are_drawn(known):
    assert len(set(questions())) == len(questions()) >= 30
    first = reply(("What is it?", IMPLIED))
    drawn = set()
    for number in range(1000):
        clip = dataclasses.replace(known.clip, clip_id=f"c{number}")
        one = dataclasses.replace(known, clip=clip)
        drawn.add(TwoCalls(one, prompts_of_two_calls(SOURCE), SETTINGS).pairs((first,))[0].wording)
    assert drawn == {f"implied/{number}" for number in range(len(questions()))}


def test_a_clip_without_words_is_not_asked_about(known):
    silent = dataclasses.replace(known, spoken_text="")
    with pytest.raises(MissingFieldError, match="heard_text"):
        TwoCalls(silent, prompts_of_two_calls(SOURCE), SETTINGS)


def test_pairs_of_all_prompts_are_judged_alike():
    """`filter` judges by the prompt file of the source, whichever call a pair is of."""
    judged = ("hidden", "least_answer", "most_answer", "named", "datasets", "steps")
    for source in SOURCES:
        for prompt in prompts_of_two_calls(source) or ():
            for name in judged:
                assert getattr(prompt.file, name) == getattr(prompt_of(source).file, name)
    assert [source for source in SOURCES if prompts_of_two_calls(source)] == [SOURCE]


def answered(number, path, body):
    """A stub that says in its first call what belongs to the clip."""
    if is_probe(body):
        return chat('{"pairs": []}')
    return chat(json.dumps({"pairs": pairs_of(body)}))


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with servers() as start:
        yield start


def generate(build, server, *more):
    return command.command(
        ["generate", str(build.root), "--model", "m", "--endpoint", server.url, *more]
    )


def lines_of(build, name=build_folder.OPEN_ENDED, source=SOURCE):
    return list(build.lines(source, name))


def test_two_calls_take_the_place_of_one_or_come_behind_it(tmp_path, serve):
    build, server = make_build(tmp_path / "b", sources=(SOURCE, "fma"), clips=3), serve(answered)
    assert generate(build, server) == 0
    one, fma = lines_of(build), lines_of(build, source="fma")
    assert generate(build, server, "--calls", "two") == 0
    two = lines_of(build)
    assert lines_of(build, source="fma") == fma  # has no prompts of two calls
    assert len(two) == 3 * 11 and [line["wording"][:8] for line in two[::11]] == ["implied/"] * 3
    assert [line["prompt"] for line in two[:2]] == [f"{SOURCE}_first 1.1", f"{SOURCE}_second 1.1"]
    told = [asked_of(body)[1]["clip"] for _, _, body in server.requests if not is_probe(body)]
    told = [clip["what it suggests"] for clip in told if "what it suggests" in clip]
    assert sorted(told) == sorted(line["answer"] for line in two[::11])  # eight ask at once
    count = len(server.requests)
    assert generate(build, server, "--calls", "both") == 0
    assert len(server.requests) == count  # both ways were asked already
    both = lines_of(build)
    assert sorted(map(json.dumps, both)) == sorted(map(json.dumps, one + two))
    names = [name for name, _ in itertools.groupby(line["clip_id"] for line in both)]
    assert names == sorted(set(names))
    counts = read_json(build.file(SOURCE, COUNTS))
    assert counts["clips"] == counts["asked in full"] == 3
    assert counts["pairs"] == counts["pairs wanted"] == len(both) == 3 * 21
    assert counts["prompt"] == f"{SOURCE} 1.1, {SOURCE}_first 1.1, {SOURCE}_second 1.1"


def test_a_dry_run_counts_both_calls(tmp_path, capsys, serve):
    build = make_build(tmp_path / "b", sources=(SOURCE,), clips=3)
    for calls, expected in (("one", 3), ("two", 6), ("both", 9)):
        command.command(
            ["generate", str(build.root), "--model", "m", "--dry-run", "--calls", calls]
        )
        row = capsys.readouterr().out.splitlines()[1].split()
        assert row[1] == "3" and row[4] == str(expected)


def test_a_cap_on_questions_spares_our_own(tmp_path, serve):
    build, server = make_build(tmp_path / "b", sources=(SOURCE,), clips=40), serve(answered)
    generate(build, server, "--calls", "two")
    command.command(["filter", str(build.root), "--question-cap", "1", "--near", "1"])
    accepted = lines_of(build, build_folder.ACCEPTED)
    ours = [line["question"] for line in accepted if "wording" in line]
    asked = [line["question"] for line in accepted if "wording" not in line]
    assert len(ours) == 40 > len(set(ours)) and len(asked) == len(set(asked))


def test_clips_are_counted_once(tmp_path):
    build = make_build(tmp_path / "b", sources=(SOURCE,), clips=5)
    for calls, each in (("one", 1), ("two", 1), ("both", 2)):
        asked = SourceConversations(
            folder=build, source=SOURCE, settings=SETTINGS, limit=2, calls=calls
        )
        assert asked.a_clip == each and len(list(asked.all())) == 2 * each
