"""From an audio_id to its file: as it stands, with its beginning rewritten, or by its name.

The published JSON has absolute audio_ids of its authors' machines. A path that is not there is
tried with the rewriting rules (OLD=NEW, the longest OLD that fits), then its file name is looked up
in the index of the audio folder, where the candidate that shares most of the path's end is taken.
A relative audio_id says where the file lies below the audio folder; its name is not looked up.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.records import schema
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.files import inside
from ltu_jax.preprocessing.names import ENDINGS, AmbiguousName, find_audio

AS_IS, REWRITTEN, BY_INDEX, MISSING = WAYS = ("as is", "rewritten", "by index", "missing")
_EXAMPLES = 3
_CANDIDATES = 4  # in a message


class AudioGone(schema.RecordError):
    """The audio that a row names is missing or not audio."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rewrite:
    """A rule: an audio_id that begins with the folder `old` begins with `new` instead."""

    old: str
    new: str

    @classmethod
    def parse(cls, text: str) -> "Rewrite":
        """Read "OLD=NEW"; raises `UserError` for anything else."""
        old, equals, new = text.partition("=")
        if not equals or not old.strip("/") or not new:
            raise UserError(
                f"--rewrite {text!r} is no rule; give OLD=NEW, the beginning of audio_ids and what "
                "stands in its place, as in --rewrite /data/sls/audioset=/mnt/audioset"
            )
        return cls(old=old.rstrip("/"), new=new.rstrip("/") or "/")

    def apply(self, audio_id: str) -> str | None:
        """Return the rewritten audio_id; None where the rule does not fit."""
        rest = audio_id.removeprefix(self.old)
        fits = audio_id.startswith(self.old) and (not rest or rest.startswith("/"))
        return self.new.rstrip("/") + rest if fits else None


class AudioFinder:
    """Finds the files of audio_ids, and counts how."""

    def __init__(
        self,
        root: Path,
        *,
        rewrites: Sequence[Rewrite] = (),
        index: Callable[[], FileIndex] | None = None,
    ):
        """Take where to look.

        Args:
            root: audio folder.
            rewrites: rules; of those that fit the longest is taken.
            index: opens the index of the folder when it is first needed; None for none.
        """
        self._root = Path(root)
        self._rewrites = sorted(rewrites, key=lambda rule: -len(rule.old))
        self._open, self._index = index, None
        self._counts: dict[str, Counter[str]] = {}
        self._examples: dict[str, list[list[str]]] = {way: [] for way in WAYS}

    def find(self, audio_id: str, *, dataset: str, where: str) -> Path:
        """Find the file of an audio_id, in either normal form, with or without its ending.

        Raises:
            RecordError: a name that no file can have.
            AudioGone: there is none, or several could be meant; the message names the places.
        """
        counts = self._counts.setdefault(dataset, Counter())
        try:
            file, way = self._look(audio_id, where=f"{where}: field 'audio_id'")
        except schema.RecordError:
            counts[MISSING] += 1
            self._note(MISSING, audio_id, "")
            raise
        counts[way] += 1
        self._note(way, audio_id, str(file))
        return file

    def _note(self, way: str, *example: str) -> None:
        if len(self._examples[way]) < _EXAMPLES:
            self._examples[way].append(list(example))

    def _look(self, audio_id: str, *, where: str) -> tuple[Path, str]:
        place = inside(self._root, audio_id, where=where, owned=True, error=schema.RecordError)
        if file := _at(place, where=where):
            return file, AS_IS
        tried = [str(place)]
        rewritten = (rule.apply(audio_id) for rule in self._rewrites)
        if path := next((path for path in rewritten if path is not None), None):
            place = inside(self._root, path, where=where, owned=True, error=schema.RecordError)
            if file := _at(place, where=where):
                return file, REWRITTEN
            tried.append(str(place))
        if not audio_id.startswith("/"):
            raise AudioGone(
                f"{where} is {audio_id!r}: no file {' or '.join(tried)} "
                f"(also tried {', '.join(ENDINGS)}); give the path relative to the audio folder"
            )
        if self._open is not None:
            return self._by_name(audio_id, where=where), BY_INDEX
        raise AudioGone(
            f"{where} is {audio_id!r}: no file {' or '.join(tried)}; give --rewrite OLD=NEW"
        )

    def _by_name(self, audio_id: str, *, where: str) -> Path:
        """Look a file up by name; of several take the one that shares most of the path's end."""
        if self._index is None:
            self._index = self._open()
        path = PurePosixPath(audio_id)
        files = self._index.find(path.name)
        if not files:
            raise AudioGone(
                f"{where} is {audio_id!r}: there is no such file, and none named {path.name!r} "
                f"below {self._root}; give --rewrite OLD=NEW or another --audio-root"
            )
        shared = [_shared_end(path.parent, file.parent) for file in files]
        best = [file for file, length in zip(files, shared, strict=True) if length == max(shared)]
        if len(best) > 1:
            names = shorten(map(str, best), most=_CANDIDATES, separator=", ")
            raise AudioGone(
                f"{where} is {audio_id!r}: {len(best)} files could be meant: {names}; "
                "give --rewrite OLD=NEW"
            )
        return best[0]

    def report(self) -> dict[str, Any]:
        """Return how the audio of each dataset was found, in clips, with examples."""
        counts = {
            name: {way: of_dataset[way] for way in WAYS}
            for name, of_dataset in sorted(self._counts.items())
        }
        total = {way: sum(of_dataset[way] for of_dataset in counts.values()) for way in WAYS}
        return {
            "audio_root": str(self._root),
            "rewrites": [f"{rule.old}={rule.new}" for rule in self._rewrites],
            "indexed_files": None if self._index is None else len(self._index),
            "clips": total,
            "datasets": counts,
            "examples": self._examples,
        }


def table(report: Mapping[str, Any]) -> str:
    """Write the counts of a report as a table for the terminal."""
    rows = [*report["datasets"].items(), ("all", report["clips"])]
    wide = max(len("audio found"), *(len(name) for name, _ in rows)) + 1
    lines = [f"{'audio found':<{wide}}" + "".join(f"{way:>11}" for way in WAYS)]
    lines += [f"{name:<{wide}}" + "".join(f"{row[way]:>11}" for way in WAYS) for name, row in rows]
    return "\n".join(lines)


def _at(place: Path, *, where: str) -> Path | None:
    try:
        return find_audio(place, endings=ENDINGS)
    except AmbiguousName as error:
        raise AudioGone(f"{where}: {error}") from error


def _shared_end(first: PurePosixPath, other: Path) -> int:
    """Count the folders that two paths share at their ends."""
    shared = 0
    for mine, its in zip(reversed(first.parts), reversed(other.parts), strict=False):
        if mine != its:
            break
        shared += 1
    return shared
