"""The published scores of LTU-AS, and which of our figures belongs under which of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ltu_jax.evaluation.report import formatting

SOURCE = "Gong et al., ASRU 2023, poster"
MODES = ("joint", "audio", "text")  # those that the poster's ablations have


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of the poster's table, and our benchmark, split (None: its only one) and metric."""

    title: str
    benchmark: str
    split: str | None
    metric: str


COLUMNS = (
    Column(title="ESC-50 accuracy\u00a0↑", benchmark="esc50", split=None, metric="accuracy"),
    Column(title="AudioCaps SPICE\u00a0↑", benchmark="audiocaps", split="test", metric="SPICE"),
    Column(
        title="LibriSpeech test-clean WER\u00a0↓",
        benchmark="librispeech",
        split="test-clean",
        metric="WER",
    ),
    Column(title="IEMOCAP accuracy\u00a0↑", benchmark="iemocap", split=None, metric="accuracy"),
    Column(
        title="VoxCeleb2 gender macro-F1\u00a0↑",
        benchmark="voxceleb2",
        split="test",
        metric="macro-F1",
    ),
    Column(title="VoxCeleb2 age MAE\u00a0↓", benchmark="voxceleb2", split="test", metric="MAE"),
    Column(title="GTZAN accuracy\u00a0↑", benchmark="gtzan", split=None, metric="accuracy"),
)

# One entry for each of COLUMNS, as printed: percent, or years off. "-" was not reported.
PUBLISHED: Mapping[str, tuple[str, ...]] = {
    "best supervised": ("97.0", "17.7", "1.4", "70.6", "98.3", "9.4", "93.9"),
    "AudioCLIP": ("69.4", "-", "-", "-", "-", "-", "-"),
    "CLAP": ("82.6", "-", "-", "-", "-", "-", "25.2"),
    "LTU-AS": ("80.8", "15.0", "4.9", "65.2", "90.8", "7.3", "50.3"),
    "trained on audio only": ("82.8", "17.0", "104.2", "38.2", "77.0", "fail", "29.8"),
    "trained on speech only": ("10.9", "0.5", "12.9", "69.8", "90.1", "7.9", "23.5"),
    "inference: audio only": ("81.9", "14.9", "97.2", "58.6", "95.6", "8.2", "48.2"),
    "inference: spoken text only": ("7.7", "3.5", "20.0", "45.4", "42.0", "11.9", "21.5"),
}


def measured(metrics: Mapping[str, Any], column: Column) -> Mapping[str, Any] | None:
    """Return the row of a metrics.json that a column is about, or None."""
    if metrics["benchmark"] != column.benchmark:
        return None
    if column.split is not None and metrics["split"] != column.split:
        return None
    for row in formatting.rows(metrics).values():
        if column.metric in formatting.metric_names(row):
            return row
    return None
