"""Makes the rows of an input pipeline: what is heard, and the text of its pairs laid out.

What a record that cannot be used would have filled stays empty; see `pipeline`.
"""

from collections.abc import Mapping

import numpy as np

from data_pipelines.input import rows
from data_pipelines.input.data_config import DataConfig, FeatureSource, RowLayout
from data_pipelines.input.row_order import RowOrder
from data_pipelines.input.rows import Example
from data_pipelines.records.record_files import RecordStore
from data_pipelines.records.schema import RecordError
from ltu_jax.preprocessing.text import Tokenizer

_EVERY_ROW = ("input_ids", "labels", "segment_ids", "positions")

Lost = list[tuple[int, str]]  # records that a row lost, with the reason


class RowMaker:
    """Reads and lays out the row at a position of the endless stream."""

    def __init__(
        self,
        config: DataConfig,
        *,
        store: RecordStore,
        order: RowOrder,
        tokenizer: Tokenizer | None,
        prompts: np.ndarray,
        tokens: np.ndarray,
        label_index: Mapping[str, int],
    ):
        """Name the parts.

        Args:
            config: of the pipeline.
            store: the records.
            order: which of them are in which row.
            tokenizer: None for layout "tags".
            prompts: int [P], tokens of the prompt of each pair of the order.
            tokens: int [P], text tokens of the pair, cut.
            label_index: places of the labels of layout "tags".
        """
        self._config, self._store, self._order = config, store, order
        self._tokenizer, self._prompts, self._tokens = tokenizer, prompts, tokens
        self._label_index = label_index
        self.columns = _EVERY_ROW + (("clip_ids",) if config.clips_per_row > 1 else ())
        self.heard = "features" if config.features == FeatureSource.STORED else "log_mel"
        self._shape = (config.frames, config.n_mels)
        if config.features == FeatureSource.STORED:
            self._shape = store.features_shape

    def make(self, position: int) -> tuple[Example, Lost]:
        """The row at `position`, the places of unusable records empty, and those records."""
        if self._config.layout == RowLayout.TAGS:
            return self._tag_row(position)
        clips, parts, lost = [], [], []
        members = iter(self._order.members(position))
        for clip, (number, chosen) in enumerate(self._order.row(position)):
            places = [next(members) for _ in chosen]
            try:
                sound, columns = self._clip(
                    number, chosen, places, first_segment=len(parts) + 1, clip=clip
                )
            except RecordError as error:
                lost.append((number, str(error)))
                sound = np.zeros(self._shape, np.float32)  # as where a row has no such clip
                columns = [
                    rows.blank_columns(int(self._tokens[place]), pad_id=self._tokenizer.pad_id)
                    for place in places
                ]
            clips.append(sound)
            parts += columns
        text = {column: np.concatenate([part[column] for part in parts]) for column in self.columns}
        if self._config.clips_per_row == 1:
            return {self.heard: clips[0], **text}, lost
        silence = [np.zeros_like(clips[0])] * (self._config.clips_per_row - len(clips))
        return {self.heard: np.stack(clips + silence), **text}, lost

    def _clip(
        self,
        number: int,
        chosen: tuple[int, ...],
        places: list[int],
        *,
        first_segment: int,
        clip: int,
    ) -> tuple[np.ndarray, list[Example]]:
        """What is heard of a record, and the columns of some of its pairs."""
        record, where = self._store.read(number), self._store.where(number)
        columns = [
            rows.pair_columns(
                self._tokenizer,
                record.pairs[pair],
                spoken_text=record.spoken_text,
                config=self._config,
                segment=segment,
                clip=clip,
                asked=int(self._prompts[place]),
                expected=int(self._tokens[place]),
                where=where,
            )
            for segment, (pair, place) in enumerate(
                zip(chosen, places, strict=True), start=first_segment
            )
        ]
        return rows.heard(record, self._config, shape=self._shape, where=where), columns

    def _tag_row(self, position: int) -> tuple[Example, Lost]:
        lost: Lost = []
        for stand_in in range(position, position + self._order.rows_per_epoch):
            ((number, _),) = self._order.row(stand_in)
            where = self._store.where(number)
            try:
                record = self._store.read(number)
                marked = rows.targets(record, self._label_index, where=where)
                sound = rows.heard(record, self._config, shape=self._shape, where=where)
            except RecordError as error:
                lost.append((number, str(error)))
                continue
            return {self.heard: sound, "targets": marked}, lost
        raise RecordError(f"no tagged clip of {self._config.records} can be used: {lost[0][1]}")

    def fixed(self, position: int) -> tuple[list[np.ndarray], Lost]:
        """A row as arrays of fixed shapes: what is heard, and text padded to the longest."""
        example, lost = self.make(position)
        if self._config.layout == RowLayout.TAGS:
            return list(example.values()), lost
        text = rows.padded(
            example,
            length=self._config.longest,
            pad_id=self._tokenizer.pad_id,
            left=self._config.layout == RowLayout.REFERENCE,
            names=self.columns,
        )
        return [example[self.heard], *text], lost

    def blank(self) -> list[np.ndarray]:
        """Arrays in the shape of a row."""
        several = (self._config.clips_per_row,) if self._config.clips_per_row > 1 else ()
        heard = np.zeros((*several, *self._shape), np.float32)
        if self._config.layout == RowLayout.TAGS:
            return [heard, np.zeros(len(self._label_index), np.float32)]
        return [heard, *(np.zeros(self._config.longest, np.int32) for _ in self.columns)]
