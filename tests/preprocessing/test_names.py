"""Names of audio files: either normal form, capitals in endings, no ending, two that fit."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.doctor import data_readers
from data_pipelines.manifests import clip_manifests
from data_pipelines.manifests.audio_finder import AudioFinder
from data_pipelines.records.schema import RecordError
from ltu_jax.evaluation.datasets.dataset import read_dataset
from ltu_jax.preprocessing.audio import AudioError, load_audio
from ltu_jax.preprocessing.names import ENDINGS, AmbiguousName, find_audio

NFC = unicodedata.normalize("NFC", "Café für Ångström가")
NFD = unicodedata.normalize("NFD", NFC)
ROW = {
    "instruction": "What is it?", "input": "", "dataset": "mine", "task": "open-ended question",
    "output": "A bell.",
}  # fmt: skip


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(1_600, 0.1), 16_000, format="WAV")
    return path


CASES = {  # on the disk, as written: found?
    "the same": ("a.wav", "a.wav"),
    "composed on the disk": (f"{NFC}.wav", f"{NFD}.wav"),
    "decomposed on the disk": (f"{NFD}.wav", f"{NFC}.wav"),
    "a folder composed": (f"{NFC}/a.wav", f"{NFD}/a.wav"),
    "folders decomposed": (f"{NFD}/x/{NFD}/{NFD}.wav", f"{NFC}/x/{NFC}/{NFC}.wav"),
    "no ending": ("a.wav", "a"),
    "capitals, no ending": ("NAME.WAV", "NAME"),
    "mixed capitals, no ending": ("name.Wav", "name"),
    "capitals instead": ("a.WAV", "a.wav"),
    "capitals for none": ("a.wav", "a.WAV"),
    "a dot in the name": ("a.b.FLAC", "a.b"),
    "flac": ("a.FLAC", "a"),
    "m4a": ("a.M4A", "a"),
    "opus": ("a.opus", "a"),
    "decomposed, capitals, no ending": (f"{NFD}.MP3", NFC),
    "spaces": (" a b .wav", " a b "),
    "an ending that is no audio's": ("a.Take1.wav", "a.Take1"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_name_is_found_wherever_it_is_given(case: str, tmp_path):
    there, written = CASES[case]
    path = put(tmp_path / there)
    assert find_audio(tmp_path / written, endings=ENDINGS) == path
    row = json.dumps(ROW | {"audio_id": written})
    manifest = tmp_path / "rows.json"
    manifest.write_text(f"[{row}]")
    (clip,) = clip_manifests.read_clips(manifest, audio=AudioFinder(tmp_path))
    assert (clip.audio, clip.clip_id) == (path, written)
    (case,) = data_readers.cases(manifest, audio_root=tmp_path)
    assert case.audio == path
    asked = read_dataset(manifest, name="open_asqa", split="all")
    assert asked.clips[written.strip()].audio == path or " " in written
    own = tmp_path / "own.jsonl"
    question = {"audio": written, "question": "What?", "answer": "x", "task": "open"}
    own.write_text(json.dumps(question) + "\n")
    (clip,) = read_dataset(own, name="jsonl", split=None).clips.values()
    assert clip.audio == path or " " in written
    if Path(written).suffix.lower() in ENDINGS:
        assert load_audio(tmp_path / written).seconds == 0.1


@pytest.mark.parametrize(
    ("there", "written"),
    [
        ("a.wav", "b.wav"), ("a.wav", "A.wav"), ("a.txt", "a"), ("a.wav", "a.flac"),
        ("x/a.wav", "a.wav"), ("a", "a/b.wav"), ("a.wav", "a" * 300), ("a.wav", "a\0"),
        ("a.B", "a.b"),
    ],
)  # fmt: skip
def test_another_name_is_not_found(there: str, written: str, tmp_path):
    put(tmp_path / there)
    assert find_audio(tmp_path / written, endings=ENDINGS) is None
    # A name that no file can have is an error of the row, not a file that has gone.
    error = RecordError if "\0" in written else clip_manifests.AudioGone
    with pytest.raises(error, match="field 'audio_id'"):
        clip_manifests.resolve_audio(written, root=tmp_path, where="row 1")


@pytest.mark.parametrize(
    ("first", "second", "written"),
    [
        ("a.wav", "a.WAV", "a"),
        ("a.wav", "a.flac", "a"),
        ("a.Wav", "a.WAV", "a.wav"),
        (f"{NFD}.flac", f"{NFC}.wav", NFC),
        (f"{NFD}/a.wav", f"{unicodedata.normalize('NFD', NFC[:4])}{NFC[4:]}/a.wav", f"{NFC}/a.wav"),
    ],
)
def test_two_files_that_fit_are_one_clear_error(first: str, second: str, written: str, tmp_path):
    for name in (first, second):
        put(tmp_path / name)
    with pytest.raises(AmbiguousName, match="could be meant|are spelt alike") as error:
        find_audio(tmp_path / written, endings=ENDINGS)
    for name in (first, second):
        assert repr(name.partition("/")[0]) in str(error.value)
    with pytest.raises(clip_manifests.AudioGone, match="row 1: field 'audio_id': "):
        clip_manifests.resolve_audio(written, root=tmp_path, where="row 1")


def test_the_exact_name_goes_before_others(tmp_path):
    for name in (f"{NFC}.wav", f"{NFD}.wav", "a", "a.wav", "a.WAV"):
        put(tmp_path / name)
    for name in (f"{NFC}.wav", f"{NFD}.wav", "a", "a.wav", "a.WAV"):
        assert find_audio(tmp_path / name, endings=ENDINGS) == tmp_path / name


def test_a_file_that_comes_later_is_found(tmp_path):
    assert find_audio(tmp_path / "a", endings=ENDINGS) is None
    assert find_audio(tmp_path / "a", endings=ENDINGS) is None
    put(tmp_path / "a.wav")
    assert find_audio(tmp_path / "a", endings=ENDINGS) == tmp_path / "a.wav"
    with pytest.raises(AudioError, match="no such file"):
        load_audio(tmp_path / "b.wav")


def test_what_a_manifest_says_of_odd_files_is_what_is_decoded(tmp_path):
    (tmp_path / "died.wav").write_bytes(
        put(tmp_path / "a.wav").read_bytes()[:40] + bytes(4) + b"\0\x10" * 1_600
    )
    row = json.dumps(ROW | {"audio_id": "died"})
    (tmp_path / "rows.json").write_text(f"[{row}]")
    (clip,) = clip_manifests.read_clips(tmp_path / "rows.json", audio=AudioFinder(tmp_path))
    assert (clip.seconds, clip.sample_rate) == (0.1, 16_000)
