"""A model that ships: adapter, TLTR and projection in a small folder, over bases to be fetched.

DIR/config.json         header of a weights directory, of kind "ltu-as-adapter"
    params.safetensors  every parameter outside the base language model, bfloat16
    run.json            metadata as of a checkpoint; each base by its hash and its packages

It opens like a checkpoint: `weights.open` joins it with its base. What is in the package itself, in
ltu_jax/pretrained, is the model that commands take where no --checkpoint is given.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.files import read_json
from ltu_jax.core.outputs import Maker
from ltu_jax.weights import store
from ltu_jax.weights.pinned_weights import PINNED, PinnedWeights
from ltu_jax.weights.store import ADAPTER, Weights
from ltu_jax.weights.tensors import WeightsError

RUN = "run.json"
SHIPPED = Path(__file__).resolve().parent.parent / "pretrained"


def is_adapter_folder(path: str | os.PathLike) -> bool:
    """Tell whether a folder is one of these."""
    return store.is_weights_dir(path) and store.read_header(path)["kind"] == ADAPTER


def shipped(given: str | os.PathLike | None = None, *, option: str = "checkpoint") -> Path:
    """Return what a person gave, or else the model of this package.

    Raises:
        UserError: nothing was given, and this version of the package has no model.
    """
    if given is not None:
        return given
    if not (SHIPPED / store.CONFIG).is_file():
        raise UserError(
            f"this version of ltu_jax comes without a trained model: give one with {spell(option)} "
            "(a run, a checkpoint or a weights directory); in a checkout of the project, `make "
            "demo` trains a small one to runs/demo/stage3"
        )
    return SHIPPED


def write(
    out: str | os.PathLike,
    *,
    adapter: Mapping[str, Any],
    metadata: Mapping[str, Any],
    maker: Maker,
    finish: Callable[[Path], None],
) -> str:
    """Write a folder; it appears only when it is complete.

    Args:
        out: the folder to make.
        adapter: flat path -> array or lazy tensor, as they shall be stored.
        metadata: of the checkpoint; each entry of "base" says its packages (`pinned_weights`).
        maker: who may replace a folder that is there.
        finish: called with the folder before it takes its name: adds files, or raises.

    Returns:
        The folder's `sha256` (see `Weights`).
    """
    return store.save_weights(
        out,
        kind=ADAPTER,
        config=metadata["model"],
        params=adapter,
        source={"format": "orbax", "stage": metadata["stage"], "step": metadata["step"]},
        files={RUN: store.json_text(metadata)},
        check=finish,
        maker=maker,
    )


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Return what a checkpoint's metadata say, of a folder; its bases are checked, not fetched.

    Raises:
        WeightsError: it is damaged, or names bases that cannot be fetched.
    """
    file, header = Path(path) / RUN, store.read_header(path)
    metadata = read_json(file) if file.is_file() else None
    base = metadata.get("base") if isinstance(metadata, dict) else None
    if not isinstance(base, dict) or not {"llama", "whisper"} <= set(base):
        raise WeightsError(f"{file} is damaged: it names no base weights; fetch the model again")
    for name, entry in base.items():
        source = entry.get("source") if isinstance(entry, dict) else None
        if not isinstance(source, dict) or not isinstance(entry.get("sha256"), str):
            raise WeightsError(f"{file} is damaged: its base {name} has no source or no sha256")
        PinnedWeights.from_json(source.get(PINNED), where=f"{file}: {name}")
    return metadata | {"files": header["sha256"], "model": header["config"]}


def read(path: str | os.PathLike) -> tuple[dict[str, Any], Weights]:
    """Open a folder: its metadata, and the parameters outside the base.

    Raises:
        WeightsError: damaged, or changed since it was written.
    """
    return read_metadata(path), store.load_weights(path, kind=ADAPTER)
