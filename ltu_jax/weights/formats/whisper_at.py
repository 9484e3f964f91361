"""Whisper-AT: the TL-TR audio tagger that its authors publish beside OpenAI's Whisper.

What is published (Gong et al., Interspeech 2023; PyPI package whisper-at 0.5): for each Whisper
`NAME_ori.pth`, the full TL-TR at the encoder's width, and from small on `NAME_low.pth`, which
projects to 512 first (`down_layer`). Both are plain state dicts of 34 and 38 float32 tensors named
`at_model.*`; its trainer's own checkpoints (`audio_model_wa.pth`) say `module.*` instead. Both have
one head over time, eight over layers, 527 AudioSet labels. LayerNorms stand before `down_layer`
and `mlp_layer` (`.0`, their linear layers are `.1`).
"""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from ltu_jax.core.text_files import open_text
from ltu_jax.weights.diagnosis import architecture
from ltu_jax.weights.files import shards
from ltu_jax.weights.formats import name_prefixes
from ltu_jax.weights.formats.official_constants import OFFICIAL_HEADS, WHISPER_DEPTH
from ltu_jax.weights.name_tables import Import, NameRule, attention_block, dense, norm
from ltu_jax.weights.tensors import Tensor, WeightsError

LABELS = "labels.csv"  # in a weights directory: index,mid,display_name, as AudioSet's own table
_LABEL_FILES = (LABELS, "class_labels_indices.csv")
_PUBLISHED = re.compile(r"(?P<whisper>.+)_(ori|low)\.pth")
_WHISPER = re.compile(r"(encoder|decoder)\..+")
_QUERY, _HEAD, _DOWN = "time_tr.attn.query.weight", "mlp_layer.1.weight", "down_layer.1.weight"


def _rules() -> tuple[NameRule, ...]:
    table = [*norm("down_layer.0", "down.norm"), *dense("down_layer.1", "down")]
    for block in ("time_tr", "layer_tr"):
        table += attention_block(block, f"tltr.{block}")
    table += norm("mlp_layer.0", "label_head.norm")
    table += dense("mlp_layer.1", "label_head")
    return tuple(table)


RULES = _rules()


def from_whisper_at(
    path: str | Path, *, audio_layers: int | None = None, labels: str | Path | None = None
) -> Import:
    """Open a Whisper-AT checkpoint, full or low; its config is a `TaggerConfig` (kind "tltr").

    Args:
        path: the `.pth` (or safetensors) state dict. Of one that also holds Whisper itself only
            the tagger is taken, and a note says so.
        audio_layers: layers of the Whisper encoder; None takes them from the file where it holds
            the encoder, else from the encoder's width, else leaves them open.
        labels: a table with the columns index, mid and display_name; None looks for labels.csv or
            class_labels_indices.csv beside the file. It is copied into the weights directory.

    Raises:
        WeightsError: not Whisper-AT, a name there twice, an encoder of another width inside, or a
            table of other labels. Names and shapes are checked by `Import.params`.
    """
    path = Path(path)
    tensors, encoder = _split(shards.read_file(path), path=path)
    (d_model, _), (count, _) = _matrix(tensors, _QUERY, path), _matrix(tensors, _HEAD, path)
    low = _DOWN in tensors
    width = _matrix(tensors, _DOWN, path)[1] if low else d_model
    notes = [
        f"the low variant: {width} wide features are projected to {d_model}. It tags; stage 1 "
        "starts from the full one only"
        if low
        else f"the full variant: the TLTR is {width} wide, as the Whisper encoder it belongs to"
    ]
    if encoder:
        notes.append(
            f"the file also holds Whisper: its {len(encoder)} tensors are left out; import Whisper "
            "from OpenAI's or Hugging Face's own file"
        )
        audio_layers = audio_layers or _depth(encoder, width=width, path=path)
    audio_layers = audio_layers or WHISPER_DEPTH.get(width)
    if audio_layers is None:
        notes.append(f"width {width} is of no Whisper: any number of audio layers is taken")
    table = _label_table(path, labels, count=count)
    if table is None:
        notes.append(f"no label table beside the file: the {count} labels have numbers only")
    published = _PUBLISHED.fullmatch(path.name)
    return Import(
        config={
            "tltr": OFFICIAL_HEADS | {"d_model": d_model},
            "labels": count,
            "d_input": width if low else None,
            "audio_layers": audio_layers,
        },
        rules=RULES,
        tensors=tensors,
        files={} if table is None else {LABELS: table},
        source={
            "format": "whisper-at",
            "file": path.name,
            "variant": "low" if low else "full",
            "whisper": published["whisper"] if published else None,
        },
        notes=tuple(notes),
    )


def read_labels(path: str | Path, *, count: int) -> tuple[str, ...]:
    """Return the display names of a label table, in the order of the tagger's outputs.

    Raises:
        WeightsError: other columns, rows that are not numbered 0, 1, 2 ..., or not `count` of them.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"label table {path} does not exist or is not a file")
    with open_text(path, expected="a label table", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != ["index", "mid", "display_name"]:
            raise WeightsError(
                f"{path} is not a label table: its columns are {reader.fieldnames}, expected index,"
                "mid,display_name (AudioSet's class_labels_indices.csv)"
            )
        rows = list(reader)
    if [row["index"] for row in rows] != [str(number) for number in range(count)]:
        raise WeightsError(
            f"{path} has {len(rows)} rows, which must be numbered 0 to {count - 1} as the tagger's "
            f"{count} labels; give the table it was trained with, or take this one away"
        )
    return tuple(row["display_name"] for row in rows)


def _split(
    tensors: Mapping[str, Tensor], *, path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the tagger's tensors by their plain names, and those of a Whisper beside it."""
    plain = {name: name_prefixes.plain(name) for name in tensors}
    beside = any(name.startswith("at_model.") for name in plain.values())
    tagger: dict[str, Tensor] = {}
    whisper: dict[str, Tensor] = {}
    for name, short in plain.items():
        part = whisper if beside and _WHISPER.fullmatch(short) else tagger
        short = short.removeprefix("at_model.")
        if short in part:
            raise WeightsError(f"{path}: {name} is there twice, with and without its prefix")
        part[short] = tensors[name]
    return tagger, whisper


def _matrix(tensors: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, int]:
    """Return the shape of a weight from which sizes are read."""
    if name in tensors and len(tensors[name].shape) == 2:
        return tensors[name].shape
    if any("audio_encoder.time_tr" in key for key in tensors):
        cause = "this is an LTU-AS state dict; use --from ltu-as"
    elif other := architecture(tensors):
        cause = f"weights of another architecture: found {other}"
    else:
        cause = "a baseline of Whisper-AT's trainer, or no tagger at all; TL-TR is what is imported"
    state = "no" if name not in tensors else "no matrix"
    raise WeightsError(
        f"{path} is not a Whisper-AT checkpoint: {state} {name} among its {len(tensors)} names. "
        f"Likely cause: {cause}"
    )


def _depth(encoder: Mapping[str, Tensor], *, width: int, path: Path) -> int | None:
    """Return the layers of the encoder inside a complete file, which must be the tagger's."""
    conv = encoder.get("encoder.conv1.weight")
    if conv is not None and conv.shape[0] != width:
        raise WeightsError(
            f"{path} holds a Whisper of width {conv.shape[0]} beside a tagger for width {width}; "
            "they do not belong together"
        )
    layers = {
        match[1] for name in encoder if (match := re.match(r"encoder\.blocks\.(\d+)\.", name))
    }
    return len(layers) or None


def _label_table(path: Path, given: str | Path | None, *, count: int) -> Path | None:
    beside = [path.parent / name for name in _LABEL_FILES if (path.parent / name).is_file()]
    table = Path(given) if given is not None else next(iter(beside), None)
    if table is not None:
        read_labels(table, count=count)
    return table
