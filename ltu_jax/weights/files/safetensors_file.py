"""safetensors files, streamed: read by byte range, written tensor by tensor.

The library reads and writes whole tensors from and to memory; a 7B model in stacked layers is then
out of a laptop's reach. The layout written here is the library's own, byte for byte.
"""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from tqdm import tqdm

from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError, damaged

# In the library's order of alignment, largest first.
_NAMES = {
    np.dtype(np.uint64): "U64",
    np.dtype(np.int64): "I64",
    np.dtype(np.float64): "F64",
    np.dtype(np.float32): "F32",
    np.dtype(np.uint32): "U32",
    np.dtype(np.int32): "I32",
    np.dtype(ml_dtypes.bfloat16): "BF16",
    np.dtype(np.float16): "F16",
    np.dtype(np.uint16): "U16",
    np.dtype(np.int16): "I16",
    np.dtype(np.int8): "I8",
    np.dtype(np.uint8): "U8",
    np.dtype(np.bool_): "BOOL",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_ORDER = {dtype: place for place, dtype in enumerate(_NAMES)}
_MAX_HEADER = 100 << 20


def file_tensor(path: Path, *, start: int, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    """Return a tensor that lies contiguous in `path`; it is read by range, never mapped.

    A mapping would count every page that was looked at as the process's memory.
    """
    row = math.prod(shape[1:]) * dtype.itemsize

    def read_bytes(first: int, wanted: tuple[int, ...]) -> np.ndarray:
        out = np.empty(wanted, dtype)
        with path.open("rb", buffering=0) as file:
            file.seek(start + first)
            view = memoryview(out.reshape(-1).view(np.uint8))
            while view:
                got = file.readinto(view)
                if not got:
                    raise damaged(path, "it ended while it was read")
                view = view[got:]
        out.flags.writeable = False
        return out

    def rows(first: int, last: int) -> np.ndarray:
        return read_bytes(first * row, (max(0, last - first), *shape[1:]))

    return Tensor(
        shape=shape,
        dtype=dtype,
        read=lambda: read_bytes(0, shape),
        rows=rows if shape else None,
    )


def read_header(path: str | Path) -> tuple[dict, dict[str, str], int]:
    """Return ({name: entry}, metadata, where the numbers begin) of a safetensors file.

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
        text = file.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_no_name_twice)
    except _Twice as error:
        raise WeightsError(f"{path} names {error} twice in its header; it is refused") from None
    except (ValueError, RecursionError):  # not UTF-8, not JSON, too deep, or endless numbers
        raise WeightsError(f"{path} is not a safetensors file (unreadable header)") from None
    if not isinstance(header, dict):
        raise WeightsError(f"{path} is not a safetensors file (its header is no JSON object)")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise WeightsError(f"{path}: its __metadata__ is not a table of strings; it is refused")
    return header, metadata, 8 + length


class _Twice(ValueError):
    """A name that occurs twice in one JSON object."""


def _no_name_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return entries


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Open a safetensors file; its tensors are read by byte range when asked for.

    Raises:
        WeightsError: missing, empty, truncated, not safetensors, or a header that lies.
    """
    path = Path(path)
    header, _, base = read_header(path)
    spans = {name: _span(path, name, entry) for name, entry in header.items()}
    end = 0
    for name, (start, stop, _, _) in sorted(spans.items(), key=lambda item: item[1][:2]):
        if start != end:
            raise damaged(path, f"{name} begins at byte {start} of the numbers, not at {end}")
        end = stop
    size = path.stat().st_size
    if base + end != size:
        raise damaged(path, f"its header promises {base + end} bytes, the file has {size}")
    return {
        name: file_tensor(path, start=base + start, shape=shape, dtype=dtype)
        for name, (start, _, shape, dtype) in spans.items()
    }


def _span(path: Path, name: str, entry: object) -> tuple[int, int, tuple[int, ...], np.dtype]:
    """Return (start, stop, shape, dtype) of a header entry, all of them checked."""
    keys = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != keys:
        raise damaged(path, f"the header entry of {name} is not {sorted(keys)}")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _DTYPES:
        raise WeightsError(
            f"{path}: {name} has dtype {entry['dtype']}; known are {', '.join(_DTYPES)}"
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        whole = isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        if not whole:
            raise damaged(path, f"{name} has shape {shape} and offsets {offsets}")
    dtype = _DTYPES[entry["dtype"]]
    if len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise damaged(path, f"{name} {shape} of {entry['dtype']} has offsets {offsets}")
    return offsets[0], offsets[1], tuple(shape), dtype


def write_safetensors(
    path: Path,
    tensors: Tensors,
    *,
    metadata: Mapping[str, str],
    progress: Callable[[int], object] = lambda count: None,
) -> str:
    """Write a safetensors file block by block.

    Args:
        path: the file; its folder must exist.
        tensors: what to write; each is read once, in blocks.
        metadata: strings for the header.
        progress: called with the number of bytes after each block.

    Returns:
        Hex SHA-256 of the file.

    Raises:
        WeightsError: the disk has no room, or a dtype that the format does not have.
    """
    odd = {t.dtype for t in tensors.values()} - set(_NAMES)
    if odd:
        raise WeightsError(f"{path}: safetensors cannot hold {', '.join(map(str, odd))}")
    names = sorted(tensors, key=lambda name: (_ORDER[tensors[name].dtype], name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    require_space(path.parent, 8 + len(text) + end)
    digest = hashlib.sha256()
    with path.open("wb") as file, explained(path):
        for piece in (struct.pack("<Q", len(text)), text):
            file.write(piece)
            digest.update(piece)
        for name in names:
            for block in blocks(tensors[name], name=name):
                file.write(block)
                digest.update(block)
                progress(len(block))
    return digest.hexdigest()


def blocks(tensor: Tensor, *, name: str) -> Iterator[memoryview]:
    """Yield the bytes of a tensor block by block; fail where they are others than it says."""
    count = 0
    for part in tensor.blocks():
        assert part.dtype == tensor.dtype, f"{name}: {part.dtype} instead of {tensor.dtype}"
        flat = np.ascontiguousarray(part).reshape(-1)
        count += flat.nbytes
        yield memoryview(flat.view(np.uint8))
    assert count == tensor.nbytes, f"{name}: {count} bytes instead of {tensor.nbytes}"


def require_space(folder: Path, size: int) -> None:
    """Refuse to begin a file that the disk has no room for.

    Raises:
        WeightsError: less than `size` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise WeightsError(
            f"{folder}: {size / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free; make room "
            "or write elsewhere"
        )


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a disk that fills up or fails in the block into one clear error.

    Raises:
        WeightsError: instead of the operating system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
            raise
        raise WeightsError(
            f"{path} could not be written: {os.strerror(error.errno)}; nothing is left of it"
        ) from None


def progress_bar(desc: str | None, total: int) -> tqdm:
    """Return a bar that counts bytes."""
    return tqdm(
        desc=desc, total=total, unit="B", unit_scale=True, unit_divisor=1000, disable=desc is None
    )
