"""The audio of a clip: found by the stems it may have, cut out of a file that is longer."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file
from ltu_jax.preprocessing import audio


class NoAudio(UserError):
    """A clip whose audio is missing, or may be one of several files."""


def find(index: FileIndex, stems: Sequence[str]) -> tuple[Path, str]:
    """Return the file of the first stem that has one, and this stem.

    Raises:
        NoAudio: no stem has a file, or one has several.
    """
    for stem in stems:
        files = index.find(stem)
        if len(files) > 1:
            raise NoAudio(f"{files[0]} and {files[1]} could be meant: keep one of them")
        if files:
            return files[0], stem
    raise NoAudio(f"no file {stems[0]} in {index.root}")


def is_segment(clip: SourceClip, stem: str) -> bool:
    """Tell whether a clip is a part of the file of this stem."""
    return clip.start is not None and stem == clip.files[-1]


def samples(path: Path, *, start: float | None = None, end: float | None = None) -> np.ndarray:
    """Decode a file, or its seconds from `start` to `end`, to 16 kHz mono.

    Raises:
        NoAudio: it cannot be decoded, or the part lies behind its end.
    """
    try:
        whole = _decoded(path) if start is not None else audio.load_audio(path).samples
    except audio.AudioError as error:
        raise NoAudio(str(error)) from None
    first, last = (
        None if time is None else round(time * audio.SAMPLE_RATE) for time in (start, end)
    )
    part = whole[first:last]
    if not len(part):
        raise NoAudio(f"{path} has {len(whole) / audio.SAMPLE_RATE:.2f} s: none at {start} s")
    return part


def content(part: tuple[Path, float | None, float | None]) -> str | None:
    """Return a hash of what is heard in a file from a start to an end; None for nothing."""
    path, start, end = part
    try:
        return audio.content(samples(path, start=start, end=end)).hex()
    except NoAudio:
        return None


@functools.lru_cache(maxsize=1)
def _decoded(path: Path) -> np.ndarray:
    """Decode a file of which several parts are taken in a row."""
    return audio.load_audio(path).samples


def write_segment(part: np.ndarray, path: Path) -> None:
    """Write the samples of a part as FLAC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        soundfile.write(temporary, part, audio.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
