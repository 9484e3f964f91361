"""Checkpoints that describe themselves: adapter, optimiser state, and one metadata.json.

    RUN/checkpoints/<step>/adapter/    Orbax: all adapter parameters, trained in this stage or not
                           optimizer/  Orbax: optimiser state and step
                           metadata.json  model, config, base weights by path and hash, file hashes

Everything is written under a temporary name and renamed as the last act, so a folder with a
number for a name is complete. Orbax alone does not notice a flipped bit in array data; the SHA-256
of each file in metadata.json does.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from ltu_jax.core.distributed import barrier, is_main
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file, write_json
from ltu_jax.core.trees import Params, shorten
from ltu_jax.training.state import TrainState, state_shardings

FORMAT = 1
FOLDER = "checkpoints"
METADATA = "metadata.json"
KINDS = ("ltu-as-checkpoint", "tagger-checkpoint")


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or of another model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """How often to save (in steps; 0 = only at the end) and how many checkpoints to keep."""

    every: int
    keep: int


def save(
    run_dir: str | os.PathLike,
    *,
    state: TrainState,
    adapter: Params,
    metadata: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write RUN/checkpoints/<step>, then delete all but the newest `keep`; returns its folder.

    `metadata` is what the caller knows (kind, stage, model, base, config, ...); format, step,
    parameter shapes and file hashes are added here. All processes must call it.
    """
    optimizer = {"opt_state": state.opt_state, "step": state.step}
    trees = {"adapter": dict(adapter), "optimizer": optimizer}
    return _write(run_dir, step=int(state.step), trees=trees, metadata=metadata, keep=keep)


def save_adapter(
    run_dir: str | os.PathLike, *, adapter: Params, metadata: Mapping[str, Any]
) -> Path:
    """Write RUN/checkpoints/0 without optimiser state: a model to start from, not to resume."""
    return _write(run_dir, step=0, trees={"adapter": dict(adapter)}, metadata=metadata, keep=1)


def _write(
    run_dir: str | os.PathLike,
    *,
    step: int,
    trees: Mapping[str, Any],
    metadata: Mapping[str, Any],
    keep: int,
) -> Path:
    folder = Path(run_dir).resolve() / FOLDER
    final, temporary = folder / str(step), folder / f".tmp-{step}"
    if is_main():
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    barrier(f"checkpoint-{step}-open")
    with ocp.PyTreeCheckpointer() as writer:
        for name, tree in trees.items():
            writer.save(temporary / name, tree)
    barrier(f"checkpoint-{step}-written")
    if is_main():
        shapes = {path: list(leaf.shape) for path, leaf in sorted(trees["adapter"].items())}
        described = {
            **metadata,
            "ltu_jax": FORMAT,
            "step": step,
            "parameters": shapes,
            "files": _hashes(temporary),
        }
        write_json(temporary / METADATA, described)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        for old in sorted(steps_in(run_dir))[:-keep]:
            shutil.rmtree(folder / str(old))
    barrier(f"checkpoint-{step}-done")
    return final


def steps_in(run_dir: str | os.PathLike) -> list[int]:
    """Steps of the complete checkpoints of a run, ascending."""
    folder = Path(run_dir) / FOLDER
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if (entry / METADATA).is_file()]
    return sorted(int(entry.name) for entry in found if entry.name.isdigit())


def resolve(path: str | os.PathLike) -> Path:
    """The checkpoint folder that `path` means: itself, or the newest one of a run.

    Raises:
        CheckpointError: neither; the message says what was looked for.
    """
    path = Path(path).absolute()  # as Orbax demands
    if (path / METADATA).is_file():
        return path
    folder = path if path.name == FOLDER else path / FOLDER
    steps = steps_in(folder.parent)
    if not steps:
        state = "has no" if path.exists() else "does not exist, so there is no"
        raise CheckpointError(
            f"{path} {state} {METADATA} and no {FOLDER}/<step>/{METADATA}: give a run folder or "
            "one of its checkpoints (runs are made by `python -m ltu_jax.train`)"
        )
    return folder / str(steps[-1])


def read_metadata(path: str | os.PathLike, *, verify: bool = True) -> tuple[Path, dict[str, Any]]:
    """The checkpoint folder and its metadata; `verify` compares every file with its hash.

    Raises:
        CheckpointError: not a checkpoint, written by another format, or damaged.
    """
    folder = resolve(path)
    metadata = read_json(folder / METADATA)
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{folder / METADATA} is not a JSON object")
    if metadata.get("ltu_jax") != FORMAT or metadata.get("kind") not in KINDS:
        raise CheckpointError(
            f"{folder / METADATA}: format {metadata.get('ltu_jax')!r} of kind "
            f"{metadata.get('kind')!r}; this version reads format {FORMAT} of {', '.join(KINDS)}"
        )
    for key, kind in (("parameters", dict), ("files", dict)):
        if not isinstance(metadata.get(key), kind):
            raise CheckpointError(f"{folder / METADATA} is damaged: it has no {key}")
    if not (folder / "adapter").is_dir():
        raise CheckpointError(f"{folder} is damaged: its folder adapter is missing")
    if verify:
        present = _hashes(folder)
        wrong = {name for name, digest in metadata["files"].items() if present.get(name) != digest}
        if wrong:
            raise CheckpointError(
                f"{folder} is damaged: {len(wrong)} files missing or changed since they were "
                f"saved: {shorten(wrong)}; delete this folder to go on from the one before it"
            )
    return folder, metadata


def identity(metadata: Mapping[str, Any]) -> str:
    """Hex SHA-256 that names a checkpoint's numbers: its files' hashes and its bases'."""
    bases = {name: entry["sha256"] for name, entry in metadata["base"].items()}
    text = json.dumps([metadata["files"], bases], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load_adapter(path: str | os.PathLike, *, verify: bool = True) -> tuple[dict[str, Any], Params]:
    """Metadata and the adapter parameters as numpy arrays, of a checkpoint or of a run's newest."""
    folder, metadata = read_metadata(path, verify=verify)
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in metadata["parameters"]}
    with ocp.PyTreeCheckpointer() as reader:
        params = reader.restore(folder / "adapter", restore_args=as_numpy)
    return metadata, {path: np.asarray(leaf) for path, leaf in params.items()}


def restore(
    path: str | os.PathLike, *, like: TrainState, mesh: jax.sharding.Mesh
) -> tuple[TrainState, dict[str, Any]]:
    """The state saved at `path`, shaped and laid out as `like`, and the metadata.

    Raises:
        CheckpointError: the checkpoint has other parameters or other sizes than `like`.
    """
    folder, metadata = read_metadata(path)
    check_sizes(metadata["parameters"], like.trainable, where=folder)
    if not (folder / "optimizer").is_dir():
        raise CheckpointError(
            f"{folder} was converted and has no optimiser state, so it cannot be resumed; start "
            f"from it in a run of its own: --config.init_from={folder.parent.parent} "
            "--config.run_dir=NEW"
        )
    abstract = jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        like,
        state_shardings(like, mesh=mesh),
    )
    everything = _restore(
        folder / "optimizer", {"opt_state": abstract.opt_state, "step": abstract.step}
    )
    wanted = dict(abstract.trainable)
    # Orbax restores whole trees: frozen adapter leaves are read and dropped.
    frozen = {
        name: jax.ShapeDtypeStruct(tuple(shape), np.float32, sharding=abstract.step.sharding)
        for name, shape in metadata["parameters"].items()
        if name not in wanted
    }
    adapter = _restore(folder / "adapter", {**wanted, **frozen})
    trainable = {name: adapter[name] for name in wanted}
    state = TrainState(
        step=everything["step"], trainable=trainable, opt_state=everything["opt_state"]
    )
    return state, metadata


def check_sizes(
    saved: Mapping[str, list[int]], expected: Mapping[str, Any], *, where: str | os.PathLike
) -> None:
    """Compare saved shapes with those of `expected`, whose paths must all be there.

    Raises:
        CheckpointError: names missing and differing parameters with both shapes.
    """
    missing = [path for path in expected if path not in saved]
    if missing:
        raise CheckpointError(
            f"{where} lacks {len(missing)} parameters of this model: {shorten(missing)}; "
            "it is of another stage or of another model config"
        )
    differing = [
        f"{path} is {tuple(saved[path])} there and {tuple(leaf.shape)} here"
        for path, leaf in expected.items()
        if tuple(saved[path]) != tuple(leaf.shape)
    ]
    if differing:
        raise CheckpointError(
            f"{where} is of another size: {shorten(differing)}; "
            "use the config it was trained with (its metadata.json has it) or another checkpoint"
        )


def _restore(path: Path, item: Any) -> Any:
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(path, args=ocp.args.PyTreeRestore(item=item, restore_args=arguments))


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != METADATA)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(files)}
