"""safetensors files whose header lies."""

import json
import struct
from pathlib import Path

import numpy as np
from hostile_corpus import hostile, write
from safetensors.numpy import save_file


def _safetensors(
    folder: Path, header: object, *, data: int = 64, length: int | None = None
) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return write(folder / "ltuas.safetensors", struct.pack("<Q", size) + text + bytes(data))


def _entry(shape, start: int, stop: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def _lying(name: str, header: object, says: str = "", **settings) -> None:
    def build(folder: Path) -> Path:
        return _safetensors(folder, header, **settings)

    build.__name__ = f"safetensors_{name}"
    hostile("ltu-as", says)(build)


_WHOLE = {"a": _entry([16], 0, 64)}
_lying("header_longer_than_file", _WHOLE, "damaged", length=5000)
_lying("header_of_2_to_63", _WHOLE, "not a safetensors", length=1 << 63)
_lying("overlap", {"a": _entry([16], 0, 64), "b": _entry([8], 16, 48)}, "damaged")
_lying("negative_offsets", {"a": _entry([16], -64, 0), "b": _entry([16], 0, 64)}, "damaged")
_lying("offsets_backwards", {"a": _entry([16], 64, 0)}, "damaged")
_lying("offsets_out_of_file", {"a": _entry([1 << 20], 0, 4 << 20)}, "damaged")
_lying("hole", {"a": _entry([4], 0, 16), "b": _entry([4], 48, 64)}, "damaged")
_lying("shape_product_overflow", {"a": _entry([1 << 32, 1 << 32, 1 << 62], 0, 64)}, "damaged")
_lying("shape_zero_times_huge", {"a": _entry([0, 1 << 62], 0, 0), **_WHOLE})
_lying("shape_negative", {"a": _entry([-4, -4], 0, 64)}, "damaged")
_lying("shape_float", {"a": _entry([16.0], 0, 64)}, "damaged")
_lying("shape_bool", {"a": _entry([16, True], 0, 64)}, "damaged")
_lying("shape_100_dimensions", {"model.audio_proj.1.weight": _entry([16, *[1] * 99], 0, 64)})
_lying("dtype_unknown", {"a": _entry([16], 0, 64, "F33")}, "dtype")
_lying("dtype_not_text", {"a": _entry([16], 0, 64, ["F32"])}, "dtype")
_lying("name_twice", b'{"a":%b,"a":%b}' % ((json.dumps(_WHOLE["a"]).encode(),) * 2), "twice")
_lying("header_is_a_list", [_WHOLE], "not a safetensors")
_lying("entry_is_a_number", {"a": 7}, "damaged")
_lying("metadata_not_text", {"__metadata__": {"format": 7}, **_WHOLE}, "__metadata__")
_lying("nested_deep", b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}", "not a safetensors")
_lying("number_of_a_million_digits", b'{"a":' + b"9" * 1_000_000 + b"}")
_lying("offset_nan", b'{"a":{"dtype":"F32","shape":[16],"data_offsets":[NaN,Infinity]}}')


@hostile("ltu-as", "damaged")
def _safetensors_truncated(folder: Path) -> Path:
    save_file({"a": np.ones(1000, np.float32)}, folder / "ltuas.safetensors")
    path = folder / "ltuas.safetensors"
    return write(path, path.read_bytes()[:-100])


@hostile("ltu-as")
def _web_page_called_safetensors(folder: Path) -> Path:
    return write(folder / "ltuas.safetensors", b"<!DOCTYPE html><title>404</title>" * 20)
