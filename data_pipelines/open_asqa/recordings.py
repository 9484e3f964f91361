"""Names of recordings that all data sets share, to find the same one in several of them.

youtube:ID    freesound:NUMBER    reader:NUMBER of LibriSpeech    speaker:NAME of VoxCeleb
clotho:FILE   fma:NUMBER          iemocap:SESSION                 name:STEM of any audio file
wavcaps:NUMBER of a sound of Freesound, in WavCaps alone
"""

import re

from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.preprocessing.names import stem_key

_YOUTUBE = re.compile(r"Y?([A-Za-z0-9_-]{11})(?:_\d+(?:\.\d+)?){0,2}")


def names_in(text: str) -> list[str]:
    """Return what a file name may name: `Yid.wav`, `id_30`, `id_30000`, `1234`, anything else.

    Folders before it are left out.
    """
    stem = stem_key(text.strip().replace("\\", "/").rpartition("/")[2])
    names = [f"name:{stem}"]
    if match := _YOUTUBE.fullmatch(stem):
        names.append(f"youtube:{match[1]}")
    if stem.isdecimal():
        names.append(f"freesound:{stem}")
    return names


def names_of(clip: SourceClip) -> list[str]:
    """Return the names by which a clip of a source is looked for."""
    stems = (stem.rpartition("/")[2] for stem in (*clip.files, clip.clip_id))
    return [*clip.recordings, *(f"name:{stem_key(stem)}" for stem in stems)]
