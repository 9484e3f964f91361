"""What the rows of an epoch hold and waste, counted without reading a record."""

import dataclasses

import numpy as np

from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.row_order import RowOrder
from ltu_jax.core.axes import Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowReport:
    """Counts of one epoch.

    Attributes:
        pairs: of the epoch.
        cut_pairs: of them, longer than the cut-off and cut to it.
        rows: that hold each pair once.
        steps: global batches, rounded up.
        pairs_per_step: mean.
        clips_per_row: mean; places in a row that stay empty do not count.
        tokens_per_pair: mean, after the cut.
        padding: share of text positions that hold none.
        lengths: padded text lengths that occur.
    """

    pairs: int
    cut_pairs: int
    rows: int
    steps: int
    pairs_per_step: float
    clips_per_row: float
    tokens_per_pair: float
    padding: float
    lengths: tuple[int, ...]

    def __str__(self) -> str:
        cut = f", {self.cut_pairs} cut at the cut-off" if self.cut_pairs else ""
        return (
            f"{self.pairs} pairs{cut}, {self.tokens_per_pair:.1f} tokens each, in {self.rows} rows "
            f"of {self.pairs / self.rows:.2f} pairs and {self.clips_per_row:.2f} clips; "
            f"{self.pairs_per_step:.1f} pairs a step, {100 * self.padding:.1f} % padding"
        )


def row_report(
    order: RowOrder, config: DataConfig, *, whole: Int[np.ndarray, "N"], epoch: int = 0
) -> RowReport:
    """Count one epoch of `order`, cut into batches from its first row.

    Args:
        whole: uncut tokens of each pair of the order.
    """
    tokens = np.minimum(whole, config.cutoff)
    sizes = order.totals(tokens, epoch=epoch)
    starts = np.arange(0, len(sizes), config.rows_per_batch)
    widths = np.asarray([config.padded(int(n)) for n in np.maximum.reduceat(sizes, starts)])
    in_batch = np.diff(np.r_[starts, len(sizes)])
    return RowReport(
        pairs=len(tokens),
        cut_pairs=int((whole > config.cutoff).sum()),
        rows=len(sizes),
        steps=len(starts),
        pairs_per_step=len(tokens) * config.rows_per_batch / len(sizes),
        clips_per_row=float(order.clip_counts(epoch=epoch).mean()),
        tokens_per_pair=float(tokens.mean()),
        padding=1 - float(tokens.sum() / (widths * in_batch).sum()),
        lengths=tuple(sorted(set(widths.tolist()))),
    )
