"""PyTorch files, read without running them and written without holding them; the door of torch."""

import contextlib
import io
import itertools
import logging
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np

from ltu_jax.weights.files.safetensors_file import (
    blocks,
    explained,
    file_tensor,
    progress_bar,
    require_space,
)
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError, array_tensor, damaged

# weights_only is documented as safe, and was made so, step by step: CVE-2025-32434 ran code until
# 2.6, CVE-2026-24747 corrupted memory until 2.10.
MIN_TORCH = (2, 10)
_ALIGNMENT = 64  # of PyTorch's zip entries
_MAX_PICKLE = 256 << 20  # names and shapes; those of a 65B model take 100 kB
_MAX_DEPTH, _MAX_NODES = 32, 1_000_000  # of the dicts and lists around the tensors
# What the restricted unpickler is known to raise on files that no torch.save has written.
_UNREADABLE = (
    RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError,
    AssertionError, ArithmeticError, MemoryError, struct.error, zipfile.BadZipFile,
)  # fmt: skip


def torch_module(reason: str) -> ModuleType:
    """Import PyTorch; `reason` begins the error, e.g. "x.bin is a PyTorch pickle".

    Raises:
        WeightsError: it is not installed, or too old for `weights_only=True` to be safe.
    """
    try:
        import torch
    except ImportError:
        raise WeightsError(
            f"{reason} and needs PyTorch: run `pip install torch`, or use the safetensors file of "
            "the same weights"
        ) from None
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < MIN_TORCH:
        raise WeightsError(
            f"{reason}, and PyTorch {torch.__version__} cannot read pickles safely "
            f"(CVE-2026-24747); run `pip install 'torch>={MIN_TORCH[0]}.{MIN_TORCH[1]}'`, or use "
            "the safetensors file of the same weights"
        )
    return torch


def read_torch(path: str | Path) -> dict[str, Tensor]:
    """Open a `.bin`/`.pt`/`.pth` state dict with `weights_only=True`: no code in it is run.

    Raises:
        WeightsError: PyTorch is missing, the file is damaged, holds code, or is no state dict.
    """
    state = read_torch_tree(path)
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd or not all(isinstance(name, str) for name in state):
        name = odd[0] if odd else next(name for name in state if not isinstance(name, str))
        raise WeightsError(
            f"{path} is not a flat state dict: {name!r} is a {type(state[name]).__name__}; "
            "save the inner state dict on its own"
        )
    return state


def read_torch_tree(path: str | Path) -> dict[Any, Any]:
    """Open a PyTorch file whose tensors are nested in dicts and lists, as OpenAI's Whisper is.

    Returns:
        The saved dict with a `Tensor` in place of each tensor; other leaves as they are. The
        numbers of a zip file (torch 1.6 and later) stay on disk until they are read.

    Raises:
        WeightsError: as `read_torch`.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path} does not exist or is not a file")
    torch = torch_module(f"{path} is a PyTorch pickle")
    try:
        entries = _zip_entries(path) if zipfile.is_zipfile(path) else None
        if entries is None:
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            from torch._subclasses import FakeTensorMode

            # shapes and places in the file, no numbers
            with _quiet("torch._subclasses.fake_tensor"), FakeTensorMode():
                state = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "GLOBAL" in str(error):
            raise WeightsError(
                f"{path} holds more than tensors (its pickle wants to run code) and is refused; "
                "save its state_dict() alone, best as safetensors"
            ) from None
        raise damaged(path, "it is no pickle of tensors that PyTorch can read") from None
    except _UNREADABLE as error:
        # its first sentence: what may follow is advice to load the file without protection
        why = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise damaged(path, f"PyTorch cannot read it ({why})") from None
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(f"{path} holds a {type(state).__name__}, not a state dict")
    return _lazy(torch, state, path=path, entries=entries)


def _zip_entries(path: Path) -> dict[int, int]:
    """Return {first byte of an entry: its size} of an archive that inflates nothing.

    Raises:
        WeightsError: a compressed or overlapping entry, which torch.save never writes.
    """
    entries: dict[int, int] = {}
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise WeightsError(
                    f"{path} is refused: its entry {info.filename} is compressed "
                    f"({info.compress_size} bytes to {info.file_size}), which torch.save never does"
                )
            if info.filename.endswith(".pkl") and info.file_size > _MAX_PICKLE:
                raise WeightsError(f"{path} is refused: a pickle of {info.file_size} bytes")
            file.seek(info.header_offset + 26)
            name, extra = struct.unpack("<HH", file.read(4))
            begin = info.header_offset + 30 + name + extra
            if begin in entries:
                raise WeightsError(f"{path} is refused: its entries overlap")
            entries[begin] = info.file_size
    if sum(entries.values()) > path.stat().st_size:
        raise WeightsError(f"{path} is refused: its entries overlap")
    return entries


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep a library from logging the traceback of an error that is reported here."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def _lazy(torch: ModuleType, state: Any, *, path: Path, entries: dict[int, int] | None) -> Any:
    """Put a `Tensor` for each tensor; a few bytes of pickle may mean 2**50 of them."""
    nodes = itertools.count()

    def walk(value: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH or next(nodes) > _MAX_NODES:
            raise WeightsError(
                f"{path} is refused: its pickle nests deeper or has more entries than any model"
            )
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.is_neg() or value.is_conj():
                raise WeightsError(f"{path} is refused: a tensor in it is not plain numbers")
            width, held = _dtype(torch, value, path=path).itemsize, value.untyped_storage().nbytes()
            if value.numel() * width > held:  # stride 0: terabytes made of nothing
                raise WeightsError(
                    f"{path} is refused: a tensor {list(value.shape)} of {held} stored bytes"
                )
            if entries is None:
                return array_tensor(_numpy(torch, value.detach()))
            return _stored_tensor(torch, value, path=path, entries=entries)
        if isinstance(value, Mapping):
            return {key: walk(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, depth + 1) for item in value]
        return value

    return walk(state, 0)


def _numpy(torch: ModuleType, value: Any) -> np.ndarray:
    if value.dtype == torch.bfloat16:  # numpy has no bfloat16 of its own: the bits travel as int16
        return value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return value.numpy()


def _dtype(torch: ModuleType, value: Any, *, path: Path) -> np.dtype:
    if value.dtype == torch.bfloat16:
        return np.dtype(ml_dtypes.bfloat16)
    name = str(value.dtype).removeprefix("torch.")
    known = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
    if name not in known:
        raise WeightsError(f"{path} holds a tensor of {value.dtype}; known are {', '.join(known)}")
    return np.dtype(name)


def _stored_tensor(
    torch: ModuleType, value: Any, *, path: Path, entries: Mapping[int, int]
) -> Tensor:
    """Return a tensor of a zip file, by the place of its storage in the file."""
    shape, dtype = tuple(value.shape), _dtype(torch, value, path=path)
    storage = value.untyped_storage()
    begin, size = storage._checkpoint_offset, storage.nbytes()
    if entries.get(begin, -1) < size:
        raise damaged(path, f"a storage of {size} bytes at {begin} is not there")
    # shapes were made up without numbers, so that nothing has checked them against the storage
    strides, first = value.stride(), value.storage_offset()
    reach = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    past = value.numel() and (first + reach) * dtype.itemsize > size
    if first < 0 or min(strides, default=0) < 0 or past:
        raise damaged(path, f"a tensor {list(shape)} with strides {list(strides)} is not in it")
    start = begin + first * dtype.itemsize
    if value.is_contiguous():
        return file_tensor(path, start=start, shape=shape, dtype=dtype)
    flat = file_tensor(path, start=start, shape=(reach,), dtype=dtype)

    def read() -> np.ndarray:
        return np.lib.stride_tricks.as_strided(
            flat.read(), shape, [step * dtype.itemsize for step in strides]
        ).copy()

    return Tensor(shape=shape, dtype=dtype, read=read)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Storage:
    """Stands for the numbers of one tensor while the pickle is written."""

    kind: type
    key: str
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slot:
    """Stands for one tensor while the pickle is written."""

    storage: _Storage
    shape: tuple[int, ...]


def write_torch(
    path: Path,
    tensors: Tensors,
    *,
    wrap: Callable[[dict[str, Any]], Any] = lambda state: state,
    extra: Mapping[str, str] | None = None,
    desc: str | None = None,
) -> None:
    """Write what `torch.save(wrap(state_dict), path)` writes, without holding the numbers.

    Args:
        path: the file; its folder must exist.
        tensors: the state dict, in order.
        wrap: the object around it, of plain Python values.
        extra: {name: text} of further entries of the zip file, which torch.load passes over.
        desc: label of the progress bar; None shows none.

    Raises:
        WeightsError: PyTorch is missing, or the disk has no room.
    """
    torch = torch_module(f"{path} is to be a PyTorch pickle")
    slots = {
        name: _Slot(
            storage=_Storage(
                kind=_storage_class(torch, tensor.dtype, path=path),
                key=str(number),
                count=int(np.prod(tensor.shape, dtype=np.int64)),
            ),
            shape=tensor.shape,
        )
        for number, (name, tensor) in enumerate(tensors.items())
    }
    total = sum(tensor.nbytes for tensor in tensors.values())
    require_space(path.parent, total)
    with (
        explained(path),
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
        progress_bar(desc, total) as bar,
    ):
        stem = path.stem
        archive.writestr(f"{stem}/data.pkl", _pickled(torch, wrap(dict(slots))))
        archive.writestr(f"{stem}/byteorder", "little")
        for number, (name, tensor) in enumerate(tensors.items()):
            info = zipfile.ZipInfo(f"{stem}/data/{number}")
            info.file_size = tensor.nbytes
            _align(info, archive.fp.tell())
            with archive.open(info, "w", force_zip64=tensor.nbytes >= 1 << 31) as file:
                for block in blocks(tensor, name=name):
                    file.write(block)
                    bar.update(len(block))
        archive.writestr(f"{stem}/version", "3\n")
        for name, text in (extra or {}).items():
            archive.writestr(f"{stem}/{name}", text)


def _align(info: zipfile.ZipInfo, position: int) -> None:
    """Pad the header of an entry so that its content begins at a multiple of 64, as PyTorch's."""
    wide = 20 if info.file_size >= 1 << 31 else 0  # the zip64 field that zipfile will add
    before = position + 30 + len(info.filename.encode()) + wide + 4
    info.extra = struct.pack("<2sH", b"FB", -before % _ALIGNMENT) + bytes(-before % _ALIGNMENT)


def _storage_class(torch: ModuleType, dtype: np.dtype, *, path: Path) -> type:
    names = {
        "float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16",
        "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
        "bool": "Bool",
    }  # fmt: skip
    if dtype.name not in names:
        raise WeightsError(f"{path}: a PyTorch state dict cannot hold {dtype.name}")
    return getattr(torch, f"{names[dtype.name]}Storage")


def _pickled(torch: ModuleType, value: Any) -> bytes:
    """Return the pickle of `torch.save` (protocol 2): tensors rebuilt from storages by key."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if isinstance(value, _Storage):
                return ("storage", value.kind, value.key, "cpu", value.count)
            return None

        def reducer_override(self, value: Any) -> Any:
            if not isinstance(value, _Slot):
                return NotImplemented
            strides = [1]
            for size in reversed(value.shape[1:]):
                strides.append(strides[-1] * size)
            strides = tuple(reversed(strides)) if value.shape else ()
            made = (value.storage, 0, value.shape, strides, False, OrderedDict())
            return torch._utils._rebuild_tensor_v2, made

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()
