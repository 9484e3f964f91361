"""Tensor files: read lazily, written whole. safetensors, PyTorch pickles (the only torch here).

A file is read as `{name: Tensor}`; a `Tensor` knows its shape and dtype and is read when asked,
so that a 13 GB checkpoint is checked by names and shapes before a byte of it is copied.
"""

import json
import math
import mmap
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, sha256_file

SHARD_BYTES = 4 << 30

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_MAX_HEADER = 100 << 20


class WeightsError(UserError):
    """A weight file that is damaged, incomplete or of another model; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a file: shape and dtype now, numbers when `read()` is called."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


Tensors = Mapping[str, Tensor]


def damaged(path: Path, what: str) -> WeightsError:
    """The one message for a file that an interrupted download left behind."""
    return WeightsError(
        f"{path} is damaged: {what}. An interrupted download or copy looks like this; "
        "fetch the file again"
    )


def check_sha256(path: str | Path, *, expected: str) -> None:
    """Compare a file with its pinned hash.

    Raises:
        WeightsError: the hashes differ.
    """
    found = sha256_file(path)
    if found != expected.lower():
        raise damaged(Path(path), f"its sha256 is {found}, expected {expected.lower()}")


def array_tensor(array: np.ndarray) -> Tensor:
    """Wrap an array that is already in memory."""
    return Tensor(shape=tuple(array.shape), dtype=array.dtype, read=lambda: array)


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Open a safetensors file; tensors are read-only views of the mapped file.

    Raises:
        WeightsError: missing, empty, truncated, or not safetensors.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file")
    size = path.stat().st_size
    if size < 8:
        raise damaged(path, f"it has {size} bytes, less than a safetensors header")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _MAX_HEADER:
            raise WeightsError(f"{path} is not a safetensors file (header of {length} bytes)")
        if size < 8 + length:
            raise damaged(path, f"its header needs {8 + length} bytes, the file has {size}")
        try:
            header = json.loads(file.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise WeightsError(f"{path} is not a safetensors file (unreadable header)") from None
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    header.pop("__metadata__", None)
    end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if end != size:
        raise damaged(path, f"its header promises {end} bytes, the file has {size}")
    return {
        name: _mapped_tensor(path, name, entry, mapped, 8 + length)
        for name, entry in header.items()
    }


def _mapped_tensor(path: Path, name: str, entry: dict, mapped: mmap.mmap, base: int) -> Tensor:
    shape = tuple(entry["shape"])
    if entry["dtype"] not in _DTYPES:
        raise WeightsError(
            f"{path}: {name} has dtype {entry['dtype']}; known are {', '.join(_DTYPES)}"
        )
    dtype = _DTYPES[entry["dtype"]]
    start, stop = entry["data_offsets"]
    count = math.prod(shape)
    if stop - start != count * dtype.itemsize:
        raise damaged(path, f"{name} {list(shape)} occupies {stop - start} bytes")
    return Tensor(
        shape=shape,
        dtype=dtype,
        read=lambda: np.frombuffer(mapped, dtype, count, base + start).reshape(shape),
    )


def _torch(path: Path) -> ModuleType:
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{path} is a PyTorch pickle and needs PyTorch: run `pip install torch`, or use the "
            "safetensors file of the same weights"
        ) from None
    return torch


def read_torch(path: str | Path) -> dict[str, Tensor]:
    """Open a `.bin`/`.pt`/`.pth` state dict with `weights_only=True`: no code in it is run.

    Raises:
        WeightsError: PyTorch is missing, the file is damaged, holds code, or is no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file")
    torch = _torch(path)
    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
            raise WeightsError(
                f"{path} holds more than tensors (its pickle wants to run code) and is refused; "
                "save its state_dict() alone, best as safetensors"
            ) from None
        raise damaged(path, "it is no pickle of tensors that PyTorch can read") from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise damaged(path, f"PyTorch cannot read it ({why})") from None
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict")
    odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if odd:
        raise WeightsError(
            f"{path} is not a flat state dict: {odd[0]!r} is a {type(state[odd[0]]).__name__}; "
            "save the inner state dict on its own"
        )
    return {name: _torch_tensor(torch, value) for name, value in state.items()}


def _torch_tensor(torch: ModuleType, value) -> Tensor:
    value = value.detach()
    if value.dtype == torch.bfloat16:
        # numpy has no bfloat16 of its own: the bits travel as int16
        def read() -> np.ndarray:
            return value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)

        dtype = np.dtype(ml_dtypes.bfloat16)
    else:
        read = value.numpy
        dtype = value[:0].numpy().dtype if value.ndim else value.numpy().dtype
    return Tensor(shape=tuple(value.shape), dtype=dtype, read=read)


_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


def read_file(path: str | Path) -> dict[str, Tensor]:
    """Open one weight file by its suffix: safetensors or a PyTorch state dict."""
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in _TORCH_SUFFIXES:
        return read_torch(path)
    raise WeightsError(
        f"{path}: unknown weight file suffix {path.suffix!r}; known are .safetensors, "
        f"{', '.join(_TORCH_SUFFIXES)}"
    )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Open a weight file, or a Hugging Face directory with one file or shards and an index.

    Raises:
        WeightsError: nothing to read, a shard missing, or a name in two shards.
    """
    path = Path(path)
    if not path.is_dir():
        return read_file(path)
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        index = path / f"{stem}{suffix}.index.json"
        if (path / f"{stem}{suffix}").is_file():
            return read_file(path / f"{stem}{suffix}")
        if index.is_file():
            return _read_shards(path, index)
    raise WeightsError(
        f"{path} holds no weights: expected model.safetensors, pytorch_model.bin or one of them "
        "in shards with its .index.json"
    )


def _read_shards(path: Path, index: Path) -> dict[str, Tensor]:
    listed = read_json(index).get("weight_map")
    if not isinstance(listed, dict):
        raise WeightsError(f"{index} has no weight_map")
    shards = sorted(set(listed.values()))
    missing = [name for name in shards if not (path / name).is_file()]
    if missing:
        raise WeightsError(f"{path} lacks {len(missing)} of {len(shards)} shards: {missing[:10]}")
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        for name, tensor in read_file(path / shard).items():
            if name in tensors:
                raise WeightsError(f"{path / shard}: {name} is also in another shard")
            tensors[name] = tensor
    lost = sorted(set(listed) - set(tensors))
    if lost:
        raise damaged(path, f"{len(lost)} tensors of {index.name} are in no shard: {lost[:10]}")
    return tensors


def write_shards(
    folder: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    *,
    stem: str,
    metadata: dict[str, str],
    max_bytes: int = SHARD_BYTES,
) -> dict[str, str]:
    """Write `stem.safetensors`, or `stem-00001-of-0000N.safetensors` above `max_bytes`.

    Returns:
        {tensor name: file name}. No more than one shard is in memory at a time.
    """
    from safetensors.numpy import save_file

    groups: list[list[str]] = []
    for number, group in enumerate(_grouped(tensors, max_bytes)):
        save_file(group, folder / f"{stem}.part{number}", metadata=metadata)
        groups.append(list(group))
    placed: dict[str, str] = {}
    for number, names in enumerate(groups):
        tail = "" if len(groups) == 1 else f"-{number + 1:05d}-of-{len(groups):05d}"
        final = folder / f"{stem}{tail}.safetensors"
        (folder / f"{stem}.part{number}").rename(final)
        final.chmod(0o644)
        placed.update(dict.fromkeys(names, final.name))
    return placed


def _grouped(
    tensors: Iterable[tuple[str, np.ndarray]], max_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    group: dict[str, np.ndarray] = {}
    held = 0
    for name, array in tensors:
        # the library serialises the buffer as it lies: a transposed view would be written wrong
        array = np.ascontiguousarray(array)
        if group and held + array.nbytes > max_bytes:
            yield group
            group, held = {}, 0
        group[name] = array
        held += array.nbytes
    yield group


def write_torch(path: Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write a PyTorch state dict (`torch.save` of a plain dict of tensors)."""
    torch = _torch(path)
    state = {}
    for name, array in tensors:
        array = np.array(array, order="C")  # own memory: torch refuses read-only buffers
        if array.dtype == ml_dtypes.bfloat16:
            state[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            state[name] = torch.from_numpy(array)
    torch.save(state, path)
