"""One training row in plain Python: the audio of its clips, and the text of their pairs laid out.

What a record that cannot be used would have filled stays empty; see `pipeline`. A row is made of
its plan alone, in whatever process.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.input.data_config import DataConfig, FeatureSource, RowLayout
from data_pipelines.input.row_order import RowOrder
from data_pipelines.input.soft_labels import SoftLabels
from data_pipelines.records import record_files
from data_pipelines.records.record_files import TAG_LABELS
from data_pipelines.records.record_index import IndexEntry, RecordIndex
from data_pipelines.records.schema import QAPair, RecordError
from data_pipelines.records.tf_example import REWRITE, StoredClip, parse
from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import IGNORE, Tokenizer, tokenize_pair

Example = dict[str, np.ndarray]
LostRecords = list[tuple[int, str]]  # numbers of records that a row lost, with the reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowClip:
    """A clip of a row that is to be made.

    Attributes:
        record: number of its record in the split.
        entry: where that lies.
        pairs: numbers of the pairs within it that the row holds.
        prompts: tokens of the prompt of each.
        tokens: text tokens of each, cut.
    """

    record: int
    entry: IndexEntry
    pairs: tuple[int, ...]
    prompts: tuple[int, ...]
    tokens: tuple[int, ...]


RowPlan = tuple[RowClip, ...]


def plan_row(
    order: RowOrder,
    position: int,
    *,
    entries: RecordIndex,
    prompts: np.ndarray,
    tokens: np.ndarray,
) -> RowPlan:
    """Plan the row at `position` of the endless stream.

    Args:
        order: which pairs are in which row.
        position: of the row.
        entries: of the records.
        prompts: int [P], tokens of the prompt of each pair of the order.
        tokens: int [P], text tokens of the pair, cut.
    """
    members, clips, begin = order.members(position), [], 0
    for record, pairs in order.row(position):
        mine, begin = members[begin : begin + len(pairs)], begin + len(pairs)
        clips.append(
            RowClip(
                record=record,
                entry=entries[record],
                pairs=pairs,
                prompts=tuple(prompts[mine].tolist()),
                tokens=tuple(tokens[mine].tolist()),
            )
        )
    return tuple(clips)


_SECONDS_TOLERANCE = 0.02  # the writer states the seconds it decoded, in float32
_EVERY_ROW = ("input_ids", "labels", "segment_ids", "positions")
# Columns of a row's text and what a padded place holds (None: the tokenizer's pad id).
COLUMNS = {"input_ids": None, "labels": IGNORE, "segment_ids": 0, "positions": 0, "clip_ids": 0}


class RowMaker:
    """Makes rows of their plans; it is pickled into the processes that do so."""

    def __init__(
        self,
        config: DataConfig,
        *,
        features_shape: tuple[int, ...] | None,
        tokenizer: Tokenizer | None,
        label_index: Mapping[str, int],
        soft: SoftLabels | None = None,
    ):
        """Take the parts of a pipeline.

        Args:
            config: of the pipeline.
            features_shape: of the records' stored features, None where they have none.
            tokenizer: None for layout "tags".
            label_index: places of the labels of layout "tags".
            soft: a teacher's labels of all clips; None for none.
        """
        self._soft = soft
        self.config, self._tokenizer, self._label_index = config, tokenizer, label_index
        self.columns = _EVERY_ROW + (("clip_ids",) if config.clips_per_row > 1 else ())
        self.audio_column = "features" if config.features == FeatureSource.STORED else "log_mel"
        self._features_shape, self._shape = None, (config.frames, config.n_mels)
        if config.features == FeatureSource.STORED:
            self._features_shape = self._shape = features_shape

    def fetch(self, plan: RowPlan) -> list[bytes | RecordError]:
        """Read the records of a row; in the place of one that is damaged stands why."""
        fetched: list[bytes | RecordError] = []
        for clip in plan:
            try:
                fetched.append(record_files.read_payload(self.config.records, clip.entry))
            except RecordError as error:
                fetched.append(error)
        return fetched

    def make(
        self, plan: RowPlan, fetched: Sequence[bytes | RecordError]
    ) -> tuple[Example | None, LostRecords]:
        """Make the row of a plan, unusable records leaving empty places.

        Returns:
            The row, and the records that it lost; no row in layout "tags" where it lost its clip.
        """
        clips, parts, lost = [], [], []
        for place, (clip, content) in enumerate(zip(plan, fetched, strict=True)):
            try:
                sound, columns = self._clip(clip, content, first=len(parts) + 1, place=place)
            except RecordError as error:
                lost.append((clip.record, str(error)))
                if self.config.layout == RowLayout.TAGS:
                    return None, lost
                sound = np.zeros(self._shape, np.float32)  # as where a row has no such clip
                columns = [
                    blank_columns(length, pad_id=self._tokenizer.pad_id) for length in clip.tokens
                ]
            clips.append(sound)
            parts += columns
        if self.config.layout == RowLayout.TAGS:
            return {self.audio_column: clips[0], **parts[0]}, lost
        text = {column: np.concatenate([part[column] for part in parts]) for column in self.columns}
        if self.config.clips_per_row == 1:
            return {self.audio_column: clips[0], **text}, lost
        silence = [np.zeros_like(clips[0])] * (self.config.clips_per_row - len(clips))
        return {self.audio_column: np.stack(clips + silence), **text}, lost

    def _clip(
        self, clip: RowClip, content: bytes | RecordError, *, first: int, place: int
    ) -> tuple[np.ndarray, list[Example]]:
        """Return the audio input of a record, and its columns: of its pairs, or its labels."""
        if isinstance(content, RecordError):
            raise content
        where = record_files.where(self.config.records, clip.entry)
        record = parse(content, where=where, features_shape=self._features_shape)
        if self.config.layout == RowLayout.TAGS:
            targets = tag_targets(record, self._label_index, where=where)
            if self._soft is not None:
                targets = self._soft.beside(record.clip_id, targets)
            columns = [{"targets": targets}]
        else:
            columns = [
                pair_columns(
                    self._tokenizer,
                    record.pairs[pair],
                    spoken_text=record.spoken_text,
                    config=self.config,
                    segment=segment,
                    clip=place,
                    prompt_tokens=clip.prompts[segment - first],
                    planned_tokens=clip.tokens[segment - first],
                    where=where,
                )
                for segment, pair in enumerate(clip.pairs, start=first)
            ]
        return audio_input(record, self.config, shape=self._shape, where=where), columns

    def fixed(
        self, plan: RowPlan, fetched: Sequence[bytes | RecordError]
    ) -> tuple[list[np.ndarray] | None, LostRecords]:
        """Make a row as arrays of fixed shapes: its audio, and text padded to the longest."""
        example, lost = self.make(plan, fetched)
        if example is None or self.config.layout == RowLayout.TAGS:
            return None if example is None else list(example.values()), lost
        text = padded(
            example,
            length=self.config.longest,
            pad_id=self._tokenizer.pad_id,
            left=self.config.layout == RowLayout.REFERENCE,
            names=self.columns,
        )
        return [example[self.audio_column], *text], lost

    def blank(self) -> list[np.ndarray]:
        """Return zeros in the shape of a row."""
        several = (self.config.clips_per_row,) if self.config.clips_per_row > 1 else ()
        sound = np.zeros((*several, *self._shape), np.float32)
        if self.config.layout == RowLayout.TAGS:
            return [sound, np.zeros(len(self._label_index), np.float32)]
        return [sound, *(np.zeros(self.config.longest, np.int32) for _ in self.columns)]


def audio_input(
    record: StoredClip, config: DataConfig, *, shape: tuple[int, ...], where: str
) -> Float[np.ndarray, "..."]:
    """Return the log-mel [frames, M] or the stored features [W, A, D] of a clip, float32.

    Args:
        shape: what the batch has a place for.

    Raises:
        RecordError: audio that cannot be decoded or does not last as long as the record says,
            numbers that are not finite, another shape.
    """
    if config.features == FeatureSource.STORED:
        name, values = "features", record.features
    else:
        name, values = "log_mel", _log_mel(record, config, where=where)
    if values.shape != shape or values.dtype != np.float32:
        raise RecordError(
            f"{where}: {name} is {values.dtype} {list(values.shape)}, expected float32 "
            f"{list(shape)}; {REWRITE}"
        )
    if not np.isfinite(values).all():
        raise RecordError(
            f"{where}: {name} is not finite; write the records again from sound audio"
        )
    return values


def _log_mel(record: StoredClip, config: DataConfig, *, where: str) -> Float[np.ndarray, "F M"]:
    try:
        decoded = audio.load_audio(record.audio)
    except audio.AudioError as error:
        raise RecordError(f"{where}: field 'audio': {error}") from error
    if abs(decoded.seconds - record.seconds) > _SECONDS_TOLERANCE:
        raise RecordError(
            f"{where}: field 'seconds' is {record.seconds:g}, but the audio lasts "
            f"{decoded.seconds:g} s; {REWRITE}"
        )
    window = audio.model_log_mel(decoded.samples, n_mels=config.n_mels, frames=config.frames)
    return window.log_mel


def tag_targets(
    record: StoredClip, label_index: Mapping[str, int], *, where: str
) -> Float[np.ndarray, "N"]:
    """Return the clip's labels as 0 and 1; raises `RecordError` for one that has no place."""
    marked = np.zeros(len(label_index), np.float32)
    for tag in record.tags:
        if tag not in label_index:
            raise RecordError(
                f"{where}: field 'tags': {tag!r} is not in {TAG_LABELS}; add it there"
            )
        marked[label_index[tag]] = 1
    return marked


def pair_columns(
    tokenizer: Tokenizer,
    pair: QAPair,
    *,
    spoken_text: str,
    config: DataConfig,
    segment: int,
    clip: int,
    prompt_tokens: int,
    planned_tokens: int,
    where: str,
) -> Example:
    """Lay out the text of one pair as columns, int32 [its tokens].

    Args:
        segment: number of the pair in its row, from 1.
        clip: number of its clip in the row, from 0.
        prompt_tokens: tokens of its prompt.
        planned_tokens: tokens that the row was planned with.

    Raises:
        RecordError: as `check_tokens`.
    """
    tokens = tokenize_pair(
        tokenizer,
        instruction=pair.instruction,
        spoken_text=spoken_text,
        output=pair.output,
        cutoff=config.cutoff,
        train_on=config.train_on,
    )
    ids = np.asarray(tokens.input_ids, np.int32)
    labels = np.asarray(tokens.labels, np.int32)
    check_tokens(
        ids,
        pair,
        tokenizer=tokenizer,
        cutoff=config.cutoff,
        prompt_tokens=prompt_tokens,
        planned_tokens=planned_tokens,
        where=where,
    )
    if config.layout != RowLayout.REFERENCE:
        labels[0] = IGNORE
    return {
        "input_ids": ids,
        "labels": labels,
        "segment_ids": np.full(len(ids), segment, np.int32),
        "positions": config.audio_tokens + np.arange(len(ids), dtype=np.int32),
        "clip_ids": np.full(len(ids), clip, np.int32),
    }


def check_tokens(
    ids: np.ndarray,
    pair: QAPair,
    *,
    tokenizer: Tokenizer,
    cutoff: int,
    prompt_tokens: int,
    planned_tokens: int,
    where: str,
) -> None:
    """Require that the tokens of a pair, int32 [N], may be trained on.

    Args:
        cutoff: most tokens of a pair.
        prompt_tokens: tokens of its prompt.
        planned_tokens: tokens that its row was planned with.

    Raises:
        RecordError: a token outside the vocabulary, another number of tokens, or an answer that is
            no token at all.
    """
    if ids.min() < 0 or ids.max() >= tokenizer.vocab_size:
        raise RecordError(
            f"{where}, pair {pair.pair_id!r}: token {ids.max()} is outside the "
            f"vocabulary of {tokenizer.vocab_size}; use the tokenizer of this model"
        )
    if len(ids) != planned_tokens:
        raise RecordError(
            f"{where}, pair {pair.pair_id!r}: {len(ids)} tokens, but {planned_tokens} were "
            "counted; the records changed since: delete the folder 'tokens' beside them"
        )
    answer = ids[prompt_tokens:]
    if len(ids) < cutoff and (answer == tokenizer.eos_id).all():  # cut ones are counted
        raise RecordError(
            f"{where}, pair {pair.pair_id!r}: field 'output' is {pair.output!r}, which is no token "
            "in this vocabulary; give text that says something"
        )


def blank_columns(length: int, *, pad_id: int) -> Example:
    """Return the columns of `length` empty places: padding, seen by none, without a target."""
    return {
        name: np.full(length, pad_id if value is None else value, np.int32)
        for name, value in COLUMNS.items()
    }


def padded(
    example: Example, *, length: int, pad_id: int, left: bool, names: Sequence[str]
) -> list[np.ndarray]:
    """Pad the text columns `names` of a row to `length`, on the left or right."""
    missing = length - len(example["input_ids"])
    widths = (missing, 0) if left else (0, missing)
    fill = {**COLUMNS, "input_ids": pad_id}
    return [np.pad(example[name], widths, constant_values=fill[name]) for name in names]


def read_labels(records: Path) -> tuple[str, ...]:
    """Read the labels of layout "tags"; raises `UserError` where the records have none."""
    if not (records / TAG_LABELS).is_file():
        raise UserError(
            f'{records} has no labels to tag clips by (no {TAG_LABELS}): give the rows "tags", or '
            'cla_label answers like "Labels: Dog; Bark", and write the records again; or leave '
            "tagging out with a trained TLTR: --config.weights.tltr=FOLDER"
        )
    return tuple(read_json(records / TAG_LABELS))
