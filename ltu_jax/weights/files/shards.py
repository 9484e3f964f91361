"""Weight files by name: one file or several with an index, in a folder or alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ltu_jax.core.files import inside, read_json, sha256_file, write_json
from ltu_jax.weights.files import known_hashes
from ltu_jax.weights.files.safetensors_file import (
    progress_bar,
    read_safetensors,
    require_space,
    write_safetensors,
)
from ltu_jax.weights.files.torch_file import read_torch
from ltu_jax.weights.tensors import Tensor, Tensors, WeightsError, damaged

SHARD_BYTES = 4 << 30
# a Hugging Face directory has the one or the other of a pair
PAIRS = tuple((name, f"{name}.index.json") for name in ("model.safetensors", "pytorch_model.bin"))
_TORCH_SUFFIXES = (".bin", ".pt", ".pth")


def check_sha256(path: str | Path, *, expected: str, known: bool = False) -> None:
    """Compare a file with its pinned hash.

    Args:
        path: the file.
        expected: hex SHA-256.
        known: believe a hash that is known and valid (`known_hashes`) instead of reading the file.

    Raises:
        WeightsError: the hashes differ.
    """
    digest = known_hashes.sha256(path) if known else sha256_file(path)
    if digest != expected.lower():
        raise damaged(Path(path), f"its sha256 is {digest}, expected {expected.lower()}")


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


def read_checkpoint(path: str | Path, *, chosen: str | None = None) -> dict[str, Tensor]:
    """Open a weight file, or a Hugging Face directory with one file or shards and an index.

    Args:
        path: the file or directory.
        chosen: as of `checkpoint_files`; means nothing of a file.

    Raises:
        WeightsError: nothing to read, a shard missing, a name in two shards, or a file and an
            index that are both there.
    """
    path = Path(path)
    if not path.is_dir():
        return read_file(path)
    listed = checkpoint_files(path, chosen=chosen)
    if len(listed.files) == 1 and listed.index is None:
        return read_file(listed.files[0])
    tensors: dict[str, Tensor] = {}
    for file in listed.files:
        for name, tensor in read_file(file).items():
            if name in tensors:
                raise WeightsError(f"{file}: {name} is also in another shard")
            tensors[name] = tensor
    lost = sorted(set(listed.names) - set(tensors))
    if lost:
        raise damaged(
            path, f"{len(lost)} tensors of {listed.index.name} are in no shard: {lost[:10]}"
        )
    return tensors


@dataclass(frozen=True, kw_only=True)
class CheckpointFiles:
    """The weight files of a directory, the index that lists them, the names that it promises."""

    files: tuple[Path, ...]
    index: Path | None
    names: tuple[str, ...]


def checkpoint_files(path: Path, *, chosen: str | None = None) -> CheckpointFiles:
    """Find the weight files of a Hugging Face directory: safetensors before pickles.

    Args:
        path: the directory.
        chosen: the weight file or index to read where there are several.

    Raises:
        WeightsError: none, a shard missing, an index that leads out of the directory, or a file
            and an index of other files side by side: one of them is left from another save.
    """
    pairs = [(path / whole, path / index) for whole, index in PAIRS]
    if chosen is not None:
        there = [file.name for pair in pairs for file in pair if file.is_file()]
        if chosen not in there:
            raise WeightsError(
                f"--weights-file {chosen}: {path} has {', '.join(there) or 'no weights'}"
            )
        pairs = [tuple(f if f.name == chosen else path / "-" for f in pair) for pair in pairs]
    for whole, index in pairs:
        listed = _indexed(path, index, whole.suffix) if index.is_file() else None
        if whole.is_file() and listed is not None and listed.files != (whole,):
            raise WeightsError(
                f"{path} has {whole.name} and {index.name}, which lists {len(listed.files)} other "
                "files: one of them is left from another save. Remove the one that is not meant, "
                f"or say which to read: --weights-file {whole.name} or --weights-file {index.name}"
            )
        if whole.is_file():
            return CheckpointFiles(files=(whole,), index=None, names=())
        if listed is not None:
            return listed
    raise WeightsError(
        f"{path} holds no weights: expected model.safetensors, pytorch_model.bin or one of them "
        "in shards with its .index.json"
    )


def _indexed(path: Path, index: Path, suffix: str) -> CheckpointFiles:
    settings = read_json(index)
    listed = settings.get("weight_map") if isinstance(settings, dict) else None
    if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
        raise WeightsError(f"{index} has no weight_map of file names")
    shards = sorted(set(listed.values()))
    odd = [name for name in shards if not name.endswith(suffix)]
    if odd:
        raise WeightsError(
            f"{index} is refused: it names {odd[0]!r}, which is no {suffix} file beside it"
        )
    files = tuple(inside(path, name, where=index, error=WeightsError) for name in shards)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise WeightsError(f"{path} lacks {len(missing)} of {len(shards)} shards: {missing[:10]}")
    return CheckpointFiles(files=files, index=index, names=tuple(listed))


def write_shards(
    folder: Path,
    tensors: Tensors,
    *,
    stem: str,
    metadata: Mapping[str, str],
    max_bytes: int = SHARD_BYTES,
    desc: str | None = None,
) -> tuple[dict[str, str], dict[str, str]]:
    """Write `stem.safetensors`, or `stem-00001-of-0000N.safetensors` above `max_bytes`.

    Args:
        folder: where to write.
        tensors: read one after the other, in blocks.
        stem: begins the file names.
        metadata: strings for the header of each file.
        max_bytes: of the numbers in a file; a larger tensor has a file of its own.
        desc: label of the progress bar; None shows none.

    Returns:
        ({tensor name: file name}, {file name: hex SHA-256}).
    """
    groups: list[dict[str, Tensor]] = [{}]
    held = 0
    for name, tensor in tensors.items():
        if groups[-1] and held + tensor.nbytes > max_bytes:
            groups.append({})
            held = 0
        groups[-1][name] = tensor
        held += tensor.nbytes
    total = sum(tensor.nbytes for tensor in tensors.values())
    require_space(folder, total)
    placed: dict[str, str] = {}
    hashes: dict[str, str] = {}
    with progress_bar(desc, total) as bar:
        for number, group in enumerate(groups):
            tail = "" if len(groups) == 1 else f"-{number + 1:05d}-of-{len(groups):05d}"
            file = f"{stem}{tail}.safetensors"
            hashes[file] = write_safetensors(
                folder / file, group, metadata=metadata, progress=bar.update
            )
            placed.update(dict.fromkeys(group, file))
    return placed, hashes


def write_index(folder: Path, placed: Mapping[str, str], *, stem: str) -> None:
    """Write `stem.safetensors.index.json` when the tensors are in more than one file."""
    files = set(placed.values())
    if len(files) < 2:
        return
    total = sum((folder / name).stat().st_size for name in files)
    index = {"metadata": {"total_size": total}, "weight_map": dict(placed)}
    write_json(folder / f"{stem}.safetensors.index.json", index)
