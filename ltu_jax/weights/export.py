"""Exports: official LTU-AS state dicts, and plain language models for `transformers`."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from tqdm import tqdm

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_dir, write_json
from ltu_jax.models import build
from ltu_jax.models.llama import LlamaConfig
from ltu_jax.models.ltu_as import LTUASConfig
from ltu_jax.models.whisper import WhisperConfig
from ltu_jax.weights import io, llama, ltu_as, rules

DTYPES = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def model_shapes(
    kind: str, config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    """The validated config as a dict, and the shape of every parameter of that model."""
    types = {"whisper": WhisperConfig, "llama": LlamaConfig, "ltu-as": LTUASConfig}
    makers = {"whisper": build.whisper, "llama": build.llama, "ltu-as": build.ltu_as}
    typed = types[kind].from_dict(config)
    shapes = {path: leaf.shape for path, leaf in makers[kind](typed).shapes.items()}
    return dataclasses.asdict(typed), shapes


def cast(
    pairs: Iterable[tuple[str, np.ndarray]], dtype: str | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Cast every array to the named dtype; None leaves them as they are."""
    for name, array in pairs:
        yield name, array if dtype is None else np.asarray(array).astype(DTYPES[dtype], copy=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A complete model to export: config dict, lazy parameters, where its tokenizer lies."""

    kind: str
    config: dict[str, Any]
    params: Mapping[str, np.ndarray]
    tokenizer_dir: Path | None


def export_official(
    held: Opened,
    *,
    config: dict[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    out: Path,
    dtype: str | None,
    adapter_only: bool,
) -> int:
    """Write the official state dict to a file, or to a directory with config and tokenizer.

    Returns:
        The number of tensors.

    Raises:
        UserError: `out` has an unknown suffix, or is a directory where a file is meant.
    """
    names = ltu_as.official_shapes(config, shapes, adapter_only=adapter_only)
    pairs = ltu_as.to_official(config, held.params, shapes, adapter_only=adapter_only)
    pairs = tqdm(cast(pairs, dtype), total=len(names), desc="export ltu-as", unit="tensor")
    is_file = bool(out.suffix)
    if is_file and out.suffix not in (".safetensors", ".bin", ".pt", ".pth"):
        raise UserError(f"--out {out}: give .safetensors, .bin or a directory without a suffix")
    if out.is_dir() == is_file and out.exists():
        raise UserError(f"--out {out} exists and is {'a directory' if is_file else 'a file'}")
    # written whole beside its place, then moved there in one step
    with atomic_dir(out.with_name(out.name + ".export") if is_file else out) as folder:
        file = folder / (out.name if is_file else ltu_as.FILE)
        if file.suffix == ".safetensors":
            io.write_shards(
                folder, pairs, stem=file.stem, metadata={"format": "pt"}, max_bytes=1 << 62
            )
        else:
            io.write_torch(file, pairs)
        if is_file:
            file.replace(out)
        else:
            _copy_tokenizer(held, folder)
            settings = llama.hf_config(config["llama"], dtype=dtype or "float32", tokens={})
            ours = {key: value for key, value in config.items() if key != "llama"}
            write_json(folder / "config.json", settings | {"ltu_as": ours})
    if is_file:
        out.with_name(out.name + ".export").rmdir()
    return len(names)


def export_hf(held: Opened, *, config: dict[str, Any], out: Path, dtype: str | None) -> int:
    """Write a directory for `AutoModelForCausalLM.from_pretrained`, LoRA merged.

    Returns:
        The number of tensors.
    """
    plain = config["llama"] if held.kind == "ltu-as" else config
    params = ltu_as.Merged(config, held.params)
    _, shapes = model_shapes("llama", plain)
    names = rules.foreign_shapes(llama.HF_RULES, shapes)
    stored = dtype or np.asarray(held.params["llama.norm.scale"]).dtype.name
    pairs = cast(rules.export(llama.HF_RULES, params, shapes), stored)
    pairs = tqdm(pairs, total=len(names), desc="export hf", unit="tensor")
    with atomic_dir(out) as folder:
        placed = io.write_shards(folder, pairs, stem="model", metadata={"format": "pt"})
        if len(set(placed.values())) > 1:
            total = sum((folder / name).stat().st_size for name in set(placed.values()))
            index = {"metadata": {"total_size": total}, "weight_map": placed}
            write_json(folder / "model.safetensors.index.json", index)
        _copy_tokenizer(held, folder)
        tokens = _token_ids(held.tokenizer_dir)
        write_json(folder / "config.json", llama.hf_config(plain, dtype=stored, tokens=tokens))
    return len(placed)


def _token_ids(folder: Path | None) -> dict[str, int | None]:
    if folder is None:
        return {"bos": None, "eos": None, "pad": None}
    from ltu_jax.preprocessing.text import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}


def _copy_tokenizer(held: Opened, folder: Path) -> None:
    files = {} if held.tokenizer_dir is None else llama.tokenizer_files(held.tokenizer_dir)
    for name, path in files.items():
        (folder / name).write_bytes(path.read_bytes())
