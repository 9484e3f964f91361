"""Decide whether training may write into a run folder, and what it goes on from there.

It writes into new folders, its own runs, and folders that hold none of its files. Each checkpoint
names base weights, tokenizer, records and their order by hashes of content, so that a folder
replaced under the same path is noticed before a step is taken over it. Nothing is read for it that
a start does not read anyway: base weights are verified when they are opened, and a manifest holds
the hash of every shard.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.records.record_files import TAG_LABELS
from ltu_jax import checkpoint
from ltu_jax.core import outputs
from ltu_jax.core.distributed import from_main, is_main, tell, together
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import sha256_file, sha256_json
from ltu_jax.core.lock import RunLock
from ltu_jax.core.parts import read_parts
from ltu_jax.core.paths import FSTAB, as_path, is_remote, unmounted
from ltu_jax.training.stage import Stage, leaves
from ltu_jax.training.stage_config import StageSettings
from ltu_jax.weights import places
from ltu_jax.weights.fingerprint import KEY, Fingerprint

_LOG = "log.jsonl"
_FILES = (
    checkpoint.FOLDER,
    _LOG,
    "log-*.jsonl",
    "summary.json",
    "progress.json",
    "bad_batches",
    "bad_records*.jsonl",
)


def claim_run(settings: StageSettings) -> None:
    """Refuse, before any work, a run folder whose files no training has written.

    Raises:
        UserError: names them; or the folder is that of the records or of base weights.
    """
    weights = settings.weights
    reads = (settings.data.records, weights.llama, weights.whisper)
    outputs.join(
        settings.run_dir,
        _MAKER,
        names=_FILES,
        inputs=[path for path in reads if path],
        option="config.run_dir",
    )


def require_run(settings: StageSettings) -> None:
    """Refuse, before any work, a run folder whose disk is known to be missing.

    Each process asks for itself: a mount may be lost on one host.

    Raises:
        UserError: `checkpoint.must_exist`, and there is no checkpoint; or the folder is below a
            place of /etc/fstab that is not mounted.
    """
    run_dir = as_path(settings.run_dir)
    if (place := unmounted(run_dir)) is not None:
        raise UserError(
            f"config.run_dir {run_dir} is below {place}, where nothing is mounted now, though "
            f"{FSTAB} says what belongs there: mount it (`mount {place}`), or choose another "
            "--config.run_dir"
        )
    if settings.checkpoint.must_exist and not checkpoint.steps_in(run_dir):
        raise _no_run(run_dir)


def _no_run(run_dir: Path) -> UserError:
    return UserError(
        f"{run_dir} holds no checkpoint, and config.{MUST_EXIST} says that one was there: mount "
        "the disk or bucket that has the run, or correct --config.run_dir; to begin anew, leave "
        f"--config.{MUST_EXIST} out"
    )


def _run_before(path: Path) -> tuple[str, ...] | None:
    """Recognise a run by its log, or by a checkpoint, also one that was not finished."""
    logs = read_parts(path / _LOG) if is_remote(path) else ()
    if any(b'"step": ' in content for _, content in logs):
        return ()
    if outputs.text_with('"step": ')(path / _LOG) is not None:
        return ()
    folder = path / checkpoint.FOLDER
    entries = folder.iterdir() if folder.is_dir() else ()
    ours = (entry.name.startswith(checkpoint.UNFINISHED) or _sealed(entry) for entry in entries)
    return () if any(ours) else None


def _sealed(folder: Path) -> bool:
    listing = outputs.json_with("ltu_jax", "kind", "parameters")
    return listing(folder / checkpoint.METADATA) is not None


_MAKER = outputs.Maker(name="`python -m ltu_jax.train`", before=_run_before)


@contextlib.contextmanager
def locked(run_dir: Path, *, job: str) -> Iterator[checkpoint.Turn]:
    """Hold the lock of a run folder, for all processes of this run by the main one.

    Raises:
        LockedError: another run holds it.
    """
    lock = RunLock(run_dir, job=job)
    with contextlib.ExitStack() as held:
        with together(f"{job} cannot start"):
            if is_main():
                held.enter_context(lock.hold())
        name = from_main(lock.token)[:8]
        if is_main():
            yield checkpoint.Turn(check=lock.check, poll=lock.poll, name=name)
        else:
            yield checkpoint.Turn(name=name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """The checkpoint that a run goes on from, or none; `changed` are other inputs, accepted."""

    step: int | None
    folder: Path | None
    metadata: Mapping[str, Any]
    changed: Mapping[str, Any]

    def clip_fingerprint(self, stage: Stage) -> Fingerprint | None:
        """Return what the encoder made of the fixed clip, if it was this encoder, in this dtype."""
        if self.metadata.get("feature_fingerprint") != stage.bases.fingerprint:
            return None
        return Fingerprint.from_json(self.metadata.get(KEY))


def find_saved(
    stage: Stage, *, resolved: Mapping[str, Any], inputs: Mapping[str, Mapping[str, str]]
) -> Saved:
    """Find the newest good checkpoint of a stage's run folder; require this config and inputs.

    Raises:
        UserError: it is of another config, of other inputs, or of more steps than the run has; or
            there is none and one must exist.
    """
    settings = stage.settings
    run_dir = as_path(settings.run_dir)
    newest = checkpoint.newest_good(run_dir)
    if newest is None and settings.checkpoint.must_exist:
        raise _no_run(run_dir)
    if newest is None:
        return Saved(step=None, folder=None, metadata={}, changed={})
    folder = run_dir / checkpoint.FOLDER / str(newest)
    with together(f"{settings.stage} cannot go on"):
        _, metadata = checkpoint.read_metadata(folder, verify=False)
        refuse_other_config(metadata["config"], resolved, run_dir=run_dir)
        changed = compare_inputs(
            metadata,
            inputs,
            saved=folder,
            allow=settings.checkpoint.allow_other_inputs,
        )
        if newest > stage.steps:
            raise UserError(
                f"{folder} is of step {newest}, but the run has {stage.steps} steps now "
                f"({'config.steps' if settings.steps else 'config.data.epochs of these records'}); "
                "ask for more steps, or choose another --config.run_dir (--config.init_from takes "
                "over what was learned)"
            )
    return Saved(step=newest, folder=folder, metadata=metadata, changed=changed)


def refuse_other_config(saved: Mapping[str, Any], now: Mapping[str, Any], *, run_dir: Path) -> None:
    """Require that a run goes on with the config it began with, logging and layout apart.

    Raises:
        UserError: names the keys that differ, with both values.
    """
    free = ("run_dir", "mesh.", "log.", "checkpoint.", "compute.compilation_cache", "weights.",
            "data.workers", "data.records", "data.max_bad_share", "init_from",
            # how the same numbers are computed, up to rounding
            "compute.remat", "compute.attention", "compute.loss_chunk",
            # what is watched, not what is computed
            "guards.skips_in_a_row", "guards.bad_batches", "guards.compare_every",
            "guards.stall_")  # fmt: skip
    before, after = leaves(saved), leaves(now)
    for values in (before, after):  # one name is as good as a list of one
        if isinstance(values.get("data.tasks"), str):
            values["data.tasks"] = [values["data.tasks"]]
    differing = [
        f"{key}: {before.get(key, _ABSENT)!r} -> {after.get(key, _ABSENT)!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not key.startswith(free)
    ]
    if differing:
        raise UserError(
            f"{run_dir} holds a run of another config ({'; '.join(differing[:5])}); choose another "
            "--config.run_dir, or delete that folder to begin again"
        )


_ABSENT = "(no such key)"
INPUTS = "inputs"  # the key of a checkpoint's metadata
ALLOW = "checkpoint.allow_other_inputs"
MUST_EXIST = "checkpoint.must_exist"
_NAMES = {
    "llama": "the language model (config.weights.llama)",
    "whisper": "the Whisper (config.weights.whisper)",
    "tokenizer": "the tokenizer (in config.weights.llama)",
    "records": "the records (config.data.records)",
    "order": "the order of the data (rows and their pairs)",
}
_HEX = 12  # digits shown of a hash


def inputs_of(stage: Stage) -> dict[str, dict[str, str]]:
    """Return `{name: {"sha256": ..., "where": ...}}` of all that a stage's steps follow from."""
    settings, bases = stage.settings, stage.bases
    inputs = {"whisper": _entry(bases.whisper.sha256, bases.whisper.named)}
    if bases.llama is not None:
        inputs["llama"] = _entry(bases.llama.sha256, bases.llama.named)
        folder = Path(bases.llama.tokenizer_dir)
        files = {file.name: sha256_file(file) for file in sorted(folder.glob("tokenizer.*"))}
        inputs["tokenizer"] = _entry(sha256_json(files), bases.llama.address or folder)
    records = as_path(settings.data.records)
    inputs["records"] = _entry(_records_digest(stage), records)
    inputs["order"] = _entry(stage.pipeline.order_fingerprint(), records)
    return inputs


def _records_digest(stage: Stage) -> str:
    """Hash the training split: every shard by its hash in the manifest, features, labels."""
    store, records = stage.pipeline.store, as_path(stage.settings.data.records)
    shards = store.manifest["splits"][store.split]["shards"]
    told: dict[str, Any] = {
        "shards": [[shard["file"], shard["sha256"]] for shard in shards],
        "features": (store.manifest["features"] or {}).get("fingerprint"),
    }
    if stage.pipeline.labels:
        told["labels"] = sha256_file(records / TAG_LABELS)
    if stage.settings.data.teacher:
        teacher = as_path(stage.settings.data.teacher)
        told["teacher"] = [sha256_file(teacher), stage.settings.data.teacher_weight]
    return sha256_json(told)


def _entry(sha256: str, where: str | Path) -> dict[str, str]:
    return {"sha256": sha256, "where": places.lasting(where)}


def compare_inputs(
    metadata: Mapping[str, Any], now: Mapping[str, Mapping[str, str]], *, saved: Path, allow: bool
) -> dict[str, dict[str, str]]:
    """Require that a checkpoint is gone on from with what it was made with.

    Args:
        metadata: of the checkpoint.
        now: `inputs_of` the stage.
        saved: the checkpoint's folder.
        allow: accept what differs; stderr says what it is.

    Returns:
        What differs, `{name: {"before": ..., "now": ...}}`, for the log.

    Raises:
        UserError: something differs and `allow` is False, with both hashes; or the checkpoint
            does not name its inputs.
    """
    before = metadata.get(INPUTS) or {}
    unknown = [_NAMES[name] for name in now if name not in before]
    if unknown:
        raise UserError(
            f"{saved} does not name all that it was made with ({', '.join(unknown)}): a version "
            "before the first release wrote it; begin anew in another --config.run_dir "
            "(--config.init_from takes over what was learned)"
        )
    changed = {
        name: {"before": _shown(before[name]), "now": _shown(entry)}
        for name, entry in now.items()
        if before[name]["sha256"] != entry["sha256"]
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
    tell(f"{saved} goes on with other inputs (config.{ALLOW}): {told}")
    return changed


def _shown(entry: Mapping[str, str]) -> str:
    return f"{entry['sha256'][:_HEX]} ({entry['where']})"
