"""Settings of the input pipeline: which records, how rows are laid out, how batches are padded.

Text layouts, with A audio tokens in front of T text positions:

    reference   the official collator: one pair a row, left-padded, positions 0..A+T-1 whatever the
                padding; the last pad position predicts BOS, as in the official loss
    single      one pair a row, right-padded; BOS, which nothing predicts, has label -100
    grouped     up to `clips_per_row` clips, up to `pairs_per_clip` pairs of each share its audio:
                [audio 1]..[audio G][pairs of 1]..[pairs of G]; pair k of the row has segment id
                k+1, its positions start again at A, its BOS has label -100
    tags        no text; "targets" marks the clip's labels (tagging stage)
"""

import dataclasses
from enum import StrEnum

from ltu_jax.core.errors import UserError
from ltu_jax.core.hardware import cores
from ltu_jax.preprocessing.audio import CLIP_FRAMES
from ltu_jax.preprocessing.text import TrainOn


class RowLayout(StrEnum):
    """How text is laid out in a row; see the module's docstring."""

    REFERENCE = "reference"
    SINGLE = "single"
    GROUPED = "grouped"
    TAGS = "tags"


class FeatureSource(StrEnum):
    """Where features come from: the encoder in the step, or the records."""

    ON_THE_FLY = "on_the_fly"
    STORED = "stored"


MOST_WORKERS = 8  # make some hundred clips a second
_LEAST = {
    "cutoff": 2, "pairs_per_clip": 1, "clips_per_row": 1, "rows_per_batch": 1, "audio_tokens": 1,
    "n_mels": 1, "row_tokens": 0, "micro_rows": 0, "frames": 1, "pad_multiple": 1,
    "group_by_length": 0, "seed": 0, "workers": -1, "prefetch": 1,
    "accumulation": 1,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """The keys of `config.data` that the input pipeline reads.

    Attributes:
        records: records directory.
        split: "train", "val" or "test".
        layout: see `RowLayout`.
        cutoff: most text tokens of a pair, BOS included.
        pairs_per_clip: most pairs of a clip in a row (1 unless grouped).
        clips_per_row: most clips in a row (1 unless grouped); each has its place in every batch,
            whether a row fills it or not.
        rows_per_batch: rows of the global batch.
        micro_rows: so many consecutive rows of layout "reference" are one official micro-batch:
            padded as far as its own longest row asks for, and with a loss mean of their own
            ("row_weights" of a batch); 0 for all rows of the batch together.
        train_on: "all" tokens or the "answer" only.
        features: see `FeatureSource`.
        tasks: which pairs; see `mixtures.check_tasks`.
        datasets: which clips; see `mixtures.datasets`.
        weights: how often an epoch has the pairs; see `pair_weights`. () for once.
        row_tokens: room of a grouped row in text tokens; 0 for all that the two caps allow.
        lengths: allowed padded text lengths, ascending; the smallest that fits is used. () for
            `row_tokens` where it is given to grouped rows, else for multiples of `pad_multiple`,
            the official rule.
        group_by_length: rows of like length are batched together within windows of this many
            batches; 0 for never. Without effect where all batches have one length.
        teacher: file of soft labels of the split's clips, of layout "tags"; "" for none.
        teacher_weight: of the soft labels against the labels of the clips, from 0 to 1.
        max_bad_share: share of the split's records that may be bad; one more stops.
        workers: processes that make rows; 0 for threads of this one, -1 for one a core, at most
            `MOST_WORKERS`.
    """

    records: str
    split: str
    layout: str
    cutoff: int
    pairs_per_clip: int
    clips_per_row: int
    rows_per_batch: int
    train_on: str
    features: str
    tasks: tuple[str, ...] = ("all",)
    datasets: tuple[str, ...] = ("all",)
    weights: tuple[str, ...] = ()
    row_tokens: int = 0
    micro_rows: int = 0
    lengths: tuple[int, ...] = ()
    group_by_length: int = 0
    teacher: str = ""
    teacher_weight: float = 1.0
    max_bad_share: float = 0.0001
    workers: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(PipelineSettings):
    """Everything an input pipeline is told; tuple fields take any sequence.

    `layout`, `train_on` and `features` become `RowLayout`, `TrainOn` and `FeatureSource`.

    Attributes:
        seed: of the order.
        audio_tokens: A.
        n_mels: mel bins of the Whisper encoder.
        frames: log-mel frames of the window, 10 ms each.
        pad_multiple: see `lengths`.
        shuffle: False keeps the order of the records.
        feature_fingerprint: refuse stored features that were made by another encoder.
        prefetch: batches made ahead.
        accumulation: parts of a batch whose losses the step averages.

    Raises:
        UserError: a value out of range, or one that contradicts another.
    """

    seed: int
    audio_tokens: int
    n_mels: int
    frames: int = CLIP_FRAMES
    pad_multiple: int = 8
    shuffle: bool = True
    feature_fingerprint: str | None = None
    prefetch: int = 2
    accumulation: int = 1

    def __post_init__(self):
        for name, kind in (
            ("layout", RowLayout),
            ("train_on", TrainOn),
            ("features", FeatureSource),
        ):
            value = getattr(self, name)
            if value not in list(kind):
                raise UserError(f"data.{name} is {value!r}; use one of {', '.join(kind)}")
            object.__setattr__(self, name, kind(value))
        for name in ("tasks", "datasets", "weights", "lengths"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        for name, least in _LEAST.items():
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise UserError(f"data.{name} is {value}; it must be at least {least}")
        if not 0 <= self.max_bad_share <= 1:
            raise UserError(f"data.max_bad_share is {self.max_bad_share}; use a share, 0 to 1")
        for name in ("pairs_per_clip", "clips_per_row"):
            if self.layout != RowLayout.GROUPED and getattr(self, name) != 1:
                raise UserError(
                    f"data.{name} is {getattr(self, name)}, but layout {str(self.layout)!r} "
                    "holds one pair per row; use 1, or layout 'grouped'"
                )
        if self.micro_rows and self.layout != RowLayout.REFERENCE:
            raise UserError(
                f"data.micro_rows is {self.micro_rows}, but layout {str(self.layout)!r} has no "
                "official micro-batches; use 0, or layout 'reference'"
            )
        if self.micro_rows and self.rows_per_batch % self.micro_rows:
            raise UserError(
                f"data.rows_per_batch is {self.rows_per_batch}, which is no multiple of "
                f"data.micro_rows = {self.micro_rows}"
            )
        if self.teacher and self.layout != RowLayout.TAGS:
            raise UserError(
                f"data.teacher is {self.teacher!r}, but layout {str(self.layout)!r} has no labels "
                "to be taught; use '', or layout 'tags'"
            )
        if list(self.lengths) != sorted(set(self.lengths)):
            raise UserError(f"data.lengths is {self.lengths}; give ascending lengths")
        if self.layout == RowLayout.GROUPED and 0 < self.row_tokens < self.cutoff:
            raise UserError(
                f"data.row_tokens is {self.row_tokens}, but a pair may have data.cutoff = "
                f"{self.cutoff} tokens; use at least that, or a lower cutoff"
            )
        if self.lengths and self.lengths[-1] < self.room:
            raise UserError(
                f"data.lengths ends at {self.lengths[-1]}, but a row may hold {self.room} tokens; "
                "add that length (unused, it costs nothing)"
            )

    @property
    def worker_count(self) -> int:
        """Processes that make rows, 0 for none."""
        return min(cores(), MOST_WORKERS) if self.workers < 0 else self.workers

    @property
    def room(self) -> int:
        """Most text tokens that are put into a row."""
        if self.layout == RowLayout.GROUPED and self.row_tokens:
            return self.row_tokens
        return self.cutoff * self.pairs_per_clip * self.clips_per_row

    @property
    def one_length(self) -> bool:
        """Whether every batch is padded to the same length."""
        if self.lengths:
            return len(self.lengths) == 1
        return self.layout == RowLayout.GROUPED and self.row_tokens > 0

    @property
    def longest(self) -> int:
        """The padded length that holds any row."""
        return self.lengths[-1] if self.lengths else self.padded(self.room)

    def padded(self, length: int) -> int:
        """Return the padded length of a batch whose longest row has `length` tokens."""
        if self.lengths:
            return next(allowed for allowed in self.lengths if allowed >= length)
        if self.one_length:
            return self.row_tokens
        return -(-length // self.pad_multiple) * self.pad_multiple
