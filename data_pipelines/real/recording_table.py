"""The table of real recordings: what each file is, who may use it, and on which side it stands.

`recordings.tsv` lists files of the packages of `packages.tsv`; no other file of a package is used.
Files that are cut from one recording share a cluster, and a cluster is never on both sides of a
split. Single notes of a SoundFont are rendered from its presets.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from data_pipelines.metadata import table_files
from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.real.sound_containers import SEPARATOR
from ltu_jax.core.errors import UserError

TABLE, PACKAGES = "recordings.tsv", "packages.tsv"
DEBIAN, PYPI = "debian", "pypi"
TRAIN, VALIDATION, TWIN = "train", "val", "train-dup-of-val"
FOLDS = 4
SPEECH, MUSIC = "Speech", "Music"
_EXPECTED = "the table of recordings that `python -m data_pipelines.real.fetch_recordings` writes"
_COLUMNS = (
    "clip", "package", "file", "label", "fine", "group", "seconds", "licence", "ships", "split",
    "fold", "cluster", "sha256", "yamnet", "gender", "text",
)  # fmt: skip
_PRESET = ".sf2" + SEPARATOR
# Names of files are wrong about these more often than YAMNet is.
_CHECKED = frozenset({"Laughter", "Clang", "Hammer", "Walk, footsteps"})
_CHECKED_PACKAGES = frozenset({"lincity-ng-data"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """One file of a package.

    Attributes:
        clip: unique name; that of the fetched file without its ending.
        package: name in `packages.tsv`.
        file: path in the package; "!" stands between a file and what is in it.
        label: class, by AudioSet's name wherever it has one.
        fine: a narrower class; that of `label` where there is none.
        group: one of 18 groups of classes; "" in none.
        seconds: length; None for a preset.
        licence: of this file, as its package tells.
        ships: whether weights that are given away may rest on it.
        split: `TRAIN`, `VALIDATION` (by package), or `TWIN`: of a recording that is there, too.
        fold: 0 to 3, by package.
        cluster: of the files of one recording.
        sha256: beginning of the file's digest; "" for a preset.
        confirmed: whether YAMNet has the label or a near one among its first five; None where it
            was not asked.
        gender: of a speaker, where the package tells.
        text: what is said.
        where: line of the table.
    """

    clip: str
    package: str
    file: str
    label: str
    fine: str
    group: str
    seconds: float | None
    licence: str
    ships: bool
    split: str
    fold: int
    cluster: str
    sha256: str
    confirmed: bool | None
    gender: str
    text: str
    where: str

    @property
    def preset(self) -> bool:
        """Whether it is a preset of a SoundFont, of which notes are rendered."""
        return _PRESET in self.file

    @property
    def trusted(self) -> bool:
        """Whether the label may be right: not where YAMNet, which knows the class, hears others."""
        doubted = self.label in _CHECKED or self.package in _CHECKED_PACKAGES
        return self.confirmed is not False or not doubted


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingPackage:
    """A package that holds recordings; `folder` is its place on a Debian mirror."""

    name: str
    registry: str
    version: str
    archive: str
    folder: str
    size: int
    sha256: str


def recording_packages() -> dict[str, RecordingPackage]:
    """Return the packages by name."""
    with resources.as_file(resources.files(__package__).joinpath(PACKAGES)) as path:
        rows = table_files.csv_rows(
            path,
            columns=("package", "registry", "version", "archive", "folder", "bytes", "sha256"),
            expected=PACKAGES,
            delimiter="\t",
        )
        return {
            row["package"]: RecordingPackage(
                name=row["package"],
                registry=row["registry"],
                version=row["version"],
                archive=row["archive"],
                folder=row["folder"],
                size=int(row["bytes"]),
                sha256=row["sha256"],
            )
            for _, row in rows
        }


def table_path() -> Path:
    """Return where the table lies that this version of the project uses."""
    return Path(str(resources.files(__package__).joinpath(TABLE)))


@functools.cache
def recordings() -> tuple[Recording, ...]:
    """Return all recordings, in the order of the table."""
    return tuple(read_recordings(table_path()))


def read_recordings(path: Path, problems: RecordProblems | None = None) -> list[Recording]:
    """Read a table of recordings.

    Args:
        path: a file of the form of `TABLE`.
        problems: takes rows that are broken; None raises for the first.

    Raises:
        UserError: no such file, or a column is missing.
    """
    found = []
    rows = table_files.csv_rows(
        path, columns=_COLUMNS, expected=_EXPECTED, delimiter="\t", problems=problems
    )
    collected = RecordProblems() if problems is None else problems
    for where, row in rows:
        with collected.record():
            found.append(_recording(row, where))
        if problems is None and collected.found:
            raise UserError(collected.found[0])
    return found


def _recording(row: Mapping[str, str], where: str) -> Recording:
    for name, allowed in (
        ("ships", ("yes", "no")),
        ("split", (TRAIN, VALIDATION, TWIN)),
        ("fold", tuple(map(str, range(FOLDS)))),
        ("yamnet", ("agrees", "differs", "")),
        ("gender", ("female", "male", "")),
    ):
        if row[name] not in allowed:
            raise UserError(
                f"{where}: {name} is {row[name]!r}: it should be one of {', '.join(allowed)}"
            )
    if not row["clip"] or not row["label"] or not row["licence"]:
        raise UserError(f"{where}: a recording needs a clip name, a label and a licence")
    try:
        seconds = float(row["seconds"]) if row["seconds"] else None
    except ValueError:
        raise UserError(f"{where}: seconds is {row['seconds']!r}: give a number") from None
    if seconds is None and _PRESET not in row["file"]:
        raise UserError(f"{where}: a recording needs its seconds")
    return Recording(
        clip=row["clip"],
        package=row["package"],
        file=row["file"],
        label=row["label"],
        fine=row["fine"] or row["label"],
        group=row["group"],
        seconds=seconds,
        licence=row["licence"],
        ships=row["ships"] == "yes",
        split=row["split"],
        fold=int(row["fold"]),
        # What has no number of its own shares its recording with nothing.
        cluster=row["cluster"] or row["clip"],
        sha256=row["sha256"],
        confirmed={"agrees": True, "differs": False, "": None}[row["yamnet"]],
        gender=row["gender"],
        text=row["text"],
        where=where,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sides:
    """What is learnt from and what is asked about.

    Attributes:
        train, held_out: recordings; no cluster is on both sides.
        unlearnt: groups that are held out and that nothing is left to learn from.
    """

    train: tuple[Recording, ...]
    held_out: tuple[Recording, ...]
    unlearnt: tuple[str, ...]


def validation_sides(given: Iterable[Recording]) -> Sides:
    """Return the recordings of the validation packages against the others, without their twins."""
    given = list(given)
    return _sides(
        [one for one in given if one.split == TRAIN],
        [one for one in given if one.split == VALIDATION],
    )


def fold_sides(given: Iterable[Recording], fold: int) -> Sides:
    """Return one fold of packages against the other three; a cluster of both is on neither side."""
    given = list(given)
    held = [one for one in given if one.fold == fold]
    rest = [one for one in given if one.fold != fold]
    both = {one.cluster for one in held} & {one.cluster for one in rest}
    return _sides(
        [one for one in rest if one.cluster not in both],
        [one for one in held if one.cluster not in both],
    )


def _sides(train: Sequence[Recording], held: Sequence[Recording]) -> Sides:
    both = {one.cluster for one in train} & {one.cluster for one in held}
    if both:
        raise UserError(
            f"cluster {min(both)} is on both sides of the split: mark its clips of the training "
            f"side {TWIN}"
        )
    learnt = {one.group for one in train}
    unlearnt = dict.fromkeys(one.group for one in held if one.group and one.group not in learnt)
    return Sides(train=tuple(train), held_out=tuple(held), unlearnt=tuple(unlearnt))


def digest(given: Iterable[Recording]) -> str:
    """Return a digest of what a folder of these recordings must hold."""
    lines = "\n".join(f"{one.clip}\t{one.file}\t{one.sha256}" for one in given)
    return hashlib.sha256(lines.encode()).hexdigest()
