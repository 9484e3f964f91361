"""From the name of an audio file, as a table or a user writes it, to the file on the disk.

An accented letter is one character or a letter and an accent: the same name, different bytes, and
copying between systems changes one to the other. Endings are written in capitals by some devices,
and left out in published tables.
"""

import functools
import os
import time
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from ltu_jax.preprocessing.formats.sound import AudioError

# Tried for a name without one; capitals make no difference.
ENDINGS = (
    ".flac", ".wav", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".webm", ".mka",
    ".mkv", ".wma", ".aif", ".aiff", ".au", ".caf", ".w64", ".sph", ".amr", ".3gp", ".mov",
)  # fmt: skip
_SETTLED = 2.0  # seconds after which a folder's date tells that it has not changed


class AmbiguousName(AudioError):
    """A name that two files could be meant by."""


def find_audio(path: str | Path, *, endings: Sequence[str] = ()) -> Path | None:
    """The file that `path` names; None where there is none.

    The file of exactly this name, else one whose name, or a folder's, is spelt in the other normal
    form of Unicode or whose ending is in other capitals, or one with one of `endings` added.

    Raises:
        AmbiguousName: several files fit, none of exactly this name.
    """
    path = Path(path)
    try:
        if path.is_file():
            return path
        folder = _folder(path.parent)
        if folder is None:
            return None
        wanted = [_key(path.name), *(_normal(path.name) + ending for ending in endings)]
        names = _names(folder)
        files = [folder / name for key in dict.fromkeys(wanted) for name in names.get(key, ())]
        files = [file for file in files if file.is_file()]
    except AmbiguousName:
        raise
    except (OSError, ValueError):  # a name that no file system takes
        return None
    if len(files) > 1:
        raise AmbiguousName(
            f"{path}: {' and '.join(sorted(repr(file.name) for file in files))} in {folder} could "
            "be meant; write the name of one of them in full, or move the others away"
        )
    return files[0] if files else None


def _folder(path: Path) -> Path | None:
    if path.is_dir() or path.parent == path:
        return path if path.is_dir() else None
    parent = _folder(path.parent)
    if parent is None:
        return None
    names = _names(parent).get(_key(path.name), ())
    folders = [parent / name for name in names if (parent / name).is_dir()]
    if len(folders) > 1:
        raise AmbiguousName(
            f"{path}: {' and '.join(sorted(repr(each.name) for each in folders))} in {parent} are "
            "spelt alike; write one of them exactly, or rename the other"
        )
    return folders[0] if folders else None


def _names(folder: Path) -> dict[str, tuple[str, ...]]:
    """Key -> names in a folder; kept for folders that have settled, which may hold millions."""
    changed = os.stat(folder).st_mtime_ns
    listed = _listed(os.fspath(folder), changed)
    if time.time_ns() - changed < _SETTLED * 1e9:
        _listed.cache_clear()
    return listed


@functools.lru_cache(maxsize=64)
def _listed(folder: str, changed: int) -> dict[str, tuple[str, ...]]:
    del changed
    by_key: dict[str, tuple[str, ...]] = {}
    for name in os.listdir(folder):
        key = _key(name)
        by_key[key] = (*by_key.get(key, ()), name)
    return by_key


def _key(name: str) -> str:
    stem, dot, ending = _normal(name).rpartition(".")
    return stem + dot + (ending.lower() if dot + ending.lower() in ENDINGS else ending)


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def stem_key(name: str) -> str:
    """Return what the spellings of a file name share: its normal form, an ending of audio cut."""
    stem, dot, ending = _normal(name).rpartition(".")
    return stem if dot + ending.lower() in ENDINGS else _normal(name)
