"""Benchmarks that a model was trained on: their scores tell its memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.records import record_files
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.dataset import Dataset

UNKNOWN = "what it was trained on is not known here"
_OPTION = "--on-training-data"


def overlap(dataset: Dataset, model: Mapping[str, Any]) -> str | None:
    """Return why the model was trained on these items, or may have been; None if it was not.

    Args:
        dataset: of a benchmark that is training data (`Benchmark.training_data`) or any.
        model: config.json of a weights directory, or metadata of a checkpoint.
    """
    if not dataset.benchmark.training_data:
        return None
    source = model.get("source")
    source = source if isinstance(source, Mapping) else {}
    if "base" not in model:  # a weights directory: of others, or exported from a run of ours
        ours = source.get("format") == "orbax" or not source
        return UNKNOWN if ours else "the released LTU-AS is trained on all of it"
    folder = model.get("config", {}).get("data", {}).get("records")
    try:
        splits = record_files.read_manifest(Path(folder))["splits"] if folder else {}
    except UserError:
        splits = {}
    trained = {name for split in splits.values() for name in split.get("datasets", ())}
    if not trained:
        return f"its records, {folder}, cannot be looked into"
    datasets = {item.groups.get("dataset", "") for item in dataset.items}
    both = sorted(datasets & trained)
    return f"its records {folder} hold {', '.join(both[:5])}" if both else None


def refuse(dataset: Dataset, why: str | None, *, asked_for: bool) -> str | None:
    """Return a remark for the results, or None where there is nothing to remark.

    Raises:
        UserError: the model is trained on what is asked, and nobody asked for it.
    """
    if why is None:
        return None
    if why != UNKNOWN and not asked_for:
        raise UserError(
            f"{dataset.name} is training data of this model ({why}): its scores say how well "
            f"answers are remembered, not how well is heard. Ask it anyway with {_OPTION}; the "
            "results then say so"
        )
    return f"{dataset.name} is training data of LTU-AS ({why}); not a held-out score"
