"""Which folders training may write into: new ones, its own runs, and what has none of its files."""

from pathlib import Path

from ltu_jax import checkpoint
from ltu_jax.core import outputs
from ltu_jax.training.stage_config import StageSettings

_LOG = "log.jsonl"
_NAMES = (
    checkpoint.FOLDER,
    _LOG,
    "summary.json",
    "progress.json",
    "bad_batches",
    "bad_records*.jsonl",
)


def claim_run(settings: StageSettings) -> None:
    """Refuse, before any work, a run folder whose files no training has written.

    Raises:
        UserError: names them; or the folder is that of the records or of base weights.
    """
    weights = settings.weights
    reads = (settings.data.records, weights.llama, weights.whisper)
    outputs.join(
        settings.run_dir,
        _MAKER,
        names=_NAMES,
        inputs=[path for path in reads if path],
        option="config.run_dir",
    )


def _run_before(path: Path) -> tuple[str, ...] | None:
    """A run by its log, or by a checkpoint, also one that was not finished."""
    if outputs.text_with('"step": ')(path / _LOG) is not None:
        return ()
    folder = path / checkpoint.FOLDER
    found = folder.iterdir() if folder.is_dir() else ()
    ours = (one.name.startswith(checkpoint.UNFINISHED) or _sealed(one) for one in found)
    return () if any(ours) else None


def _sealed(folder: Path) -> bool:
    listing = outputs.json_with("ltu_jax", "kind", "parameters")
    return listing(folder / checkpoint.METADATA) is not None


_MAKER = outputs.Maker(name="`python -m ltu_jax.train`", before=_run_before)
