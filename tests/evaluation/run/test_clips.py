"""Clips as a run knows them: parts of files, words from the data or from Whisper, broken files."""

import functools
import hashlib

import numpy as np
import pytest
from tqdm import tqdm

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip
from ltu_jax.evaluation.run.clips import (
    ClipFeatures,
    decode,
    read_clip_facts,
    transcribe_clips,
    unreadable_clips,
)
from ltu_jax.preprocessing.audio import load_audio


@pytest.fixture
def clips(corpus):
    files = sorted((corpus / "audio" / "test").iterdir())
    return [AudioClip(clip_id=path.stem, audio=path, cluster=path.stem) for path in files[:6]]


def hear(clips, model, out, *, allow_missing=False):
    return transcribe_clips(
        clips,
        model=model,
        path=out / "clips.jsonl",
        known=read_clip_facts([out / "clips.jsonl"]),
        whisper="Whisper tiny",
        batch_size=1,
        allow_missing=allow_missing,
    )


def test_words_that_the_data_lack_are_whispers(clips, listener, tmp_path):
    model = listener()
    own = AudioClip(clip_id="own", audio=clips[0].audio, cluster="own", spoken_text="Hello.")
    known = hear([*clips, own], model, tmp_path)
    assert model.transcribed == 6
    assert (known["clip01"].spoken_text, known["clip01"].source) == (
        "We bought seven green apples.",
        "Whisper tiny",
    )
    assert (known["own"].spoken_text, known["own"].source) == ("Hello.", "data")
    assert known["clip01"].seconds == 1.5
    assert known["clip01"].seconds_cut == 0.0
    assert known["clip01"].sha256 == hashlib.sha256(clips[1].audio.read_bytes()).hexdigest()


def test_what_is_known_is_not_heard_again(clips, listener, tmp_path):
    first = hear(clips[:4], listener(), tmp_path)
    model = listener()
    assert hear(clips, model, tmp_path).keys() == {clip.clip_id for clip in clips}
    assert model.transcribed == 2
    again = listener()
    assert hear(clips[:4], again, tmp_path) == first
    assert again.transcribed == 0


def test_seconds_behind_the_window_are_counted(clips, listener, tmp_path):
    model = listener()
    model.window_seconds = 1.2
    assert hear(clips, model, tmp_path)["clip01"].seconds_cut == pytest.approx(0.3)


def test_a_clip_may_be_a_part_of_a_file(clips):
    part = AudioClip(clip_id="p", audio=clips[1].audio, cluster="p", start=0.25, end=0.75)
    whole = load_audio(clips[1].audio).samples
    np.testing.assert_array_equal(decode(part).samples, whole[4000:12000])
    assert decode(part).seconds == 0.5
    late = AudioClip(clip_id="late", audio=clips[1].audio, cluster="p", start=5.0, end=6.0)
    with pytest.raises(UserError, match=r"has 1.50 s, but clip 'late' is 5.00 s to 6.00 s"):
        decode(late)


def test_files_that_cannot_be_read_stop_the_run_by_name_or_are_left_out(clips, listener, tmp_path):
    clips[1].audio.unlink()
    clips[3].audio.write_bytes(b"not audio at all")
    with pytest.raises(UserError, match="2 of 6 clips cannot be read") as stopped:
        hear(clips, listener(), tmp_path)
    for name in ("clip01.flac", "clip03.flac", "--check", "--allow-missing"):
        assert name in str(stopped.value)
    assert [clip.clip_id for clip, _ in unreadable_clips(clips)] == ["clip01", "clip03"]
    found = hear(clips, listener(), tmp_path, allow_missing=True)
    assert sorted(found) == ["clip00", "clip02", "clip04", "clip05"]


def test_another_sound_under_a_known_name_is_not_taken_for_the_one_heard(clips, listener, tmp_path):
    hear(clips, listener(), tmp_path)
    before = clips[2].audio.read_bytes()
    clips[2].audio.write_bytes(clips[3].audio.read_bytes())
    with pytest.raises(UserError, match="clip02.flac is not the file .* heard as 'clip02'"):
        hear(clips, listener(), tmp_path)
    clips[2].audio.write_bytes(before)
    assert len(hear(clips, listener(), tmp_path)) == 6


def test_encoded_clips_that_a_power_cut_left_empty_are_encoded_again(clips, listener, tmp_path):
    sources = {clip.clip_id: functools.partial(load, clip) for clip in clips[:2]}
    with tqdm(disable=True) as bar:
        ClipFeatures(listener(), folder=tmp_path / "features").compute(sources, bar=bar)
        for path in (tmp_path / "features").iterdir():
            path.write_bytes(b"")
        model = listener()
        found = ClipFeatures(model, folder=tmp_path / "features")
        found.compute(sources, bar=bar)
    assert model.encoded == 2
    assert [int(found[name][0, 0, 0]) for name in sources] == [0, 1]


def load(clip):
    return decode(clip).samples


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "clips.jsonl").write_text('{"clip_id": "a"}\n')
    with pytest.raises(UserError, match="clips.jsonl:1 is not a clip"):
        read_clip_facts([tmp_path / "clips.jsonl"])
