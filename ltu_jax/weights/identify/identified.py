"""The result that every part of `convert info` gives, and what they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ltu_jax.weights import export_record, lineage
from ltu_jax.weights.export_record import ExportRecord
from ltu_jax.weights.identify.recognise import RecognisedModel
from ltu_jax.weights.tensors import Tensor

HEAD_BYTES = 4096  # of a file, enough to tell its kind
# what Hugging Face's Trainer leaves beside the weights of a checkpoint
LEFTOVERS = {
    "optimizer.pt": "optimiser state",
    "scheduler.pt": "learning-rate scheduler",
    "scaler.pt": "gradient scaler",
    "rng_state": "random state",
    "training_args.bin": "training arguments (a pickle with code)",
    "trainer_state.json": "training log",
}


@dataclass(frozen=True, kw_only=True)
class Identified:
    """What a file or folder turned out to be.

    `weights` is the path that the command would name, and `base` what it says after `--llama`
    where the format takes a base; None where the import knows it without.
    """

    format: str
    key: str | None = None
    model: RecognisedModel | None = None
    weights: Path | None = None
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ()
    licence: str = ""
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    base: str | None = "BASE_DIR"


def only_problem(format: str, problem: str) -> Identified:
    """Return something that cannot be imported, and why."""
    return Identified(format=format, problems=(problem,))


def export_notes(path: Path) -> tuple[tuple[str, ...], ExportRecord | None]:
    """Return what an export of ours says about itself, and its record; nothing for others.

    Raises:
        WeightsError: a damaged record.
    """
    record = export_record.read(path)
    if record is None:
        return (), None
    origin = " ".join(
        f"{key} {record.source[key]}"
        for key in ("format", "name", "file", "stage", "step")
        if record.source.get(key) not in (None, "")
    )
    notes = (
        f"exported by ltu_jax with --to {record.format}, from {record.kind} weights"
        + (f" ({origin})" if origin else "")
        + f", sha256 {record.sha256}",
    )
    return notes + lineage.remarks(record.source), record


def dtypes_of(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return the dtypes of what is not a single number, sorted."""
    return tuple(sorted({tensor.dtype.name for tensor in tensors.values() if tensor.shape}))


def leftover(path: Path) -> str | None:
    """Return what a file of Hugging Face's Trainer holds besides weights; None for any other."""
    stem = "rng_state" if path.name.startswith("rng_state") else path.name
    return LEFTOVERS.get(stem)
