"""Mutated rows, audio files and records: each accepted as valid or refused by name.

Nothing crashes, and no zeros are invented in place of sound.
"""

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.rows import audio_input, pair_columns
from data_pipelines.input.token_counts import pair_tokens
from data_pipelines.manifests import clip_manifests, official_rows
from data_pipelines.manifests.audio_finder import AudioFinder
from data_pipelines.records import tf_example
from data_pipelines.records.schema import OFFICIAL_FIELDS, RecordError
from data_pipelines.records.shard_writer import to_flac
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import load_tokenizer
from tests.faults.count import Count
from tests.faults.runs import ROOT, Lab
from tests.support import records_corpus

RATE = 16000
ROW = {
    "instruction": "What is heard?", "input": "Hello there.", "audio_id": "a.wav",
    "dataset": "mine", "task": "cla_sound", "output": "A bell.",
}  # fmt: skip
CONFIG = DataConfig(
    records="", split="train", layout="grouped", cutoff=64, pairs_per_clip=2, clips_per_row=1,
    rows_per_batch=1, train_on="all", features="on_the_fly", seed=0, audio_tokens=25, n_mels=80,
)  # fmt: skip
VALUES = (
    "", " ", "\n", "\0", "\ud800", "é" * 3, "</s>", "\u200b", "a" * 5000, "x/../../y",
    "/etc/passwd", None, 0, -1, 1e308, float("nan"), True, [], ["bell"], {}, {"a": 1}, "train",
    "no such split",
)  # fmt: skip


# Whether mutation `number` was accepted as valid; raises if it was treated wrongly.
Attempt = Callable[[int], bool]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """Something that is mutated: its share of all trials, and the least shares of both answers."""

    name: str
    prepare: Callable[[Path], Attempt]
    share: float
    accepted: float
    refused: float


def mutate_samples(lab: Lab, *, trials: int) -> Count:
    """Two in five trials are rows of a manifest, two are audio files, one is a stored record.

    A trial passes when what is accepted is valid and what is refused is named; any other error is
    a crash, and fails. Of each kind some must be accepted and some refused.
    """
    count = Count()
    for kind in KINDS:
        attempt = kind.prepare(lab.make_folder(f"fuzz{kind.name}"))
        tried, accepted, passed = round(kind.share * trials), 0, count.passed
        for number in range(tried):
            try:
                accepted += attempt(number)
            except Exception as error:
                count.add(failed=f"{kind.name} {number}: {type(error).__name__}: {error}")
            else:
                count.add()
        refused = count.passed - passed - accepted
        if accepted < kind.accepted * tried or refused < kind.refused * tried:
            count.failures.append(f"of {tried} {kind.name}s {accepted} accepted, {refused} refused")
    return count


def _row_text(rng) -> bytes:
    """A manifest of a good row and one whose fields, structure or bytes are changed."""
    row = dict(ROW)
    kind = rng.integers(5)
    field = str(rng.choice([*OFFICIAL_FIELDS, "split", "tags", "other"]))
    if kind <= 1:
        row[field] = VALUES[rng.integers(len(VALUES))]
    elif kind == 2:
        row.pop(field, None)
    line = json.dumps(row).encode()
    if kind == 3:  # bytes
        content = bytearray(line)
        for place in rng.integers(0, len(content), rng.integers(1, 6)):
            content[place] = rng.integers(256)
        line = bytes(content).replace(b"\n", b" ")
    elif kind == 4:  # structure
        line = [b"[" * 5000, b"1" * 5000, b"null", b'"text"', line[: rng.integers(len(line))],
                line + b"}", b"[]", b"{}", b"\xff\xfe", line + b","][rng.integers(10)]  # fmt: skip
    return line


def _rows(root: Path) -> Attempt:
    soundfile.write(root / "a.wav", records_corpus.samples(1, seconds=0.4), RATE)
    tokenizer = load_tokenizer(ROOT / "tests" / "golden" / "text_cases" / "spm320.model")
    rng = np.random.default_rng(6)

    def attempt(number: int) -> bool:
        line = _row_text(rng)
        as_list = number % 2
        path = root / f"m{number}.json{'' if as_list else 'l'}"
        good = json.dumps(ROW).encode()
        path.write_bytes(b"[%b,%b]" % (good, line) if as_list else good + b"\n" + line + b"\n")
        found = list(official_rows.rows_or_errors(path))
        # The good row in front of it is never lost.
        assert found and not isinstance(found[0], RecordError) and found[0].values == ROW
        errors = [row for row in found if isinstance(row, RecordError)]
        quarantined = []
        rules = clip_manifests.ReadRules(quarantine=quarantined.append)
        try:
            clips = list(clip_manifests.read_clips(path, audio=AudioFinder(root), rules=rules))
        except RecordError as error:
            assert path.name in str(error)
            return False
        assert not errors
        assert all(path.name in entry.reason for entry in quarantined)
        for clip in clips:
            assert clip.seconds == pytest.approx(0.4) and clip.audio == root / "a.wav"
            for pair in clip.pairs:
                text = dict(instruction=pair.instruction, spoken_text=clip.spoken_text,
                            output=pair.output)  # fmt: skip
                prompt, whole = pair_tokens(tokenizer, **text)
                try:
                    columns = pair_columns(
                        tokenizer, pair, spoken_text=clip.spoken_text, config=CONFIG, segment=1,
                        clip=0, prompt_tokens=prompt, planned_tokens=min(whole, CONFIG.cutoff),
                        where=path.name,
                    )  # fmt: skip
                except RecordError as error:
                    assert path.name in str(error) and "is no token" in str(error)
                    continue
                ids = columns["input_ids"]
                assert 2 <= len(ids) <= CONFIG.cutoff
                assert ids.min() >= 0 and ids.max() < tokenizer.vocab_size
        return not quarantined

    return attempt


def _mutated(rng, content: bytes) -> bytes:
    """Bits flipped, stretches overwritten, zeroed, cut out or doubled, the file cut, in places."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(content)) if rng.random() < 0.6 else rng.integers(60))
        start = min(start, len(content) - 1)
        size = int(rng.integers(1, 400))
        kind = rng.integers(6)
        if kind == 0:
            content[start] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            content[start : start + size] = rng.bytes(len(content[start : start + size]))
        elif kind == 2:
            content[start : start + size] = bytes(len(content[start : start + size]))
        elif kind == 3:
            del content[max(1, start) :]
        elif kind == 4:
            content[start:start] = content[start : start + size]
        elif len(content) > size:
            del content[start : start + size]
        if not content:
            break
    return bytes(content)


def _originals() -> list[bytes]:
    samples = records_corpus.samples(3, seconds=0.4)
    stereo = np.stack([samples, samples[::-1]], axis=1)
    made = []
    for kind, options in (
        ("WAV", {}), ("WAV", {"subtype": "FLOAT"}), ("FLAC", {}), ("OGG", {}), ("MP3", {}),
    ):  # fmt: skip
        for rate, sound in ((RATE, samples), (44100, stereo)):
            file = io.BytesIO()
            soundfile.write(file, sound, rate, format=kind, **options)
            made.append(file.getvalue())
    return made


def _longest_silence(samples: np.ndarray) -> int:
    """Length of the longest run of exact zeros."""
    edges = np.flatnonzero(np.diff(np.r_[0, samples == 0, 0]))
    return int(np.diff(edges)[::2].max(initial=0))


def _seconds_by_ffmpeg(content: bytes) -> float:
    with av.open(io.BytesIO(content)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.duration]
        return float(sum(packet.duration * packet.time_base for packet in packets))


def _files(root: Path) -> Attempt:
    del root
    rng = np.random.default_rng(7)
    originals = _originals()

    def attempt(number: int) -> bool:
        content = _mutated(rng, originals[number % len(originals)])
        name = f"file {number}"
        try:
            flac, seconds = to_flac(content, where=name)
        except RecordError as error:
            assert str(error).startswith(f"{name}: field 'audio': <bytes>: ")
            return False
        stored, rate = soundfile.read(io.BytesIO(flac), dtype="float32")
        assert rate == RATE and stored.ndim == 1 and len(stored) >= audio.HOP
        assert seconds == pytest.approx(len(stored) / RATE) and np.isfinite(stored).all()
        # The truth: libsndfile's own reading of the whole file at once; FFmpeg's, before
        # it decodes, of what libsndfile does not know or guesses the length of.
        try:
            truth, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            truth, rate = np.zeros((0, 1)), RATE
        if seconds != pytest.approx(len(truth) / rate, abs=0.01):
            assert seconds == pytest.approx(_seconds_by_ffmpeg(content), abs=0.15)
            return True
        mono = truth.mean(axis=1)
        if rate == RATE:
            assert len(stored) == len(truth)
            np.testing.assert_allclose(stored, np.clip(mono, -1, 1), atol=2**-15 + 1e-6, rtol=0)
            # Nothing fell silent that was not: samples below a step of 16 bits may round to 0.
            assert _longest_silence(stored) <= _longest_silence(
                np.where(abs(mono) < 2**-15, 0, mono)
            )
        record = tf_example.StoredClip(
            clip_id="x", audio=flac, sample_rate=RATE, seconds=seconds, spoken_text="",
            dataset="d", split="train", synthetic=False, tags=(), pairs=(),
        )  # fmt: skip
        values = audio_input(record, CONFIG, shape=(1000, 80), where=name)
        assert values.dtype == np.float32 and np.isfinite(values).all()
        return True

    return attempt


def _example() -> bytes:
    from tensorflow.train import BytesList, Example, Feature, Features, FloatList, Int64List

    def text(*values):
        encoded = [v if isinstance(v, bytes) else v.encode() for v in values]
        return Feature(bytes_list=BytesList(value=encoded))

    def whole(*values):
        return Feature(int64_list=Int64List(value=values))

    sound = io.BytesIO()
    soundfile.write(sound, records_corpus.samples(2, seconds=0.1), RATE, format="FLAC")
    fields = {
        "clip_id": text("clip"), "audio": text(sound.getvalue()), "sample_rate": whole(RATE),
        "seconds": Feature(float_list=FloatList(value=[0.1])), "spoken_text": text("Hello."),
        "dataset": text("mine"), "split": text("train"), "synthetic": whole(0),
        "tags": text("bell", "speech"), "pairs/pair_id": text("0", "1"),
        "pairs/instruction": text("What?", "Who?"), "pairs/output": text("A bell.", "Nobody."),
        "pairs/task": text("cla", "open"), "pairs/closed_ended": whole(1, 0),
    }  # fmt: skip
    return Example(features=Features(feature=fields)).SerializeToString(deterministic=True)


def _changed_field(rng, content: bytes) -> bytes:
    """One field of an example replaced, emptied, doubled or dropped."""
    from tensorflow.train import Example

    example = Example.FromString(content)
    fields = example.features.feature
    name = str(rng.choice(sorted(fields)))
    kind = rng.integers(4)
    if kind == 0:
        fields.pop(name)
    elif kind == 1:
        fields[name].CopyFrom(fields[str(rng.choice(sorted(fields)))])
    elif len(fields[name].bytes_list.value):
        values = fields[name].bytes_list.value
        texts = [b"", b" ", b"\xff", b"val", b"A horn.", rng.bytes(9), "\u200b".encode()]
        values[rng.integers(len(values))] = texts[rng.integers(len(texts))]
    elif len(fields[name].int64_list.value):
        fields[name].int64_list.value[0] = int(rng.choice([0, 1, 2, -1, 8000, 2**62]))
    else:
        chosen = rng.choice([0.1, 0.105, 0, -1, 36000, np.nan, np.inf])
        fields[name].float_list.value[0] = float(chosen)
    return example.SerializeToString(deterministic=True)


def _records(root: Path) -> Attempt:
    """Behind a checksum that fits, as of a writer that went wrong."""
    del root
    rng = np.random.default_rng(8)
    whole = _example()

    def attempt(number: int) -> bool:
        name = f"record {number}"
        content = (_mutated if number % 2 else _changed_field)(rng, whole)
        try:
            record = tf_example.parse(content, where=name)
            values = audio_input(record, CONFIG, shape=(1000, 80), where=name)
        except RecordError as error:
            assert str(error).startswith(f"{name}"), error
            return False
        assert np.isfinite(values).all()
        assert record.pairs == () or all(pair.output.strip() for pair in record.pairs)
        samples = audio.load_audio(record.audio).samples
        assert record.seconds == pytest.approx(len(samples) / RATE, abs=0.02)
        return True

    return attempt


KINDS = (
    Kind(name="row", prepare=_rows, share=0.4, accepted=0.1, refused=0.5),
    Kind(name="file", prepare=_files, share=0.4, accepted=0.15, refused=0.25),
    Kind(name="record", prepare=_records, share=0.2, accepted=0.1, refused=0.5),
)
