"""Files that people take for weights and that are none."""

import re
from pathlib import Path

from ltu_jax.weights.identify.identified import HEAD_BYTES, Identified, only_problem

_AUDIO = (
    (b"fLaC", "FLAC"), (b"OggS", "Ogg"), (b"ID3", "MP3"), (b"\xff\xfb", "MP3"),
    (b"\xff\xf3", "MP3"),
)  # fmt: skip


def pointer(path: Path, head: bytes) -> Identified | None:
    """Recognise a Git LFS pointer or a web page under the name of the file that was wanted."""
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"^size (\d{1,15})$", head, re.M)
        told = f" of {int(size.group(1)):,} bytes" if size else ""
        return only_problem(
            "Git LFS pointer, not the file itself",
            f"{path} only points to a file{told} that was not downloaded; run `git lfs pull` in "
            "its repository",
        )
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        title = re.search(rb"<title[^>]*>(.{1,80}?)</title>", head, re.I | re.S)
        said = f" ({title.group(1).decode(errors='replace').strip()!r})" if title else ""
        return only_problem(
            "web page",
            f"{path} is a web page{said}, probably an error page saved under the name of a weight "
            "file; download the file again, with a link to the file itself",
        )
    return None


def numpy_array(path: Path, head: bytes) -> Identified | None:
    """Recognise a `.npy` file by its header; one with Python objects is never opened."""
    if not head.startswith(b"\x93NUMPY"):
        return None
    descr = re.search(rb"'descr': '([^']{1,20})'", head)
    shape = re.search(rb"'shape': (\([0-9, ]*\))", head)
    if descr is None or shape is None or b"O" in descr.group(1):
        return only_problem(
            "NumPy file with Python objects",
            f"{path} holds pickled Python objects, which may run code, and is refused",
        )
    return only_problem(
        f"one NumPy array {shape.group(1).decode()} of {descr.group(1).decode()}",
        "a single array is no model; weights are not read from .npy",
    )


def other(path: Path, head: bytes) -> Identified | None:
    """Recognise sounds, text, training data, and weights of other programs."""
    wave = head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE"
    audio = "WAV" if wave else next((n for magic, n in _AUDIO if head.startswith(magic)), None)
    if audio is None and head[4:8] == b"ftyp":
        audio = "MP4/M4A"
    if audio is not None:
        return only_problem(
            f"{audio} audio",
            f"{path.name} is a sound, not weights; ask about it with "
            f"`python -m ltu_jax.ask --checkpoint DIR {path.name} ...`",
        )
    if path.suffix == ".msgpack":
        return only_problem("Flax msgpack", "Flax weights are not read; take the safetensors file")
    if ".tfrecord" in path.name:
        return only_problem(
            "TFRecord data",
            "training data, not weights; `python -m data_pipelines.write_records` makes such files",
        )
    text = _as_text(head)
    return None if text is None else _text(path, text)


def _text(path: Path, text: str) -> Identified:
    if path.suffix == ".json" and path.stem in ("config", "adapter_config", "metadata"):
        return only_problem(
            "settings of a model", f"give the directory: {path.parent}, not the file in it"
        )
    if path.name.endswith(".index.json"):
        return only_problem("index of a sharded model", f"give its directory: {path.parent}")
    if path.suffix == ".json" or text.lstrip().startswith(("{", "[")):
        return only_problem("JSON text", f"{path.name} holds no weights; it begins {text[:60]!r}")
    return only_problem("text", f"{path.name} holds no weights; its text begins {text[:60]!r}")


def _as_text(head: bytes) -> str | None:
    """Return `head` as text, unless it is binary (a cut character at its end is allowed)."""
    try:
        text = head.decode("utf-8", errors="strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    odd = sum(not (char.isprintable() or char in "\t\r\n\f\ufeff") for char in text)
    ignored = len(head) - len(text.encode())
    return text if not odd and ignored <= 3 else None


def unknown(path: Path, head: bytes) -> Identified:
    """Show the first bytes of a file that nothing here knows."""
    shown = " ".join(f"{byte:02x}" for byte in head[:16])
    printable = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in head[:16])
    return only_problem(
        "unknown binary file",
        f"{path} begins with {shown} ({printable!r}), which is no weight format that ltu_jax "
        "knows; known are safetensors, PyTorch, GGUF and CTranslate2",
    )
