"""`convert info PATH`: what a file or folder is, in plain words, without reading its tensors.

    describe(path) -> Description        table(description) -> rows to print

Nothing raises for bad input: whatever is wrong with the file is a sentence in `problems`.
"""

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from ltu_jax.weights.identify.identified import HEAD_BYTES, Identified, only_problem
from ltu_jax.weights.identify.recognise import parameter_count
from ltu_jax.weights.identify.weight_file import identify_file
from ltu_jax.weights.identify.weight_folder import identify_folder

_BAR_BYTES = 1 << 30  # hashing less takes a few seconds
_UNTELLING = ("model", "pytorch_model", "weights", "adapter_model")  # file names of everybody
_CHUNK = 4 << 20
_NOTICE_BYTES = 64 << 10  # how much of a README is looked at
# OpenAI publishes the SHA-256 of its files in their addresses (whisper/__init__.py); these two have
# the same sizes, so nothing else tells them apart
_WHISPER_HASHES = {
    "e4b87e7e0bf463eb8e6956e646f1e277e901512310def2c24bf0e11bd3c28e9a": "Whisper large-v1",
    "81f7c96c852ee8fc832187b0132e569d6c3065a3252ed18e56effd0b6a73e524": "Whisper large-v2",
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What lies at `path`.

    `key` is the value of `--from` that reads such files, None when there is none; `next` is the
    whole command, None when `problems` says why it would fail. `sha256` is of the file, or of
    the lines "HASH  NAME" of all files of a folder; "" when it was not asked for.
    """

    path: Path
    format: str
    key: str | None
    model: str
    stage: str
    sizes: Mapping[str, int]
    tensors: int
    parameters: int
    bytes: int
    dtypes: tuple[str, ...]
    sha256: str
    licence: str
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    next: str | None


def describe(path: str | Path, *, hash: bool = True) -> Description:
    """Say what a file or folder is.

    Args:
        path: anything; it need not exist.
        hash: compute the SHA-256, with a progress bar above 1 GB.
    """
    path = Path(path)
    try:
        identified, files = _find(path)
        size = sum(file.stat().st_size for file in files)
        digest = _sha256(path, files, size=size) if hash and files else ""
        licence = identified.licence or _licence(path)
    except OSError as error:
        identified = only_problem(
            "unreadable", f"{error.filename or path} cannot be read: {error.strerror}"
        )
        size, digest, licence = 0, "", ""
    model = identified.model.words if identified.model is not None else ""
    return Description(
        path=path,
        format=identified.format,
        key=identified.key,
        model=_WHISPER_HASHES.get(digest, model),
        stage=identified.model.stage if identified.model is not None else "",
        sizes=dict(identified.model.sizes) if identified.model is not None else {},
        tensors=len(identified.tensors),
        parameters=parameter_count(identified.tensors),
        bytes=size,
        dtypes=identified.dtypes,
        sha256=digest,
        licence=licence,
        problems=identified.problems,
        notes=identified.notes,
        next=_command(identified),
    )


def table(description: Description) -> tuple[tuple[str, str], ...]:
    """Return (name, value) rows for the printout, without those that have nothing to say."""
    it = description
    rows = [("path", str(it.path)), ("format", it.format), ("model", it.model), ("stage", it.stage)]
    rows.append(("sizes", ", ".join(f"{name}={value}" for name, value in it.sizes.items())))
    if it.tensors:
        rows.append(
            ("tensors", f"{it.tensors:,} tensors, {it.parameters:,} parameters, "
                        f"{', '.join(it.dtypes)}")
        )  # fmt: skip
    rows.append(("on disk", f"{it.bytes / 1e6:,.1f} MB ({it.bytes:,} bytes)" if it.bytes else ""))
    rows += [("sha256", it.sha256), ("licence", it.licence)]
    rows += [("note", note) for note in it.notes]
    rows += [("problem", _one_line(problem)) for problem in it.problems]
    rows.append(("import it with", it.next or ""))
    return tuple((name, value) for name, value in rows if value)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _find(path: Path) -> tuple[Identified, list[Path]]:
    """Return what it is, and the files that make it up."""
    if not path.exists():
        if path.is_symlink():
            problem = f"{path} is a symbolic link to {path.readlink()}, which does not exist"
            return only_problem("broken symbolic link", problem), []
        near = path.parent if path.parent.is_dir() else None
        seen = sorted(entry.name for entry in near.iterdir())[:5] if near else []
        hint = f"; {near} holds {', '.join(seen)}" if seen else ""
        return only_problem("nothing", f"{path} does not exist{hint}"), []
    if path.is_dir():
        identified = identify_folder(path)
        if identified.model is None:  # perhaps somebody's home: not worth hashing
            return identified, []
        return identified, sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
    if not path.is_file():
        problem = f"{path} is a device or a pipe, not a regular file"
        return only_problem("not a file", problem), []
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return _in_its_folder(path, identify_file(path, head=head)), [path]


def _in_its_folder(path: Path, identified: Identified) -> Identified:
    """Point from a weight file of a Hugging Face directory to the directory."""
    hugging_face = identified.model is not None and identified.model.family in (
        "hf-llama",
        "hf-whisper",
    )
    if not hugging_face or not (path.parent / "config.json").is_file():
        return identified
    folder = identify_folder(path.parent)
    if folder.key != identified.model.family:
        return identified
    return dataclasses.replace(
        identified,
        key=folder.key,
        weights=path.parent,
        problems=folder.problems,
        notes=(f"a file of the Hugging Face directory {path.parent}, which is imported whole",),
    )


def _sha256(path: Path, files: list[Path], *, size: int) -> str:
    hashes: list[tuple[str, str]] = []
    with tqdm(
        total=size, unit="B", unit_scale=True, desc=f"hash {path.name}", disable=size < _BAR_BYTES
    ) as bar:
        for file in files:
            digest = hashlib.sha256()
            with file.open("rb") as opened:
                while piece := opened.read(_CHUNK):
                    digest.update(piece)
                    bar.update(len(piece))
            name = file.relative_to(path).as_posix() if file != path else file.name
            hashes.append((digest.hexdigest(), name))
    if not path.is_dir():
        return hashes[0][0]
    lines = "".join(f"{value}  {name}\n" for value, name in hashes)
    return hashlib.sha256(lines.encode()).hexdigest()


def _licence(path: Path) -> str:
    """Return what a LICENSE file or the head of a README.md says, in one line."""
    folder = path if path.is_dir() else path.parent
    for file in sorted(folder.iterdir()):
        name = file.name.lower()
        if not file.is_file() or not name.startswith(("license", "licence", "copying", "readme")):
            continue
        with file.open("rb") as opened:
            text = opened.read(_NOTICE_BYTES).decode("utf-8", errors="replace")
        if name.startswith("readme"):
            match = re.search(r"\A---\s.*?^licen[sc]e:\s*(\S[^\n]{0,80})", text, re.S | re.M)
        else:
            match = re.search(r"^\s*(\S[^\n]{0,80})", text)
        if match:
            return f"{match.group(1).strip()} ({file.name})"
    return ""


def _command(identified: Identified) -> str | None:
    """Return the command line that imports it; what has to be filled in is in capitals."""
    if identified.key is None or identified.weights is None or identified.problems:
        return None
    path = identified.weights.resolve()
    name = path.parent.name if path.stem in _UNTELLING else path.stem
    stem = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.") or "imported"
    words = ["python", "-m", "ltu_jax.convert", "--from", identified.key]
    words += ["--weights", shlex.quote(str(identified.weights))]
    if identified.key in ("ltu-as", "peft") and identified.base is not None:
        words += ["--llama", identified.base]
    return " ".join([*words, "--out", f"assets/{stem}"])
