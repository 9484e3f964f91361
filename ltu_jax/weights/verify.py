"""Checks of weights: is a folder as it was written (`convert verify`), and can it be used?

A weights directory and a checkpoint name the SHA-256 of their files. An export is in a foreign
format that has no place for them, so they lie beside it in SHA256SUMS, as sha256sum writes it.

An import is checked here too: what was found, before hours of writing, and the result before it
takes its name. Its parts must hold together when they are opened, so "written" means usable.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltu_jax.checkpoint import recovery
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, sha256_file
from ltu_jax.core.paths import size_of
from ltu_jax.preprocessing.tokenizer import load_tokenizer, require_rows
from ltu_jax.weights import places, store
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import whisper_tokens
from ltu_jax.weights.makers import SUMS
from ltu_jax.weights.name_tables import Import
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.tensors import Tensor, WeightsError, finite, require_floats

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
# letters, digits, signs, scripts and spaces; no character of it may be a traceback
_PROBE = "Hear: 12 dogs, “wie bitte?”  é 你好 🎵\n\tdon't"


@dataclass(frozen=True, kw_only=True)
class FolderCheck:
    """The state of one folder; `problem` is empty where it is good."""

    folder: Path
    files: int
    size: int
    problem: str
    checkpoint: bool = False


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of every file of an exported folder beside them."""
    names = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    lines = "".join(f"{sha256_file(folder / name)}  {name}\n" for name in names)
    with atomic_file(folder / SUMS) as file:
        file.write_text(lines, encoding="utf-8")


def verify(path: Path) -> list[FolderCheck]:
    """Check a weights directory, an exported folder, or the checkpoints of runs; nothing changes.

    Raises:
        UserError: none of them.
    """
    if path.is_dir() and store.is_weights_dir(path):
        return [_verdict(path, _weights_problem(path))]
    if path.is_dir() and (path / SUMS).is_file():
        return [_verdict(path, _sums_problem(path))]
    if path.is_dir() and any(_weight_files(path)):
        path = places.find(path, option="DIR").path  # numbers are read on this machine alone
        return [_verdict(path, _reading_problem(path))]
    return [FolderCheck(**vars(check), checkpoint=True) for check in recovery.survey(path)]


def _weight_files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.iterdir()) if file.suffix in _WEIGHTS and file.is_file())


def _verdict(path: Path, problem: str) -> FolderCheck:
    files = [file for file in path.iterdir() if file.is_file()]
    return FolderCheck(
        folder=path,
        files=len(files),
        size=sum(size_of(file) for file in files),
        problem=problem,
    )


def _weights_problem(path: Path) -> str:
    try:
        store.load_weights(path, verify=False)
        for name, digest in store.read_header(path)["sha256"].items():
            shards.check_sha256(path / name, expected=digest)  # read, though the hash be known
        check_weights(path, name=str(path))
    except UserError as error:
        return str(error)
    return ""


def _sums_problem(path: Path) -> str:
    for number, line in enumerate((path / SUMS).read_text(encoding="utf-8").splitlines(), 1):
        digest, _, name = line.partition("  ")
        # a plain name: anything else could read outside the folder
        if not name or Path(name).name != name:
            return f"line {number} of {path / SUMS} is not a hash and a file of this folder"
        if not (path / name).is_file():
            return f"{path / name} is missing"
        if (digest_now := sha256_file(path / name)) != digest:
            return f"{path / name} was changed: its sha256 is {digest_now}, {SUMS} says {digest}"
    return ""


def _reading_problem(path: Path) -> str:
    """Read every tensor of a folder without hashes, and require numbers."""
    try:
        for file in _weight_files(path):
            tensors = shards.read_file(file)
            require_floats(tensors, subject=str(file))
            for name, tensor in tensors.items():
                for _ in finite(tensor, name, subject=str(file)).blocks():
                    pass
        if any((path / name).is_file() for pair in shards.PAIRS for name in pair):
            shards.read_checkpoint(path)  # an index and its shards
    except WeightsError as error:
        return str(error)
    return ""


def check_import(
    imported: Import, kind: str, *, subject: str
) -> tuple[dict[str, Any], dict[str, Tensor], tuple[str, ...]]:
    """Return what an import would become, all checked but the numbers.

    Returns:
        (the config, every parameter still to be read, notes for the summary).

    Raises:
        WeightsError: names or shapes that do not fit, or a tokenizer that could not be used.
    """
    config, shapes = model_shapes(kind, imported.config)
    params = imported.params(shapes, subject=subject)
    with tempfile.TemporaryDirectory(prefix="ltu-jax-") as name:
        for file, content in imported.files.items():
            if isinstance(content, str):
                (Path(name) / file).write_text(content, encoding="utf-8")
            elif isinstance(content, bytes):
                (Path(name) / file).write_bytes(content)
            else:
                shutil.copyfile(content, Path(name) / file)
        notes = _tokenizer(
            Path(name), kind, config, ends=imported.facts.get("end_tokens"), name=subject
        )
    return config, params, notes


def check_weights(folder: Path, *, name: str) -> None:
    """Open a weights directory as its users do, all but the numbers.

    Args:
        folder: where it lies now, perhaps under a temporary name.
        name: what an error calls it.

    Raises:
        WeightsError: it is not usable; the message says why.
    """
    held = store.load_weights(folder, verify=False)
    config, shapes = model_shapes(held.kind, held.config)
    store.check_against(shapes, held.params, subject=name)
    _tokenizer(folder, held.kind, config, ends=held.facts.get("end_tokens"), name=name)


def _tokenizer(
    folder: Path, kind: str, config: Mapping[str, Any], *, ends: list[int] | None, name: str
) -> tuple[str, ...]:
    """Load the tokenizer of a folder and hold it against the model; notes for the summary."""
    if not any((folder / file).is_file() for file in ("tokenizer.model", "tokenizer.json")):
        return ()
    try:
        if kind == "whisper":
            whisper_tokens.load(folder, rows=config["n_vocab"])
            return ()
        language = config if kind == "llama" else config["llama"]
        tokenizer = load_tokenizer(folder)
        require_rows(tokenizer, rows=language["vocab_size"], subject=name)
        ids = tokenizer.encode(_PROBE)
        if not ids:
            raise WeightsError(f"{name}: its tokenizer makes no ids of a text")
        tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id])
        tokenizer.decode(ids, skip_special=False)
    except UserError as error:
        # the temporary folder means nothing to anybody
        told = str(error).replace(f"{folder}/", "").replace(str(folder), name)
        raise WeightsError(f"{name} would not be usable: {told}") from None
    if ends and tokenizer.eos_id not in ends:
        return (
            f"answers end at the tokenizer's EOS, {tokenizer.eos_id}; the model's own settings "
            f"end at {', '.join(map(str, ends))}",
        )
    return ()
