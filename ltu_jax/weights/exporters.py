"""Exports: one function for each format that weights can leave in, all atomic and streamed."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.checkpoint import FOLDER
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_dir, atomic_file, write_json
from ltu_jax.weights import export_record, lineage, makers, name_tables
from ltu_jax.weights.export_record import ExportRecord
from ltu_jax.weights.facts import GENERATION_FILE
from ltu_jax.weights.files import shards, torch_file
from ltu_jax.weights.formats import (
    hf_llama,
    hf_whisper,
    official_constants,
    official_ltu_as,
    openai_whisper,
    orbax,
    peft_adapter,
)
from ltu_jax.weights.formats.official_ltu_as import merge_lora
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import DTYPES, Tensors, cast, describe_casts
from ltu_jax.weights.verify import write_sums

PT = {"format": "pt"}  # what transformers wants to read in a safetensors header
ONE_FILE = 1 << 62
TORCH_SUFFIXES = (".bin", ".pt", ".pth")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a person may say about an export; metadata as of `importers.ImportOptions`."""

    dtype: str | None = field(
        default=None,
        metadata={
            "choices": DTYPES,
            "help": "store in this dtype (default: as it is); what is rounded is reported",
        },
    )
    adapter_only: bool = field(
        default=False,
        metadata={
            "help": "ltu-as: only what the official trainer saves (TLTR, projection, LoRA)",
        },
    )
    lora_names: str | None = field(
        default=None,
        metadata={
            "choices": ("default", "peft"),
            "help": "ltu-as: lora_A.default.weight as the official files (default), or "
            "lora_A.weight",
        },
    )
    base_name: str | None = field(
        default=None,
        metadata={
            "metavar": "NAME",
            "help": "peft: directory or hub name of the plain language model",
        },
    )
    llama: Path | None = field(
        default=None,
        metadata={"metavar": "DIR", "help": "export to orbax: the base weights"},
    )
    whisper: Path | None = field(
        default=None,
        metadata={"metavar": "DIR", "help": "orbax: the Whisper weights directory"},
    )


@dataclass(frozen=True, kw_only=True)
class Written:
    """What an export did: number of tensors, and lines for the summary."""

    tensors: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """How a format is written: what it is in words, the kinds and the options it takes."""

    write: Callable[[Weights, Path, ExportOptions], Written]
    description: str
    kinds: tuple[str, ...]
    takes: tuple[str, ...] = ("dtype",)


@contextlib.contextmanager
def _folder(out: Path, target: str) -> Iterator[Path]:
    """Yield the folder of an export, which has the SHA-256 of its files when it is complete."""
    with atomic_dir(out, makers.exported(target, folder=True)) as folder:
        yield folder
        write_sums(folder)


def _rounded(tensors: Tensors, options: ExportOptions) -> tuple[Tensors, tuple[str, ...]]:
    """Return the tensors in the asked dtype, and what that loses."""
    dtype = None if options.dtype is None else DTYPES[options.dtype]
    lost = describe_casts(tensors, dtype)
    return cast(tensors, dtype), (lost,) if lost else ()


def _common_dtype(tensors: Tensors) -> str:
    """Return the dtype of most numbers, for a config that names one."""
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype.name] = sizes.get(tensor.dtype.name, 0) + tensor.nbytes
    return max(sizes, key=sizes.__getitem__)


def _copy_tokenizer(weights: Weights, folder: Path) -> tuple[str, ...]:
    if weights.tokenizer_dir is None:
        return ("no tokenizer: there is none beside the weights",)
    for name, path in hf_llama.tokenizer_files(weights.tokenizer_dir).items():
        (folder / name).write_bytes(path.read_bytes())
    return ()


def _record(weights: Weights, name: str, *, without_base: bool = False) -> ExportRecord:
    """Return the record that this export leaves."""
    return ExportRecord(
        format=name,
        kind=weights.kind,
        config=json.loads(json.dumps(weights.config)),
        sha256=weights.sha256,
        source=json.loads(json.dumps(weights.source)),
        base=lineage.base_print(weights.tensors) if without_base else None,
        facts=weights.facts,
    )


def _to_official(weights: Weights, out: Path, options: ExportOptions) -> Written:
    """Write the official state dict: a file by suffix, or a directory with config and tokenizer."""
    if out.suffix and out.suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise UserError(f"--out {out}: give .safetensors, .bin or a directory without a suffix")
    tensors, notes = _rounded(
        official_ltu_as.to_official(
            weights.config,
            weights.tensors,
            adapter_only=options.adapter_only,
            spelling=options.lora_names or "default",
        ),
        options,
    )
    other = official_constants.unlike_official(weights.config)
    if other:
        notes += (
            f"the official PyTorch code has other constants: {'; '.join(other)}. Set them there; "
            "our import reads them from the record inside the file",
        )
    record = _record(weights, "ltu-as", without_base=options.adapter_only)
    if out.suffix:
        with atomic_file(out, makers.exported("ltu-as", folder=False)) as file:
            _write_file(file, tensors, record, desc="export ltu-as")
        return Written(tensors=len(tensors), notes=notes)
    with _folder(out, "ltu-as") as folder:
        _write_file(folder / official_ltu_as.FILE, tensors, record, desc="export ltu-as")
        notes += _copy_tokenizer(weights, folder)
        settings = _llama_settings(weights, weights.config["llama"], folder, tensors, options)
        ours = {key: value for key, value in weights.config.items() if key != "llama"}
        write_json(folder / "config.json", settings | {"ltu_as": ours})
        export_record.write_beside(folder, record)
    return Written(tensors=len(tensors), notes=notes)


def _write_file(file: Path, tensors: Tensors, record: ExportRecord, *, desc: str) -> None:
    if file.suffix == ".safetensors":
        shards.write_shards(
            file.parent,
            tensors,
            stem=file.stem,
            metadata=PT | {export_record.KEY: record.text()},
            max_bytes=ONE_FILE,
            desc=desc,
        )
    else:
        torch_file.write_torch(file, tensors, extra={export_record.FILE: record.text()}, desc=desc)


def _to_hf(weights: Weights, out: Path, options: ExportOptions) -> Written:
    """Write a directory for `transformers`: Whisper, LLaMA, or LTU-AS with its LoRA merged."""
    if weights.kind == "whisper":
        tensors = hf_whisper.to_hf(weights.config, weights.tensors)
    else:
        tensors = name_tables.export(hf_llama.HF_RULES, merge_lora(weights.config, weights.tensors))
    tensors, notes = _rounded(tensors, options)
    with _folder(out, "hf") as folder:
        placed, _ = shards.write_shards(
            folder, tensors, stem="model", metadata=PT, desc="export hf"
        )
        shards.write_index(folder, placed, stem="model")
        if weights.kind == "whisper":
            notes += hf_whisper.write_hf_files(
                folder,
                weights.config,
                dtype=_dtype_word(weights, tensors, options),
                tokenizer_dir=weights.tokenizer_dir,
                facts=weights.facts,
            )
        else:
            notes += _copy_tokenizer(weights, folder)
            plain = weights.config["llama"] if weights.kind == "ltu-as" else weights.config
            settings = _llama_settings(weights, plain, folder, tensors, options)
            write_json(folder / "config.json", settings)
            if "max_position_embeddings" not in settings:
                notes += (
                    "the number of positions is not known: config.json has no "
                    "max_position_embeddings, and transformers takes the default of its class",
                )
        export_record.write_beside(folder, _record(weights, "hf"))
    if weights.kind == "ltu-as":
        notes += ("TLTR and projection are not in it: give their output as inputs_embeds",)
    return Written(tensors=len(tensors), notes=notes)


def _llama_settings(
    weights: Weights,
    config: Mapping[str, Any],
    folder: Path,
    tensors: Tensors,
    options: ExportOptions,
) -> dict[str, Any]:
    """Return config.json of the language model; write generation_config.json if there was one."""
    if (generation := weights.facts.get("source_generation_config")) is not None:
        write_json(folder / GENERATION_FILE, generation)
    source, ends = weights.facts.get("source_config"), weights.facts.get("end_tokens")
    settings = hf_llama.hf_config(
        config,
        dtype=_dtype_word(weights, tensors, options),
        tokens=_token_ids(weights.tokenizer_dir),
        source=source,
    )
    if source is None:  # of GGUF, which has facts and no config.json
        positions = weights.facts.get("max_position_embeddings")
        settings |= {} if positions is None else {"max_position_embeddings": positions}
        settings |= {"eos_token_id": ends if len(ends) > 1 else ends[0]} if ends else {}
    return settings


def _dtype_word(weights: Weights, tensors: Tensors, options: ExportOptions) -> str:
    """Return the dtype of config.json, in which transformers loads: as the source had it.

    As stored where --dtype was given, where LoRA was merged into kernels that are no longer the
    source's, and where numbers as they are stored could become infinite in float16.
    """
    source_config, stored = weights.facts.get("source_config") or {}, _common_dtype(tensors)
    word = source_config.get("dtype", source_config.get("torch_dtype"))
    changed = options.dtype is not None or weights.config.get("lora") is not None
    known = isinstance(word, str) and word in DTYPES
    if changed or not known or (word == "float16" and word != stored):
        return stored
    return word


def _token_ids(folder: Path | None) -> dict[str, int | None]:
    if folder is None:
        return {"bos": None, "eos": None, "pad": None}
    from ltu_jax.preprocessing.text import load_tokenizer

    tokenizer = load_tokenizer(folder)
    return {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}


def _to_openai(weights: Weights, out: Path, options: ExportOptions) -> Written:
    """Write OpenAI's `.pt`: {"dims", "model_state_dict"}."""
    if out.suffix not in TORCH_SUFFIXES:
        raise UserError(f"--out {out}: give a file name that ends in .pt")
    dims, tensors = openai_whisper.to_openai(weights.config, weights.tensors)
    tensors, notes = _rounded(tensors, options)
    if weights.tokenizer_dir is not None:
        notes += (
            f"a .pt has no tokenizer: bring it back with --tokenizer {weights.tokenizer_dir}",
        )
    with atomic_file(out, makers.exported("openai-whisper", folder=False)) as file:
        torch_file.write_torch(
            file,
            tensors,
            wrap=lambda state: {"dims": dims, "model_state_dict": state},
            extra={export_record.FILE: _record(weights, "openai-whisper").text()},
            desc="export openai-whisper",
        )
    return Written(tensors=len(tensors), notes=notes)


def _to_peft(weights: Weights, out: Path, options: ExportOptions) -> Written:
    """Write a PEFT adapter directory, and beside it the audio weights and our config."""
    imported = weights.source.get("base") if weights.source.get("format") == "peft" else None
    name = options.base_name or weights.base_name or imported
    if name is None:
        raise UserError(
            "--to peft needs --base-name: the Hugging Face directory or hub name of the plain "
            "language model, for adapter_config.json"
        )
    dtype = None if options.dtype is None else DTYPES[options.dtype]
    adapter = {path: t for path, t in weights.tensors.items() if lineage.is_adapter(path)}
    lost = describe_casts(adapter, dtype)
    adapter_files = peft_adapter.to_peft(weights.config, cast(adapter, dtype), base_name=name)
    with _folder(out, "peft") as folder:
        count = adapter_files.write(folder, desc="export peft")
        export_record.write_beside(folder, _record(weights, "peft", without_base=True))
    return Written(tensors=count, notes=((lost,) if lost else ()) + (f"base: {name}",))


def _to_orbax(weights: Weights, out: Path, options: ExportOptions) -> Written:
    """Write a run folder with one checkpoint, to start training from and to answer with."""
    for name in ("llama", "whisper"):
        if getattr(options, name) is None:
            raise UserError(f"--to orbax needs --{name}: the base weights that a checkpoint names")
    orbax.to_run(weights, base=options.llama, whisper=options.whisper, out=out)
    count = sum(lineage.is_adapter(path) for path in weights.tensors)
    return Written(tensors=count, notes=(f"start from it: --config.init_from={out}",))


def claim(name: str, out: Path, *, inputs: Sequence[Path | None]) -> None:
    """Refuse, before any work, an `out` that an export to the format `name` may not replace.

    Raises:
        UserError: names what is there, or the input that would be lost.
    """
    if name == "orbax":
        outputs.join(out, makers.exported(name, folder=True), names=(FOLDER,), inputs=inputs)
        return
    if name == "openai-whisper" and out.suffix not in TORCH_SUFFIXES:
        raise UserError(f"--out {out}: give a file name that ends in .pt")
    file = name == "openai-whisper" or (name == "ltu-as" and bool(out.suffix))
    outputs.claim(out, makers.exported(name, folder=not file), inputs=inputs)


TARGETS: dict[str, Target] = {
    "ltu-as": Target(
        write=_to_official,
        description="official LTU-AS state dict",
        kinds=("ltu-as",),
        takes=("dtype", "adapter_only", "lora_names"),
    ),
    "hf": Target(
        write=_to_hf,
        description="Hugging Face directory: Whisper, LLaMA, or LTU-AS with LoRA merged",
        kinds=("whisper", "llama", "ltu-as"),
    ),
    "peft": Target(
        write=_to_peft,
        description="PEFT adapter directory, with TLTR and projection as safetensors",
        kinds=("ltu-as",),
        takes=("dtype", "base_name"),
    ),
    "openai-whisper": Target(
        write=_to_openai,
        description="OpenAI Whisper .pt",
        kinds=("whisper",),
    ),
    "orbax": Target(
        write=_to_orbax,
        description="a run folder of ours with one checkpoint, over --llama and --whisper",
        kinds=("ltu-as",),
        takes=("llama", "whisper"),
    ),
}


def write(name: str, weights: Weights, out: Path, options: ExportOptions) -> Written:
    """Export a model to the format `name`.

    Raises:
        UserError: a kind that the format cannot hold, options that mean nothing there, or an
            `out` that cannot be written.
    """
    target = TARGETS[name]
    if weights.kind not in target.kinds:
        kinds = " or ".join(target.kinds)
        raise UserError(f"these are {weights.kind!r} weights; --to {name} needs {kinds} weights")
    for option, value in vars(options).items():
        if value and option not in target.takes:
            flag = f"--{option.replace('_', '-')}"
            raise UserError(f"{flag} has no meaning with --to {name}; leave it out")
    written = target.write(weights, out, options)
    notes = written.notes + lineage.remarks(weights.source, weights.tensors)
    return Written(tensors=written.tensors, notes=notes)


def parameter_count(params: Tensors) -> int:
    """Return how many numbers there are."""
    return sum(int(np.prod(tensor.shape, dtype=np.int64)) for tensor in params.values())


def describe(config: dict[str, Any]) -> str:
    """Return the sizes in a config, for a summary line."""
    return ", ".join(f"{key}={value}" for key, value in config.items() if type(value) is int)
