"""Read checkpoints: the adapter as numpy arrays, or the whole state onto a mesh."""

import dataclasses
import os
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from ltu_jax.checkpoint.format import State, check_sizes, read_metadata
from ltu_jax.checkpoint.integrity import CheckpointError
from ltu_jax.core.trees import Params

S = TypeVar("S", bound=State)


def load_adapter(path: str | os.PathLike, *, verify: bool = True) -> tuple[dict[str, Any], Params]:
    """Read metadata and adapter parameters (numpy) of a checkpoint, or of a run's newest."""
    folder, metadata = read_metadata(path, verify=verify)
    as_numpy = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in metadata["parameters"]}
    # A checkpointer would wait for the other processes, which may have met an error before.
    reader = ocp.PyTreeCheckpointHandler()
    try:
        arguments = ocp.args.PyTreeRestore(restore_args=as_numpy)
        params = reader.restore(folder / "adapter", args=arguments)
    finally:
        reader.close()
    return metadata, {path: np.asarray(leaf) for path, leaf in params.items()}


def restore(
    path: str | os.PathLike, *, like: S, shardings: S, verify: bool = True
) -> tuple[S, dict[str, Any]]:
    """Read the state saved at `path`, and its metadata.

    Args:
        path: a checkpoint, or a run for its newest.
        like: a state of the wanted shapes, which its parameters must have in the checkpoint too.
        shardings: where each array of it is to lie.
        verify: whether to compare every file with its hash.

    Raises:
        CheckpointError: the checkpoint has other parameters or other sizes than `like`.
    """
    folder, metadata = read_metadata(path, verify=verify)
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
        shardings,
    )
    saved = _restore(folder / "optimizer", {"opt_state": abstract.opt_state, "step": abstract.step})
    wanted = dict(abstract.trainable)
    # Orbax restores whole trees: frozen adapter leaves are read and dropped.
    frozen = {
        name: jax.ShapeDtypeStruct(tuple(shape), np.float32, sharding=abstract.step.sharding)
        for name, shape in metadata["parameters"].items()
        if name not in wanted
    }
    adapter = _restore(folder / "adapter", {**wanted, **frozen})
    trainable = {name: adapter[name] for name in wanted}
    return dataclasses.replace(like, trainable=trainable, **saved), metadata


def _restore(path: Path, item: Any) -> Any:
    arguments = ocp.checkpoint_utils.construct_restore_args(item)
    with ocp.PyTreeCheckpointer() as reader:
        return reader.restore(path, args=ocp.args.PyTreeRestore(item=item, restore_args=arguments))
