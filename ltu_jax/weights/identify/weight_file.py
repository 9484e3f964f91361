"""What one file is, from its first bytes, its header and its tensor names; no tensor is read."""

import dataclasses
import re
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.weights.files import ct2_file, gguf_header, safetensors_file, torch_file
from ltu_jax.weights.formats import ct2_whisper, gguf_llama
from ltu_jax.weights.identify.identified import (
    Identified,
    dtypes_of,
    export_notes,
    leftover,
    only_problem,
)
from ltu_jax.weights.identify.not_weights import numpy_array, other, pointer, unknown
from ltu_jax.weights.identify.recognise import recognise
from ltu_jax.weights.tensors import Tensor, WeightsError
from ltu_jax.weights.verify import check_import

_TORCH_LEGACY = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # its magic number, as a pickle holds it
# our name of a format -> the option `--from` of the command line that reads such a file alone
_SINGLE_FILE_KEYS = {
    "openai-whisper": "openai-whisper",
    "whisper-at": "whisper-at",
    "ltu-as": "ltu-as",
    "gguf": "gguf",
}


def identify_file(path: Path, *, head: bytes) -> Identified:
    """Describe one regular file whose first `HEAD_BYTES` bytes are `head`.

    A damaged or hostile file gives a `Identified` with the reader's own message among the problems.
    """
    if (state := leftover(path)) is not None:
        return only_problem(
            f"{state} that Hugging Face's Trainer left",
            f"{path.name} holds no weights; the weights of this checkpoint are in "
            "pytorch_model.bin or model.safetensors beside it",
        )
    if not head:
        return only_problem(
            "empty file", f"{path} has 0 bytes: a failed download or copy; fetch it again"
        )
    for kind in (pointer, _gguf, _archive, numpy_array, _pickle, _ct2, _safetensors, other):
        if (identified := kind(path, head)) is not None:
            return identified
    return unknown(path, head)


def _with_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    format: str,
    key: str | None = None,
    licence: str = "",
) -> Identified:
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    model = recognise(shapes, hint=path.stem)
    key = key or _SINGLE_FILE_KEYS.get(model.family or "")
    problems = list(model.problems)
    if key is None and model.family in ("hf-llama", "hf-whisper"):
        problems.append(
            f"{path.name} alone does not say its number of heads: give the Hugging Face directory "
            "with its config.json"
        )
    if key is None and model.family == "lora":
        problems.append(
            "the LoRA alone has no audio weights: give the adapter directory with "
            "adapter_config.json and the audio weights"
        )
    notes: tuple[str, ...] = ()
    record = None
    try:
        notes, record = export_notes(path)
    except WeightsError as error:
        problems.append(str(error))
    alone = record is not None and record.kind == "ltu-as" and model.complete
    return Identified(
        format=format,
        key=key,
        model=model,
        weights=path,
        tensors=shapes,
        dtypes=dtypes_of(tensors),
        licence=licence,
        problems=tuple(problems),
        notes=notes,
        base=None if alone else "BASE_DIR",
    )


def _gguf(path: Path, head: bytes) -> Identified | None:
    if not head.startswith(gguf_header.MAGIC):
        return None
    try:
        header = gguf_header.read_header(path)
    except WeightsError as error:
        return only_problem("GGUF", str(error))
    metadata = header.metadata
    model = recognise(header.shapes, hint=path.stem)
    problems = list(model.problems)
    family = metadata.get("general.architecture")
    key: str | None = "gguf"
    if family not in ("llama", "qwen2"):
        key = None
        problems.append(f"its architecture is {family!r}; ltu_jax reads llama and qwen2")
    parts = metadata.get("split.count", 1)
    if (isinstance(parts, int) and parts > 1) or re.search(r"-\d{5}-of-\d{5}$", path.stem):
        key = None
        problems.append(
            f"this is one part of {parts} of a split model; join them with "
            "`llama-gguf-split --merge` and give the result"
        )
    if key is not None and not problems:
        try:
            # what the import itself would say, but for the numbers
            check_import(gguf_llama.from_gguf(path), "llama", subject=str(path))
        except UserError as error:
            key = None
            problems.append(str(error))
    name = metadata.get("general.name")
    return Identified(
        format=f"GGUF, architecture {family}",
        key=key,
        model=model,
        weights=path,
        tensors=header.shapes,
        dtypes=tuple(sorted(set(header.types.values()))),
        licence=str(metadata.get("general.license", "")),
        problems=tuple(problems),
        notes=(f"its name is {name}",) if name else (),
    )


def _archive(path: Path, head: bytes) -> Identified | None:
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            return only_problem("damaged ZIP archive", f"{path} is damaged: {error}")
        if any(name.endswith("data.pkl") for name in names):
            return _torch(path, "PyTorch file")
        if names and all(name.endswith(".npy") for name in names):
            return only_problem(
                f"NumPy archive of {len(names)} arrays",
                f"{path.name} holds arrays ({_first(names)}), for instance audio features; weights "
                "are not read from .npz",
            )
        return only_problem(
            f"ZIP archive of {len(names)} files",
            f"unpack it and give what is in it ({_first(names)})",
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")):
        return only_problem("compressed archive", f"unpack {path.name} and give what is in it")
    if head[257:262] == b"ustar":
        try:
            with tarfile.open(path, "r:") as archive:
                names = [member.name for _, member in zip(range(8), archive, strict=False)]
        except (tarfile.TarError, ValueError, OSError) as error:
            return only_problem("damaged TAR archive", f"{path} is damaged: {error}")
        if {"pickle", "storages"} & set(names):
            return _torch(path, "PyTorch file of before version 0.2")
        return only_problem("TAR archive", f"unpack it and give what is in it ({_first(names)})")
    return None


def _pickle(path: Path, head: bytes) -> Identified | None:
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        legacy = _TORCH_LEGACY in head[:32]
        return _torch(path, "PyTorch file of before version 1.6" if legacy else "Python pickle")
    return None


def _torch(path: Path, format: str) -> Identified:
    try:
        tree = torch_file.read_torch_tree(path)
    except WeightsError as error:
        return only_problem(format, str(error))
    problems: list[str] = []
    format = f"{format}, read as data only"
    inner = tree.get("model_state_dict")
    if isinstance(tree.get("dims"), Mapping) and isinstance(inner, Mapping):
        format, tree = f"OpenAI Whisper checkpoint ({format})", inner
    elif "param_groups" in tree and "state" in tree:
        return only_problem("optimiser state of PyTorch", f"{path.name} holds no weights")
    else:
        for name in ("state_dict", "model_state_dict", "model", "module"):
            if isinstance(tree.get(name), Mapping):
                problems.append(f"its tensors are inside {name!r}; save that dict on its own")
                tree = tree[name]
                break
    tensors = {
        name: value
        for name, value in tree.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        return only_problem(format, f"{path} holds no tensors by name")
    others = len(tree) - len(tensors)
    if others:
        problems.append(f"{others} entries besides its tensors; save state_dict() alone")
    identified = _with_tensors(path, tensors, format=format)
    return dataclasses.replace(identified, problems=(*identified.problems, *problems))


def _ct2(path: Path, head: bytes) -> Identified | None:
    if len(head) < 8:
        return None
    version, length = struct.unpack_from("<IH", head)
    spec = head[6 : 6 + length]
    if not (1 <= version <= 64 and 2 <= length <= 64 and re.fullmatch(rb"\w+Spec\0", spec)):
        return None
    return identify_ct2([path])


def identify_ct2(pieces: list[Path]) -> Identified:
    """Describe a CTranslate2 `model.bin`, perhaps in several pieces."""
    format = "CTranslate2 model" + (f" in {len(pieces)} pieces" if len(pieces) > 1 else "")
    try:
        model = ct2_file.read_model(pieces)
    except WeightsError as error:
        return only_problem(format, str(error))
    if model.spec != ct2_whisper.SPEC:
        return only_problem(
            f"{format} of {model.spec}", f"it is no Whisper: ltu_jax reads {ct2_whisper.SPEC} only"
        )
    identified = _with_tensors(pieces[0], model.tensors, format=format, key="ct2-whisper")
    if model.quantised is None:
        return identified
    problem = f"quantised to integers ({model.quantised}); take the float16 or float32 package"
    return dataclasses.replace(identified, key=None, problems=(*identified.problems, problem))


def _safetensors(path: Path, head: bytes) -> Identified | None:
    if path.suffix != ".safetensors" and head[8:9] != b"{":
        return None
    if path.suffix != ".safetensors" and struct.unpack("<Q", head[:8])[0] > 1 << 40:
        return None
    try:
        tensors = safetensors_file.read_safetensors(path)
        _, metadata, _ = safetensors_file.read_header(path)
    except WeightsError as error:
        return only_problem("safetensors", str(error))
    if not tensors:
        return only_problem("safetensors", f"{path} holds no tensors")
    return _with_tensors(
        path, tensors, format="safetensors",
        licence=metadata.get("license", metadata.get("licence", "")),
    )  # fmt: skip


def _first(names: list[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names[:3]) + (", ..." if len(names) > 3 else "")
