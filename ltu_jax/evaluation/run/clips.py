"""Facts of a run's clips: file, length, words, kept in `OUT/clips.jsonl` and made once.

Words that the data do not bring are Whisper's. Encoded clips lie in `OUT/features` only until the
answers that need them are written.
"""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from ltu_jax.core.axes import Array, Float
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import sha256_file
from ltu_jax.core.jsonl import DELETE, JsonlWriter, read_jsonl
from ltu_jax.evaluation.datasets.item import AudioClip
from ltu_jax.preprocessing.audio import SAMPLE_RATE, Audio, AudioError, load_audio

_CLIPS_AT_ONCE = 8
_LISTED = 5  # broken files named in an error


class AudioModel(Protocol):
    """The part of `ltu_jax.inference.Model` that clips need."""

    window_seconds: float

    def audio_features_batch(self, clips: Sequence[Any]) -> Float[Array, "B W A D"]: ...

    def transcribe(self, clips: Iterable[Any], *, batch_size: int) -> Sequence[Any]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipFacts:
    """Facts of a clip that need no model that answers.

    `seconds_cut` is how much lies behind the model's window; `source` says whose words they are.
    """

    clip_id: str
    sha256: str
    seconds: float
    seconds_cut: float
    spoken_text: str
    source: str


def decode(clip: AudioClip) -> Audio:
    """Decode the samples of a clip, 16 kHz mono.

    Raises:
        AudioError: the file cannot be used, or ends before the clip begins.
    """
    audio = load_audio(clip.audio)
    if clip.start == 0.0 and clip.end is None:
        return audio
    first = round(clip.start * SAMPLE_RATE)
    last = None if clip.end is None else round(clip.end * SAMPLE_RATE)
    samples = audio.samples[first:last]
    if len(samples) < SAMPLE_RATE // 100:
        raise AudioError(
            f"{clip.audio}: has {audio.seconds:.2f} s, but clip {clip.clip_id!r} is "
            f"{clip.start:.2f} s to {'its end' if clip.end is None else f'{clip.end:.2f} s'}; "
            "download it again, or mend the table"
        )
    return dataclasses.replace(audio, samples=samples, seconds=len(samples) / SAMPLE_RATE)


def unreadable_clips(clips: Iterable[AudioClip]) -> Iterator[tuple[AudioClip, str]]:
    """Yield (clip, what is wrong) for each whose file is missing or does not decode."""
    for clip in clips:
        try:
            decode(clip)
        except AudioError as error:
            yield clip, str(error)


def transcribe_clips(
    clips: Sequence[AudioClip],
    *,
    model: AudioModel,
    path: Path,
    known: Mapping[str, ClipFacts],
    whisper: str,
    batch_size: int,
    allow_missing: bool,
) -> dict[str, ClipFacts]:
    """Decode and, where the data bring no words, transcribe the clips that are not yet known.

    Args:
        clips: those to know of.
        model: transcribes.
        path: file that gets one line a clip.
        known: what is there already, of these and other clips.
        whisper: what a transcript's source is called.
        batch_size: windows transcribed at once.
        allow_missing: leave out clips that cannot be read, instead of stopping.

    Returns:
        clip id -> what is known, without those left out.

    Raises:
        UserError: clips that cannot be read, by name; one that is another file than it was.
    """
    result = {clip.clip_id: known[clip.clip_id] for clip in clips if clip.clip_id in known}
    _unchanged([(clip, known[clip.clip_id]) for clip in clips if clip.clip_id in known])
    todo = [clip for clip in clips if clip.clip_id not in known]
    if not todo:
        return result
    broken: dict[str, str] = {}
    with tqdm(total=len(todo), desc="reading", unit="clip") as bar, JsonlWriter(path) as file:
        for start in range(0, len(todo), 4 * batch_size):
            part: list[tuple[AudioClip, Audio]] = []
            for clip in todo[start : start + 4 * batch_size]:
                try:
                    part.append((clip, decode(clip)))
                except AudioError as error:
                    broken[clip.clip_id] = str(error)
            if broken and not allow_missing:
                continue  # names all that is broken before any time is spent on the rest
            for transcribed in _with_words(
                part, model=model, whisper=whisper, batch_size=batch_size
            ):
                result[transcribed.clip_id] = transcribed
                file.append(dataclasses.asdict(transcribed))
            bar.update(len(part))
    if broken and not allow_missing:
        listed = shorten(list(broken.values()), most=_LISTED, separator="\n  ")
        raise UserError(
            f"{len(broken)} of {len(clips)} clips cannot be read:\n  {listed}\n"
            "Mend them (--check lists all), or count their items as missing with --allow-missing"
        )
    return result


def _unchanged(pairs: Sequence[tuple[AudioClip, ClipFacts]]) -> None:
    """Raise `UserError` when a file is not the one that was heard, of which the answers are."""
    digest_of = functools.cache(sha256_file)  # clips may be parts of one file
    for clip, facts in tqdm(pairs, desc="checking", unit="clip", disable=not pairs):
        if clip.audio.is_file() and digest_of(clip.audio) != facts.sha256:
            raise UserError(
                f"{clip.audio} is not the file that this evaluation has heard as {clip.clip_id!r}: "
                "give another --out, or put the file back"
            )


def read_clip_facts(paths: Iterable[Path]) -> dict[str, ClipFacts]:
    """Read what earlier runs wrote, by clip id; an unfinished last line is left out."""
    result = {}
    for path in paths:
        for where, record in read_jsonl(path):
            for field in dataclasses.fields(ClipFacts):
                kind = int | float if field.type is float else field.type
                if not isinstance(value := record.get(field.name), kind):
                    raise UserError(f"{where} is not a clip: {field.name} is {value!r}; {DELETE}")
            facts = ClipFacts(
                **{field.name: record[field.name] for field in dataclasses.fields(ClipFacts)}
            )
            result[facts.clip_id] = facts
    return result


def _with_words(
    part: Sequence[tuple[AudioClip, Audio]], *, model: AudioModel, whisper: str, batch_size: int
) -> Iterator[ClipFacts]:
    silent = [audio for clip, audio in part if clip.spoken_text is None]
    transcripts = iter(model.transcribe(silent, batch_size=batch_size) if silent else ())
    for clip, audio in part:
        own = clip.spoken_text is None
        yield ClipFacts(
            clip_id=clip.clip_id,
            sha256=sha256_file(clip.audio),
            seconds=round(audio.seconds, 3),
            seconds_cut=round(max(audio.seconds - model.window_seconds, 0.0), 3),
            spoken_text=next(transcripts).spoken_text if own else clip.spoken_text,
            source=whisper if own else "data",
        )


class ClipFeatures:
    """Encoded clips [W, A, D] of the answers at hand, each computed once.

    A killed run finds its clips in `folder` again; `forget` frees memory and disk.
    """

    def __init__(self, model: AudioModel, *, folder: Path):
        self._model = model
        self._folder = folder
        self._arrays: dict[Any, np.ndarray] = {}

    def __getitem__(self, key: str) -> Float[np.ndarray, "W A D"]:
        return self._arrays[key]

    def compute(self, wanted: Mapping[str, Any], *, bar: tqdm) -> None:
        """Encode those of `wanted` (name -> function that gives samples) that are not there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        missing = []
        for name in wanted:
            if name in self._arrays:
                continue
            stored = self._found(name)
            if stored is None:
                missing.append(name)
            else:
                self._arrays[name] = stored
                bar.update()
        for first in range(0, len(missing), _CLIPS_AT_ONCE):
            batch = missing[first : first + _CLIPS_AT_ONCE]
            encoded = self._model.audio_features_batch([wanted[name]() for name in batch])
            for name, features in zip(batch, np.asarray(encoded), strict=True):
                temporary = self._path(name).with_suffix(".tmp")
                with open(temporary, "wb") as file:
                    np.save(file, features)
                os.replace(temporary, self._path(name))
                self._arrays[name] = features
                bar.update()

    def forget(self) -> None:
        """Drop what was computed: its answers are written."""
        for name in self._arrays:
            self._path(name).unlink(missing_ok=True)
        self._arrays.clear()

    def _found(self, name: str) -> np.ndarray | None:
        """Load what a killed run encoded; None where it did not, or its machine lost it."""
        try:
            return np.load(self._path(name), allow_pickle=False)
        except (FileNotFoundError, EOFError, ValueError):
            return None

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npy"
