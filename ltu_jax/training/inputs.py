"""What a run was computed from besides its config: base weights, tokenizer, records, their order.

Each checkpoint names it by hashes of content, so that a folder replaced under the same path is
noticed before a step is taken over it. Nothing is read for it that a start does not read anyway:
base weights are verified when they are opened, and a manifest holds the hash of every shard.
"""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.records.record_files import TAG_LABELS
from ltu_jax.core.distributed import is_main
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file
from ltu_jax.training.stage import Stage

INPUTS = "inputs"  # the key of a checkpoint's metadata
ALLOW = "checkpoint.allow_other_inputs"
_NAMES = {
    "llama": "the language model (config.weights.llama)",
    "whisper": "the Whisper (config.weights.whisper)",
    "tokenizer": "the tokenizer (in config.weights.llama)",
    "records": "the records (config.data.records)",
    "order": "the order of the data (rows and their pairs)",
}
_HEX = 12  # digits shown of a hash


def inputs_of(stage: Stage) -> dict[str, dict[str, str]]:
    """`{name: {"sha256": ..., "where": ...}}` of everything that a stage's steps follow from."""
    settings, bases = stage.settings, stage.bases
    found = {"whisper": _entry(bases.whisper.sha256, bases.whisper.path)}
    if bases.llama is not None:
        found["llama"] = _entry(bases.llama.sha256, bases.llama.path)
        folder = Path(bases.llama.tokenizer_dir)
        files = {file.name: sha256_file(file) for file in sorted(folder.glob("tokenizer.*"))}
        found["tokenizer"] = _entry(_digest(files), folder)
    records = Path(settings.data.records)
    found["records"] = _entry(_records_digest(stage), records)
    found["order"] = _entry(stage.pipeline.order_fingerprint(), records)
    return found


def _records_digest(stage: Stage) -> str:
    """Of the training split: every shard by the hash in the manifest, features, labels."""
    store, records = stage.pipeline.store, Path(stage.settings.data.records)
    shards = store.manifest["splits"][store.split]["shards"]
    told: dict[str, Any] = {
        "shards": [[shard["file"], shard["sha256"]] for shard in shards],
        "features": (store.manifest["features"] or {}).get("fingerprint"),
    }
    if stage.pipeline.labels:
        told["labels"] = sha256_file(records / TAG_LABELS)
    return _digest(told)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _entry(sha256: str, where: Path) -> dict[str, str]:
    return {"sha256": sha256, "where": str(where.resolve())}


def compare_inputs(
    metadata: Mapping[str, Any], now: Mapping[str, Mapping[str, str]], *, saved: Path, allow: bool
) -> dict[str, dict[str, str]]:
    """Require that a checkpoint is gone on from with what it was made with.

    Args:
        metadata: of the checkpoint. One of an earlier version names base weights only; stderr says
            what then cannot be checked.
        now: `inputs_of` the stage.
        saved: the checkpoint's folder.
        allow: accept what differs; stderr says what it is.

    Returns:
        What differs, `{name: {"before": ..., "now": ...}}`, for the log.

    Raises:
        UserError: something differs and `allow` is False; names all of it with both hashes.
    """
    before = {name: dict(entry) for name, entry in (metadata.get(INPUTS) or {}).items()}
    for name, entry in metadata.get("base", {}).items():
        where = str(entry.get("absolute_path") or entry.get("path"))
        before.setdefault(name, {"sha256": entry["sha256"], "where": where})
    unknown = [_NAMES[name] for name in now if name not in before]
    if unknown:
        _say(
            f"{saved} was written by an earlier version, which did not note all that it was made "
            f"with; not checked: {', '.join(unknown)}"
        )
    changed = {
        name: {"before": _shown(before[name]), "now": _shown(entry)}
        for name, entry in now.items()
        if name in before and before[name]["sha256"] != entry["sha256"]
    }
    if not changed:
        return {}
    told = "; ".join(
        f"{_NAMES[name]}: {values['before']} -> {values['now']}" for name, values in changed.items()
    )
    if not allow:
        raise UserError(
            f"{saved} was made with other inputs than this start has: {told}. Put back what was "
            "there, or begin anew in another --config.run_dir (--config.init_from takes over what "
            f"was learned), or go on with the new ones: --config.{ALLOW}=True"
        )
    _say(f"{saved} goes on with other inputs (config.{ALLOW}): {told}")
    return changed


def _shown(entry: Mapping[str, str]) -> str:
    return f"{entry['sha256'][:_HEX]} ({entry['where']})"


def _say(text: str) -> None:
    if is_main():
        print(text, file=sys.stderr, flush=True)
