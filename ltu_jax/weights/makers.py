"""What imports and exports may replace: only what the same command made (`core/outputs.py`).

Without a marker, as versions before it left them, are known: weights directories by their
config.json, exports of LTU-AS and PEFT adapters by the settings of ours in them. A Hugging Face
directory of ours cannot be told from anybody's, nor can a state dict: those are not replaced.
"""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.core.outputs import Maker
from ltu_jax.weights import export_record

CERTIFICATE = "parity.json"
SUMS = "SHA256SUMS"  # of an exported folder, written when it is complete
_HF_FILES = ("config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json")
_HF_FILES += ("special_tokens_map.json", "generation.json", "generation_config.json")
_HF_FILES += ("added_tokens.json", "chat_template.jinja", "chat_template.json", export_record.FILE)


def imported(kind: str) -> Maker:
    """Return the maker of imports of one kind of weights."""
    return Maker(
        name=f"`python -m ltu_jax.convert --from` of {kind} weights",
        before=functools.partial(_weights_directory, kind=kind),
        later=(CERTIFICATE,),
    )


def exported(target: str, *, folder: bool) -> Maker:
    """Return the maker of exports to one format."""
    name = f"`python -m ltu_jax.convert --to {target}`"
    if not folder:
        return Maker(name=name, folder=False, before=functools.partial(_recorded, target=target))
    before = {"ltu-as": _official, "peft": _adapter}.get(target)
    later = (CERTIFICATE, SUMS)
    return Maker(name=name, later=later, **({} if before is None else {"before": before}))


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def _weights_directory(path: Path, *, kind: str) -> Collection[str] | None:
    header = _settings(path / "config.json")
    hashes = header.get("sha256")
    if "ltu_jax" not in header or header.get("kind") != kind or not isinstance(hashes, dict):
        return None
    return ("config.json", CERTIFICATE, *map(str, hashes))


def _official(path: Path) -> Collection[str] | None:
    ours = "ltu_as" in _settings(path / "config.json")
    return ("ltu_as.safetensors", *_HF_FILES) if ours else None


def _adapter(path: Path) -> Collection[str] | None:
    if "ltu_jax_peft" not in _settings(path / "ltu_as.json"):
        return None
    stems = ("adapter_model", "ltu_as_audio")
    return (
        "adapter_config.json",
        "ltu_as.json",
        export_record.FILE,
        *(f"{stem}.safetensors" for stem in stems),
    )


def _recorded(path: Path, *, target: str) -> Collection[str] | None:
    """Return () where a weight file says that it was exported to the format `target`."""
    try:
        record = export_record.read(path)
    except UserError:
        return None
    return () if record is not None and record.format == target else None
