"""What an export says about itself: our config, where the numbers come from, hashes.

Foreign formats have no word for some facts of a model: an official state dict knows neither LoRA's
alpha nor the heads of TLTR, a Whisper `.pt` not the config that it came with. The record says them,
and our importers read it:

    in a file   safetensors: the header's metadata; PyTorch's zip: one entry more. Other readers
                pass over both, and the record cannot get lost on the way or belong to another file.
    in a folder `ltu_jax_export.json`

A reader trusts neither: facts are checked against the tensors and against what a person says.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ltu_jax.core.files import read_json, write_json
from ltu_jax.weights.facts import FACTS
from ltu_jax.weights.files import safetensors_file
from ltu_jax.weights.tensors import WeightsError, damaged

KEY = "ltu_jax_export"  # of the header's metadata, and of the JSON object
FILE = "ltu_jax_export.json"
FORMAT = 1
_LARGEST = 4 << 20


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """One export.

    format: the value of `--to`.
    kind: of the weights that were exported, and `config` their config.
    sha256: the identity of those weights (see `store.Weights`).
    source: where those came from.
    base: of an export without its base: what that base is (`lineage.base_print`).
    facts: what the source said beside its numbers (`facts.FACTS`).
    """

    format: str
    kind: str
    config: Mapping[str, Any]
    sha256: str
    source: Mapping[str, Any]
    base: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            KEY: FORMAT,
            "format": self.format,
            "kind": self.kind,
            "config": dict(self.config),
            "sha256": self.sha256,
            "source": dict(self.source),
            "base": None if self.base is None else dict(self.base),
            "facts": dict(self.facts),
        }

    def text(self) -> str:
        """Return the JSON object in one line, for the inside of a file."""
        return json.dumps(self.to_json(), sort_keys=True)


def _from_json(content: Any, *, subject: str) -> ExportRecord:
    if not isinstance(content, dict) or content.get(KEY) != FORMAT:
        raise WeightsError(
            f"{subject}: its record of ltu_jax is not of format {FORMAT}; this version "
            "reads no other"
        )
    kinds = {
        "format": str,
        "kind": str,
        "config": dict,
        "sha256": str,
        "source": dict,
        "facts": dict,
    }
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise WeightsError(
                f"{subject}: the {key} of its record of ltu_jax is {content.get(key)!r}"
            )
    if not isinstance(content.get("base"), dict | None):
        raise WeightsError(f"{subject}: the base of its record of ltu_jax is {content['base']!r}")
    odd = set(content["facts"]) - set(FACTS)
    if odd:
        raise WeightsError(f"{subject}: its record of ltu_jax has unknown facts {sorted(odd)}")
    for key in ("source_config", "source_generation_config"):
        if not isinstance(content["facts"].get(key, {}), dict):
            raise WeightsError(f"{subject}: {key} is {content['facts'][key]!r}; expected an object")
    return ExportRecord(**{name: content.get(name) for name in (*kinds, "base")})


def read(path: Path) -> ExportRecord | None:
    """Return the record of an exported file or folder; None where there is none.

    Raises:
        WeightsError: one that is damaged or of a newer version.
    """
    if path.is_dir():
        return (
            _from_json(read_json(path / FILE), subject=str(path))
            if (path / FILE).is_file()
            else None
        )
    text = _inside(path)
    if text is None:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise WeightsError(f"{path}: its record of ltu_jax is no JSON") from None
    return _from_json(content, subject=str(path))


def _inside(path: Path) -> str | bytes | None:
    if path.suffix == ".safetensors":
        return safetensors_file.read_header(path)[1].get(KEY)
    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.rpartition("/")[2] == FILE and info.file_size <= _LARGEST:
                    return archive.read(info)
    except (zipfile.BadZipFile, RuntimeError, ValueError, EOFError) as error:  # damaged, encrypted
        raise damaged(path, f"its record of ltu_jax cannot be read ({error})") from None
    return None


def write_beside(folder: Path, record: ExportRecord) -> None:
    """Write the record of a folder."""
    write_json(folder / FILE, record.to_json())
