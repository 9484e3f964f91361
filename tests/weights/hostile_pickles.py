"""PyTorch files that run code, lie about their size or eat memory."""

import io
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from hostile_corpus import CANARY, HUGE, Call, hostile, touch, write


def _torch_zip(path: Path, pickled: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A zip file as torch.save lays it out, around any pickle."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, content in (storages or {"0": bytes(64)}).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", "3\n")
    return path


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def _tensor(
    *,
    count: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int = 0,
    end: bytes = b"",
) -> bytes:
    """Opcodes of a float32 tensor over storage "0"; the numbers may lie."""

    def number(value: int) -> bytes:
        raw = value.to_bytes(9, "little", signed=True)
        return b"\x8a\x09" + raw

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(number(value) for value in values) + b"t"

    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu")
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(count) + end + b"tQ"
        + number(offset) + numbers(shape) + numbers(stride)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def _state_dict(*entries: tuple[str, bytes]) -> bytes:
    body = b"".join(_text(name) + value for name, value in entries)
    return b"\x80\x02}(" + body + b"u."


GOOD = _tensor(count=16, shape=(4, 4), stride=(4, 1))


def harmless(path: Path) -> Path:
    """The same construction without a lie, which is read."""
    return _torch_zip(path, _state_dict(("w", GOOD)))


@hostile("ltu-as", "code")
def _pickle_os_system(folder: Path) -> Path:
    return write(folder / "ltuas.bin", pickle.dumps({"w": Call(os.system, touch(folder))}, 2))


@hostile("openai-whisper", "code")
def _torch_zip_os_system(folder: Path) -> Path:
    pickled = pickle.dumps({"dims": {}, "x": Call(os.system, touch(folder))}, 2)
    return _torch_zip(folder / "tiny.pt", pickled)


@hostile("whisper-at", "code")
def _pickle_eval(folder: Path) -> Path:
    code = f"open({str(folder / CANARY)!r}, 'w')"
    return write(folder / "large-v1_ori.pth", pickle.dumps(Call(eval, code), 2))


@hostile("ltu-as", "code")
def _torch_zip_exec(folder: Path) -> Path:
    code = f"open({str(folder / CANARY)!r}, 'w')"
    return _torch_zip(folder / "ltuas.bin", pickle.dumps({"w": Call(exec, code)}, 2))


@hostile("ltu-as", "code")
def _torch_zip_nested_global(folder: Path) -> Path:
    call = b"cposix\nsystem\n(" + _text(touch(folder)) + b"tR"
    nested = b"}(" + _text("deep") + b"](" + call + b"eu"
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", GOOD), ("x", nested)))


@hostile("ltu-as")
def _pickle_stack_global(folder: Path) -> Path:
    pickled = pickle.dumps({"w": Call(os.system, touch(folder))}, 4)
    assert "STACK_GLOBAL" in {op.name for op, _, _ in pickletools.genops(pickled)}
    return write(folder / "ltuas.bin", pickled)


@hostile("ltu-as")
def _pickle_inst(folder: Path) -> Path:
    content = b"(S" + repr(touch(folder)).encode() + b"\nios\nsystem\n."
    return write(folder / "ltuas.bin", content)


@hostile("ltu-as", "code")
def _pickle_getattr_chain(folder: Path) -> Path:
    chain = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(" + _text("os") + b"tR"
    chain += _text("system") + b"tR(" + _text(touch(folder)) + b"tR"
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", chain)))


@hostile("openai-whisper", "code")
def _pickle_torch_hub(folder: Path) -> Path:
    (folder / "hubconf.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\n")
    call = b"ctorch.hub\nload\n(" + _text(str(folder)) + _text("m") + _text("local") + b"tR"
    return _torch_zip(folder / "base.pt", _state_dict(("dims", call)))


@hostile("ltu-as")
def _pickle_build_trick(folder: Path) -> Path:
    """BUILD puts attributes onto an allowed object: __reduce_ex__, __setstate__ and the like."""
    state = b"}(" + _text("__setstate__") + b"cposix\nsystem\nu"
    built = b"ccollections\nOrderedDict\n)R" + state + b"b" + _text(touch(folder)) + b"b"
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", built)))


@hostile("ltu-as")
def _pickle_newobj_of_parameter(folder: Path) -> Path:
    made = b"ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\ncposix\nsystem\n("
    made += _text(touch(folder)) + b"t}tR"
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", made)))


@hostile("ltu-as")
def _pickle_numpy_object(folder: Path) -> Path:
    array = np.asarray([Call(os.system, touch(folder))], object)
    return write(folder / "ltuas.bin", pickle.dumps({"w": array}, 2))


@hostile("whisper-at", "code")
def _legacy_torch_with_code(folder: Path) -> Path:
    import torch

    torch.save(
        {"w": Call(os.system, touch(folder))}, folder / "large-v1_ori.pth",
        _use_new_zipfile_serialization=False,
    )  # fmt: skip
    return folder / "large-v1_ori.pth"


@hostile("whisper-at")
def _legacy_torch_size_lies(folder: Path) -> Path:
    """The old format: magic, protocol, system, the pickle, the keys, then sizes and numbers."""
    lie = _tensor(count=HUGE, shape=(1 << 30, 1 << 30), stride=(1 << 30, 1), end=b"N")
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    body = _state_dict(("w", lie))
    return write(
        folder / "a_ori.pth", head + body + pickle.dumps(["0"], 2) + struct.pack("<q", HUGE)
    )


@hostile("whisper-at")
def _legacy_tar_with_code(folder: Path) -> Path:
    path = folder / "large-v1_low.pth"
    parts = {
        "sys_info": pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2),
        "storages": pickle.dumps(0, 2),
        "tensors": pickle.dumps(0, 2),
        "pickle": pickle.dumps(Call(os.system, touch(folder)), 2),
    }
    with tarfile.open(path, "w") as archive:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@hostile("ltu-as")
def _torchscript_archive(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "ltuas.pt", "w") as archive:
        archive.writestr("a/constants.pkl", b"\x80\x02).")
        archive.writestr("a/data.pkl", b"\x80\x02c__torch__\nM\n)\x81.")
        archive.writestr("a/code/__torch__.py", "class M(Module):\n  pass\n")
        archive.writestr("a/version", "3\n")
    return folder / "ltuas.pt"


@hostile("openai-whisper")
def _pickle_memo_doubling(folder: Path) -> Path:
    """Three hundred bytes that mean a tree of 2**50 leaves."""
    body = b"]q\x00"
    for number in range(50):
        body += b"h" + bytes([number]) + b"\x86q" + bytes([number + 1])  # (before, before)
    return _torch_zip(folder / "tiny.pt", _state_dict(("dims", body), ("model_state_dict", b"}")))


@hostile("openai-whisper")
def _pickle_deep_nesting(folder: Path) -> Path:
    nested = b"]" * 200_000 + b"a" * 199_999
    return _torch_zip(folder / "tiny.pt", _state_dict(("dims", nested)))


@hostile("ltu-as")
def _pickle_contains_itself(folder: Path) -> Path:
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", b"]q\x00h\x00a")))


@hostile("ltu-as")
def _pickle_huge_string(folder: Path) -> Path:
    content = b"\x80\x04}(\x8d" + struct.pack("<Q", HUGE) + b"w"
    return write(folder / "ltuas.bin", content)


@hostile("ltu-as")
def _pickle_huge_string_in_zip(folder: Path) -> Path:
    content = b"\x80\x02}(X" + struct.pack("<I", (1 << 32) - 1) + b"w"
    return _torch_zip(folder / "ltuas.bin", content)


@hostile("ltu-as")
def _pickle_huge_memo(folder: Path) -> Path:
    return write(folder / "ltuas.bin", b"\x80\x02}r\xff\xff\xff\x7f.")


@hostile("ltu-as")
def _torch_storage_size_lies(folder: Path) -> Path:
    lie = _tensor(count=HUGE, shape=(1 << 30, 1 << 30), stride=(1 << 30, 1))
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", lie)))


@hostile("ltu-as")
def _torch_view_beyond_its_storage(folder: Path) -> Path:
    lie = _tensor(count=16, shape=(4, 400), stride=(400, 1))
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", lie)))


@hostile("ltu-as")
def _torch_negative_offset(folder: Path) -> Path:
    lie = _tensor(count=16, shape=(4, 4), stride=(4, 1), offset=-8)
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", lie)))


@hostile("ltu-as")
def _torch_negative_stride(folder: Path) -> Path:
    lie = _tensor(count=16, shape=(4, 4), stride=(-4, 1), offset=12)
    return _torch_zip(folder / "ltuas.bin", _state_dict(("w", lie)))


@hostile("ltu-as")
def _torch_expanded_to_terabytes(folder: Path) -> Path:
    """Stride 0 is legal in PyTorch: 16 numbers seen as 2**40."""
    lie = _tensor(count=16, shape=(1 << 20, 1 << 20), stride=(0, 0))
    names = ("model.audio_proj.1.weight", "model.audio_encoder.time_tr.attn.query.weight")
    return _torch_zip(folder / "ltuas.bin", _state_dict(*((name, lie) for name in names)))


@hostile("ltu-as")
def _torch_sparse_tensor(folder: Path) -> Path:
    import torch

    value = torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.ones(2), (3,))
    torch.save({"w": value}, folder / "ltuas.bin")
    return folder / "ltuas.bin"


@hostile("ltu-as")
def _torch_meta_tensor(folder: Path) -> Path:
    import torch

    torch.save({"w": torch.empty(1 << 20, 1 << 20, device="meta")}, folder / "ltuas.bin")
    return folder / "ltuas.bin"


@hostile("ltu-as", "compressed")
def _zip_bomb(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "ltuas.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", _state_dict(("w", GOOD)))
        with archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(16):
                entry.write(bytes(16 << 20))
        archive.writestr("archive/version", "3\n")
    assert (folder / "ltuas.bin").stat().st_size < 2 << 20
    return folder / "ltuas.bin"


@hostile("ltu-as", "overlap")
def _zip_entries_overlap(folder: Path) -> Path:
    """Two hundred directory entries that all point at the same megabyte."""
    path = _torch_zip(folder / "ltuas.bin", _state_dict(("w", GOOD)), {"0": bytes(1 << 20)})
    with zipfile.ZipFile(path, "a") as archive:
        (big,) = (info for info in archive.infolist() if info.filename.endswith("data/0"))
        for number in range(200):
            copy = zipfile.ZipInfo(f"archive/data/{number + 1}")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(copy, field, getattr(big, field))
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    return path


@hostile("ltu-as")
def _torch_zip_truncated(folder: Path) -> Path:
    path = _torch_zip(folder / "ltuas.bin", _state_dict(("w", GOOD)), {"0": bytes(1 << 16)})
    return write(path, path.read_bytes()[:-1000])


@hostile("ltu-as")
def _npz_with_objects(folder: Path) -> Path:
    np.savez(folder / "ltuas.npz", w=np.asarray([Call(os.system, touch(folder))], object))
    return folder / "ltuas.npz"
