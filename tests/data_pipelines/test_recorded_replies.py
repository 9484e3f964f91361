"""Open-ended pairs of the mini corpus: recorded replies, read and judged as any model's."""

import hashlib
import itertools
import json
import math
from importlib import resources
from pathlib import Path

import pytest

from data_pipelines.mini import clip_facts, clip_plan, open_questions
from data_pipelines.mini.audio.music import MUSIC
from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.open_asqa.open_ended.clip_conversation import ClipConversation, WriterSettings
from data_pipelines.open_asqa.open_ended.pair_json import read_pairs
from data_pipelines.open_asqa.open_ended.prompt_files import prompt_of
from ltu_jax.core.config import ConfigError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "open_ended_prompts"
# A file of replies that was used never changes: other replies are the next version, and with it
# comes the next format of the questions (mini/closed_questions.py).
PUBLISHED = {1: "10fa47dcc64ed5a3"}
WORDS = 'We packed "ten" green {boxes} \\ for the fair.'


def facts(**known):
    return clip_facts.Facts(**({"clip_id": "c", "kind": "any"} | known))


def everything():
    """Yield the facts of every clip that a plan can have."""
    voices = [dict(gender=g, spoken_text=t) for g in ("male", "female") for t in (WORDS, "")]
    for sound, known in SOUNDS.items():
        for voice in ({}, *voices):
            yield facts(sound=sound, group=known.group, **voice)
    yield facts(group="animal")
    yield from (facts(music=music) for music in MUSIC)
    yield from (facts(**voice) for voice in voices)


def test_every_clip_has_a_reply_and_every_reply_a_clip():
    used = [open_questions.reply_of(one) for one in everything()]
    replies = open_questions.recorded_replies().replies
    assert sorted(used) == sorted(one.reply for one in replies)
    assert len({one.asked for one in replies}) == len(replies)


def test_every_reply_is_whole_and_every_pair_is_sound():
    for one in everything():
        read = read_pairs(open_questions.reply_of(one))
        assert read.whole and read.broken == 0
        assert len({pair.question for pair in read.pairs}) == len(read.pairs)
        assert len(read.pairs) == prompt_of("mini").file.pairs
        assert len(open_questions.accepted_pairs(one)) == len(read.pairs)


def test_what_is_heard_is_named_in_the_answers():
    for one in everything():
        pairs = open_questions.accepted_pairs(one)
        answers = " ".join(pair.answer.lower() for pair in pairs)
        name = one.sound or one.music or one.gender or "animal"
        assert sum(name in pair.answer.lower() for pair in pairs) >= 3
        if one.spoken_text:
            assert sum(pair.answer.endswith(WORDS) for pair in pairs) >= 3
        assert open_questions.WORDS not in answers
        others = set(SOUNDS) | set(MUSIC) | {"male", "female"}
        others -= {one.sound, one.music, one.gender}
        said = f" {answers.replace(WORDS.lower(), '')} "
        assert not [other for other in others if f" {other} " in said]


def test_a_pair_that_the_words_make_unusable_is_left_out():
    looped = " ".join(["we are going home now"] * 6)
    pairs = open_questions.accepted_pairs(facts(gender="male", spoken_text=looped))
    assert not [pair for pair in pairs if looped in pair.answer]
    assert open_questions.open_pairs(facts(gender="male", spoken_text=looped)) == ()


def test_a_clip_gets_some_of_the_pairs_by_its_name_alone():
    for known, count in ((dict(sound="siren", group="vehicle"), 2), (dict(music="rock band"), 2),
                         (dict(gender="male", spoken_text=WORDS), 1)):  # fmt: skip
        drawn = set()
        for number in range(200):
            pairs = open_questions.open_pairs(facts(clip_id=f"c{number}", **known))
            assert pairs == open_questions.open_pairs(facts(clip_id=f"c{number}", **known))
            assert len(pairs) == count and len({pair.pair_id for pair in pairs}) == count
            assert {(pair.task, pair.closed_ended) for pair in pairs} == {
                ("open-ended question", False)
            }
            drawn.add(tuple(pair.instruction for pair in pairs))
        asked = {pair.question for pair in open_questions.accepted_pairs(facts(**known))}
        assert set(itertools.chain.from_iterable(drawn)) == asked
        assert len(drawn) == math.comb(len(asked), count)


def test_the_sentences_of_the_plan_cost_no_pair():
    for entry in clip_plan.make_plan(clip_plan.SIZES["mini"], seed=0):
        group = SOUNDS[entry.sound].group if entry.sound else "animal" if entry.recording else ""
        known = facts(
            clip_id=entry.clip_id, kind=entry.kind, sound=entry.sound, group=group,
            music=entry.music, gender=entry.gender, spoken_text=entry.sentence,
        )  # fmt: skip
        pairs = open_questions.open_pairs(known)
        assert len(pairs) == (1 if entry.kind in ("speech", "unseen_voice") else 2)


def test_replies_answer_the_prompt_of_today():
    clip = facts(sound="siren", group="vehicle", gender="male", spoken_text=open_questions.WORDS)
    request = ClipConversation(
        open_questions._known(clip), prompt_of("mini"), WriterSettings(model="m")
    ).next_request(())
    (_, system), (_, user) = request.messages
    text = f"{request.prompt}\n\n{system}\n\n{json.dumps(json.loads(user), indent=1)}\n"
    assert text == (GOLDEN / "mini.txt").read_text()
    asked = [json.loads(one.asked) for one in open_questions.recorded_replies().replies]
    assert json.loads(user)["clip"] in asked
    assert open_questions.recorded_replies().prompt == request.prompt


def test_a_used_file_of_replies_never_changes():
    content = resources.files("data_pipelines.mini").joinpath("recorded_replies.toml").read_bytes()
    version = open_questions.recorded_replies().version
    assert {version: hashlib.sha256(content).hexdigest()[:16]}.items() <= PUBLISHED.items()


def test_what_has_no_reply_is_named(monkeypatch):
    with pytest.raises(ConfigError, match="no reply about .*thunder.* record one"):
        open_questions.open_pairs(facts(sound="thunder", group="nature"))
    prompt = prompt_of("mini")
    open_questions.recorded_replies.cache_clear()
    monkeypatch.setattr(open_questions, "prompt_of", lambda name: _renamed(prompt))
    with pytest.raises(ConfigError, match="answers the prompt 'mini 1.1'.*'mini 9.9'"):
        open_questions.recorded_replies()
    open_questions.recorded_replies.cache_clear()


def _renamed(prompt):
    return type(prompt)(name="mini 9.9", file=prompt.file, system="", again="")
