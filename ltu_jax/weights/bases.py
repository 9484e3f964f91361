"""Base weights by path: a weights directory of ours, or the Hugging Face directory of a LLaMA.

A checkpoint names its base weights by path and hash and does not copy them; these functions open
what it names, and lay the numbers on a mesh without holding a whole model in host memory.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ltu_jax.core.files import read_json, sha256_file
from ltu_jax.core.sharding import param_shardings
from ltu_jax.core.trees import Params
from ltu_jax.weights import store
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import hf_llama
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.store import LazyParams, Weights, load_weights
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError

_BIG = 2 << 30  # bytes; hashing more than this shows a bar


def open_weights(
    path: str | os.PathLike, *, kind: str | None = None, dtype: Any = None, verify: bool = True
) -> Weights:
    """Open a weights directory, or a LLaMA-family Hugging Face directory as it lies.

    Args:
        path: the directory.
        kind: refuse any other kind.
        dtype: cast every parameter when it is read; None keeps the stored dtype.
        verify: hash the files of a weights directory and compare; those of a Hugging Face
            directory are always hashed, because their hash is its name.

    Raises:
        WeightsError: missing, of another kind, incomplete or changed.
    """
    path = Path(path)
    if not _is_hf_llama(path):
        return load_weights(path, kind=kind, dtype=dtype, verify=verify)
    if kind not in (None, "llama"):
        raise WeightsError(f"{path} holds 'llama' weights, expected {kind!r}")
    found = hf_llama.from_hf(path)
    config, shapes = model_shapes("llama", found.config)
    params = found.params(shapes, what=str(path))
    hashes = _hashes(shards.checkpoint_files(path).files)
    has_tokenizer = any(name.startswith("tokenizer.") for name in found.files)
    return Weights(
        kind="llama",
        config=config,
        params=LazyParams(
            dict(sorted(params.items())), dtype=None if dtype is None else np.dtype(dtype)
        ),
        path=path,
        sha256=store.identity("llama", config, hashes),
        tokenizer_dir=path if has_tokenizer else None,
        source=dict(found.source),
        facts=dict(found.facts),
    )


def _is_hf_llama(path: Path) -> bool:
    settings = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    return "ltu_jax" not in settings and settings.get("model_type") in hf_llama.MODEL_TYPES


def _hashes(files: tuple[Path, ...]) -> dict[str, str]:
    big = sum(file.stat().st_size for file in files) > _BIG
    return {file.name: sha256_file(file) for file in tqdm(files, desc="hashing", disable=not big)}


def place(tensors: Tensors, *, mesh: Mesh, dtypes: Mapping[str, Any]) -> Params:
    """Lay tensors on `mesh`, each in `dtypes[path]`, every device given only its own part.

    The parts are read from the file when the device is filled, a block at a time.
    """
    shardings = param_shardings(mesh, tensors)
    return {
        path: jax.make_array_from_callback(
            tensor.shape, shardings[path], _Regions(tensor, np.dtype(dtypes[path]))
        )
        for path, tensor in tensors.items()
    }


class _Regions:
    """A tensor's parts by index; the last one is kept, for devices that hold the same part."""

    def __init__(self, tensor: Tensor, dtype: np.dtype):
        self._tensor, self._dtype = tensor, dtype
        self._held: tuple[str, np.ndarray] | None = None

    def __call__(self, index: tuple[slice, ...]) -> np.ndarray:
        name = str(index)
        if self._held is None or self._held[0] != name:
            self._held = None  # before the next one is read
            self._held = (name, self._tensor.region(index, self._dtype))
        return self._held[1]


def base_entry(weights: Weights, *, relative_to: str | os.PathLike) -> dict[str, Any]:
    """How a checkpoint names a base it does not copy: paths, sha256, and where it came from."""
    absolute = weights.path.resolve()
    return {
        "path": os.path.relpath(absolute, Path(relative_to).resolve()),
        "absolute_path": str(absolute),
        "sha256": weights.sha256,
        "source": dict(weights.source),
    }


def open_base(
    entry: Mapping[str, Any],
    *,
    relative_to: str | os.PathLike,
    what: str,
    dtype: Any = None,
    verify: bool = True,
) -> Weights:
    """Open the base weights that a checkpoint names with `base_entry`.

    Args:
        entry: {"path", "sha256"} and perhaps "absolute_path" and "source".
        relative_to: the checkpoint folder that a relative path starts from.
        what: how the error calls the base, e.g. "language model".
        dtype: as in `open_weights`.
        verify: as in `open_weights`.

    Raises:
        WeightsError: it is nowhere (the message says how to get it), or it is not the one that was
            trained on.
    """
    tried = [Path(relative_to) / entry["path"], Path(entry.get("absolute_path", entry["path"]))]
    path = next((path for path in tried if (path / "config.json").is_file()), None)
    if path is None:
        places = " and ".join(str(place.resolve()) for place in dict.fromkeys(tried))
        raise WeightsError(
            f"the {what} of {relative_to} is missing: looked for a weights directory at {places}; "
            f"put it back or make it again{_recipe(entry.get('source') or {})}"
        )
    weights = open_weights(path, dtype=dtype, verify=verify)
    if weights.sha256 != entry["sha256"]:
        raise WeightsError(
            f"{path} is not the {what} that {relative_to} was trained on: its sha256 is "
            f"{weights.sha256}, the checkpoint names {entry['sha256']}"
        )
    return weights


def _recipe(source: Mapping[str, Any]) -> str:
    """The command that makes a base again, as far as its source is known."""
    if not isinstance(source.get("format"), str):
        return " with `python -m ltu_jax.convert --from ... --out DIR`"
    name = source.get("name") or source.get("file") or "PATH"
    return f": `python -m ltu_jax.convert --from {source['format']} --weights {name} --out DIR`"
