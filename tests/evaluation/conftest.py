"""A small corpus on disk and a listener that hears perfectly, to check the controls against."""

import base64
import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

from ltu_jax.evaluation.run import aggregate

SOUNDS = ("dog", "cat", "rain", "church bell")
SENTENCES = (
    "The cat sat on the mat.",
    "We bought seven green apples.",
    "A train leaves at noon.",
    "Nobody wanted to go home.",
)


def tone(index: int) -> float:
    """The frequency in Hz that stands for clip `index`."""
    return 200.0 + 100.0 * index


def write_corpus(folder: Path, *, clips: int = 12, split: str = "test") -> Path:
    """Clips are tones, one frequency each; items ask for sound, words, gender, and both."""
    audio = folder / "audio" / split
    audio.mkdir(parents=True)
    records, items = [], []
    for index in range(clips):
        clip_id, seconds = f"clip{index:02d}", 1.0 + 0.5 * (index % 3)
        time = np.arange(int(seconds * 16_000)) / 16_000
        soundfile.write(
            audio / f"{clip_id}.flac", 0.3 * np.sin(2 * np.pi * tone(index) * time), 16_000
        )
        sound, said = SOUNDS[index % 4], SENTENCES[index % 4]
        gender = ("male", "female")[index // 4 % 2]
        records.append(
            {
                "clip_id": clip_id,
                "split": split,
                "audio": f"audio/{split}/{clip_id}.flac",
                "seconds": seconds,
                "spoken_text": said,
                "labels": {"sound": sound, "gender": gender, "truth_text": said},
            }
        )
        questions = {
            "sound": ("What do you hear?", f"This is the sound of a {sound}.", SOUNDS),
            "gender": ("Who speaks?", f"The speaker is {gender}.", ("male", "female")),
            "spoken_text": ("What is said?", f"Spoken text: {said}", ()),
            "joint_questions": (
                "What is said over what?",
                f"Background sound: {sound}. Spoken text: {said}",
                SOUNDS,
            ),
        }
        for row, (question, answer, choices) in questions.items():
            items.append(
                {
                    "item_id": f"{clip_id}-{row}",
                    "clip_id": clip_id,
                    "row": row,
                    "question": question,
                    "answer": answer,
                    "choices": list(choices),
                }
            )
    for name, lines in (("clips", records), (f"{split}_items", items)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def few_resamples(monkeypatch):
    """Intervals from 200 resamples: enough where what is tested is that there are any."""
    for name in ("bootstrap_draws", "bootstrap_samples", "paired_bootstrap", "paired_samples"):
        few = functools.partial(getattr(aggregate, name), resamples=200)
        monkeypatch.setattr(aggregate, name, few)


_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures of one pixel: to draw them takes longer than all else that is tested."""
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).write_bytes(_PIXEL))


@pytest.fixture
def corpus(tmp_path) -> Path:
    return write_corpus(tmp_path / "corpus")


@dataclasses.dataclass(frozen=True)
class Said:
    """An answer as `ltu_jax.inference.Answer`."""

    text: str
    tokens: tuple[int, ...] = (5, 2)
    finish_reason: str = "eos"


@dataclasses.dataclass(frozen=True)
class Heard:
    """A transcript as `ltu_jax.generation.whisper_rules.Transcript`."""

    spoken_text: str


class Listener:
    """Hears which clip it is from the tone; copies the words from the transcript it is given."""

    window_seconds = 10.0

    def __init__(self, *, stop_after: int | None = None):
        self.encoded = 0
        self.transcribed = 0
        self.asked: list[tuple] = []
        self.batches: list[int] = []
        self.sampling: list[list] = []
        self.stop_after = stop_after
        self.answer = None  # a function of question, clip index and transcript to answer with

    def audio_features_batch(self, clips) -> np.ndarray:
        self.encoded += len(clips)
        return np.stack([self._features(samples) for samples in clips])

    def _features(self, samples: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(samples))
        hertz = spectrum.argmax() * 16_000 / len(samples)
        index = round((hertz - 200) / 100) if spectrum.max() > 1 else -1
        return np.full((1, 1, 1), index, np.float32)

    def over(self, devices):
        return self

    def transcribe(self, clips, *, batch_size: int):
        clips = list(clips)
        self.transcribed += len(clips)
        indices = [int(self._features(clip.samples)[0, 0, 0]) for clip in clips]
        return [Heard(SENTENCES[index % 4] if index >= 0 else "") for index in indices]

    def answer_batch(self, requests, *, max_new_tokens: int, sampling, batch_size: int):
        if self.stop_after is not None and len(self.batches) == self.stop_after:
            raise KeyboardInterrupt
        assert len(requests) <= batch_size
        self.batches.append(len(requests))
        self.sampling.append(list(sampling or ()))
        return [self._answer(request) for request in requests]

    def _answer(self, asked) -> Said:
        features, question, said = asked.audio_features, asked.question, asked.spoken_text
        index = -1 if features is None else int(features[0, 0, 0])
        self.asked.append((index, question, said))
        sound = SOUNDS[index % 4] if index >= 0 else "nothing"
        gender = ("male", "female")[index // 4 % 2] if index >= 0 else "unknown"
        if self.answer is not None:
            return Said(self.answer(question, index, said))
        return Said(
            {
                "What do you hear?": f"A {sound}.",
                "Who speaks?": f"The speaker is {gender}.",
                "What is said?": f"Spoken text: {said}" if said else "I cannot tell.",
                "What is said over what?": f"Background sound: {sound}. Spoken text: {said}",
            }[question]
        )


@pytest.fixture
def listener() -> type[Listener]:
    """The class, so that a test can make several."""
    return Listener
