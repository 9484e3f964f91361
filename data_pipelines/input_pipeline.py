"""Records in, device batches out: read, decode, log-mel, tokenise and pad, in the background.

`InputPipeline.row` makes one row in plain Python. `InputPipeline.batches` runs it for the rows of
this host inside a `tf.data` graph, in parallel and ahead of the step. Which rows a step holds is a
function of (seed, step) alone (`order.RowOrder`), the same for every number of hosts: host p of n
reads only the records of its part of each global batch, and resuming at a step costs nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import features, mixtures
from data_pipelines.data_config import DataConfig, Features, Layout
from data_pipelines.order import RowOrder
from data_pipelines.records import TAG_LABELS, RecordStore, import_tensorflow
from data_pipelines.schema import RecordError
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import IGNORE, Tokenizer, tokenize_pair
from ltu_jax.weights.fingerprint import Fingerprint

Example = dict[str, np.ndarray]


class InputPipeline:
    """Rows and batches of one split; see the module's docstring."""

    def __init__(
        self,
        config: DataConfig,
        *,
        tokenizer: Tokenizer | None = None,
        process_index: int = 0,
        process_count: int = 1,
        clip_fingerprint: Callable[[], Fingerprint] | None = None,
    ):
        """Open the records and choose the pairs.

        Args:
            config: what to read.
            tokenizer: of the language model; not needed for layout "tags".
            process_index, process_count: this host and all hosts; the global batch is cut into
                equal consecutive parts.
            clip_fingerprint: computes the numeric fingerprint of the model's encoder; asked only
                where stored features carry another name than `config.feature_fingerprint`.

        Raises:
            UserError: no records there, stored features absent or of another encoder, a filter that
                leaves nothing, a batch that hosts cannot share.
        """
        self.config = config
        self.store = RecordStore(config.records, split=config.split)
        if config.layout != Layout.TAGS and tokenizer is None:
            raise ValueError(f"layout {str(config.layout)!r} needs a tokenizer")
        self._tokenizer = tokenizer
        if config.rows_per_batch % process_count:
            raise UserError(
                f"data.rows_per_batch is {config.rows_per_batch}, which {process_count} hosts "
                "cannot share equally; use a multiple"
            )
        self._host_rows = config.rows_per_batch // process_count
        self._first_row = process_index * self._host_rows
        self._alone = process_count == 1
        self.labels: tuple[str, ...] = ()
        if config.layout == Layout.TAGS:
            self.labels = tuple(read_json(Path(config.records) / TAG_LABELS))
            self._label_index = {label: place for place, label in enumerate(self.labels)}
        self._check_stored(clip_fingerprint, show=process_index == 0)
        self._order = self._choose()

    @property
    def rows_per_epoch(self) -> int:
        """Rows that hold every chosen pair once."""
        return self._order.rows_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Global batches that cover an epoch, rounded up."""
        return -(-self.rows_per_epoch // self.config.rows_per_batch)

    def _check_stored(
        self, clip_fingerprint: Callable[[], Fingerprint] | None, *, show: bool
    ) -> None:
        if self.config.features != Features.STORED:
            return
        stored = self.store.manifest["features"]
        if stored is None:
            raise UserError(
                f"data.features is 'stored', but {self.config.records} holds none; write them with "
                "`python -m data_pipelines.write_records --features WHISPER_WEIGHTS_DIR`, "
                "or use 'on_the_fly'"
            )
        if self.config.feature_fingerprint is not None:
            features.check_encoder(
                stored,
                name=self.config.feature_fingerprint,
                clip_fingerprint=clip_fingerprint,
                records=self.config.records,
                show=show,
            )

    def _choose(self) -> RowOrder:
        """Rows of all pairs that the filters take; in layout "tags" a clip is one pair."""
        config, taken = self.config, []
        for number, entry in enumerate(self.store.entries):
            if not mixtures.takes_dataset(config.datasets, dataset=entry.dataset):
                continue
            if config.layout == Layout.TAGS:
                taken += [(number, 0, 1)] if entry.tags else []
                continue
            taken += [
                (number, place, characters)
                for place, (task, closed_ended, characters) in enumerate(entry.pairs)
                if mixtures.takes_task(config.tasks, task=task, closed_ended=closed_ended)
            ]
        if not taken:
            found = sorted({pair[0] for entry in self.store.entries for pair in entry.pairs})
            datasets = sorted({entry.dataset for entry in self.store.entries})
            raise UserError(
                f"no {'tagged clip' if config.layout == Layout.TAGS else 'pair'} of split "
                f"{config.split!r} of {config.records} is taken by tasks {config.tasks} and "
                f"datasets {config.datasets}; tasks there: {', '.join(found) or 'none'}; "
                f"datasets there: {', '.join(datasets)}"
            )
        records, pairs, sizes = np.asarray(taken, np.int64).T
        return RowOrder(
            records=records,
            pairs=pairs,
            sizes=sizes,
            pairs_per_row=config.pairs_per_row,
            rows_per_batch=config.rows_per_batch,
            seed=config.seed,
            shuffle=config.shuffle,
            group_batches=config.group_by_length,
        )

    # --- one row ----------------------------------------------------------------------------------

    def contents(self, position: int) -> tuple[str, tuple[int, ...]]:
        """The clip and the numbers of its pairs at `position` of the endless stream of rows."""
        number, pairs = self._order.row(position)
        return self.store.entries[number].clip_id, pairs

    def row(self, position: int) -> Example:
        """Make the row at `position` of the endless stream.

        Returns:
            "log_mel" float32 [frames, M] or "features" float32 [W, A, D]; and for layout "tags"
            "targets" float32 [labels], else "input_ids", "labels", "segment_ids", "positions" (of
            the text only) int32 [T], without padding.

        Raises:
            RecordError: the record is damaged or incomplete; the message names file and record.
        """
        number, chosen = self._order.row(position)
        record, where = self.store.read(number), self.store.where(number)
        if self.config.features == Features.STORED:
            example = {"features": record.features}
        else:
            try:
                samples = audio.load_audio(record.audio).samples
            except audio.AudioError as error:
                raise RecordError(f"{where}: field 'audio': {error}") from error
            config = self.config
            heard = audio.model_log_mel(samples, n_mels=config.n_mels, frames=config.frames)
            example = {"log_mel": heard.log_mel}
        for name, values in example.items():
            if not np.isfinite(values).all():
                raise RecordError(
                    f"{where}: {name} is not finite; write the records again from sound audio"
                )
        if self.config.layout == Layout.TAGS:
            example["targets"] = self._targets(record.tags, where=where)
            return example
        pairs = [record.pairs[place] for place in chosen]
        return example | self._text(pairs, spoken_text=record.spoken_text, where=where)

    def _targets(self, tags: Sequence[str], *, where: str) -> np.ndarray:
        targets = np.zeros(len(self.labels), np.float32)
        for tag in tags:
            if tag not in self._label_index:
                raise RecordError(
                    f"{where}: field 'tags': {tag!r} is not in {TAG_LABELS}; add it there"
                )
            targets[self._label_index[tag]] = 1
        return targets

    def _text(self, pairs: Sequence[Any], *, spoken_text: str, where: str) -> Example:
        config, parts = self.config, []
        for segment, pair in enumerate(pairs, start=1):
            tokens = tokenize_pair(
                self._tokenizer,
                instruction=pair.instruction,
                spoken_text=spoken_text,
                output=pair.output,
                cutoff=config.cutoff,
                train_on=config.train_on,
            )
            ids = np.asarray(tokens.input_ids, np.int32)
            labels = np.asarray(tokens.labels, np.int32)
            if ids.min() < 0 or ids.max() >= self._tokenizer.vocab_size:
                raise RecordError(
                    f"{where}, pair {pair.pair_id!r}: token {ids.max()} is outside the "
                    f"vocabulary of {self._tokenizer.vocab_size}; use the tokenizer of this model"
                )
            if config.layout != Layout.REFERENCE:
                labels[0] = IGNORE
            positions = config.audio_tokens + np.arange(len(ids), dtype=np.int32)
            parts.append((ids, labels, np.full(len(ids), segment, np.int32), positions))
        columns = map(np.concatenate, zip(*parts, strict=True))
        return dict(zip(("input_ids", "labels", "segment_ids", "positions"), columns, strict=True))

    # --- batches ----------------------------------------------------------------------------------

    def batch(self, step: int) -> Example:
        """Make this host's part of the global batch of `step`, without tf.data."""
        return self._finish(*zip(*map(self._fixed, self._positions(step)), strict=True))

    def batches(self, *, start_step: int = 0, steps: int | None = None) -> Iterator[Example]:
        """Yield this host's part of global batches `start_step`, `start_step + 1`, ...

        Args:
            start_step: first batch; any number costs the same.
            steps: how many; None for no end.

        Yields:
            numpy, for B rows of this host: "log_mel" float32 [B, frames, M] or "features" float32
            [B, W, A, D]; for text "input_ids", "labels" (-100: no loss; not shifted), "segment_ids"
            (0: padding) int32 [B, T] and "positions" int32 [B, A+T]; for tags "targets" float32 [B,
            labels]. With one host T is the smallest allowed length; several hosts must agree
            without talking, so they use the longest.

        Raises:
            RecordError: see `row`.
        """
        tf = import_tensorflow()
        failures: dict[int, RecordError] = {}
        blank = None  # arrays in the shape of a row, in place of one that failed

        def make(position: np.ndarray) -> list[np.ndarray]:
            try:
                return [*self._fixed(int(position)), np.int32(0)]
            except RecordError as error:  # raised again by the consumer, in order and as itself
                failures[int(position)] = error
                return [*blank, np.int32(1)]

        blank = self._blank()
        types = [tf.as_dtype(array.dtype) for array in blank] + [tf.int32]

        def load(position: Any) -> Any:
            made = tf.numpy_function(make, [position], types, stateful=False)
            for tensor, array in zip(made, [*blank, np.int32(0)], strict=True):
                tensor.set_shape(array.shape)
            return tuple(made)

        end = (
            np.iinfo(np.int64).max // self.config.rows_per_batch
            if steps is None
            else start_step + steps
        )
        dataset = tf.data.Dataset.range(start_step, end)
        dataset = dataset.flat_map(
            lambda step: tf.data.Dataset.range(self._host_rows).map(
                lambda row: step * self.config.rows_per_batch + self._first_row + row
            )
        )
        dataset = dataset.map(load, num_parallel_calls=self.config.workers, deterministic=True)
        dataset = dataset.batch(self._host_rows, drop_remainder=True).prefetch(self.config.prefetch)
        for step, (*columns, failed) in enumerate(dataset.as_numpy_iterator(), start=start_step):
            if failed.any():
                raise failures[self._positions(step)[int(failed.argmax())]]
            yield self._finish(*columns)

    def _positions(self, step: int) -> range:
        first = step * self.config.rows_per_batch + self._first_row
        return range(first, first + self._host_rows)

    def _fixed(self, position: int) -> list[np.ndarray]:
        """A row as arrays of fixed shapes: text padded to the longest, its own length last."""
        example, longest = self.row(position), self.config.longest
        if self.config.layout == Layout.TAGS:
            return list(example.values())
        heard, *texts = example.values()
        length = len(texts[0])
        pad_ids = (self._tokenizer.pad_id, IGNORE, 0, 0)
        before = longest - length if self.config.layout == Layout.REFERENCE else 0
        widths = (before, longest - length - before)
        padded = [
            np.pad(text, widths, constant_values=pad)
            for text, pad in zip(texts, pad_ids, strict=True)
        ]
        return [heard, *padded, np.int32(length)]

    def _blank(self) -> list[np.ndarray]:
        if self.config.features == Features.STORED:
            heard = np.zeros(self.store.features_shape, np.float32)
        else:
            heard = np.zeros((self.config.frames, self.config.n_mels), np.float32)
        if self.config.layout == Layout.TAGS:
            return [heard, np.zeros(len(self.labels), np.float32)]
        return [heard, *(np.zeros(self.config.longest, np.int32) for _ in range(4)), np.int32(0)]

    def _finish(self, *columns: Any) -> Example:
        """Cut the padding to an allowed length and put the audio's positions in front."""
        config = self.config
        heard = "features" if config.features == Features.STORED else "log_mel"
        columns = [np.stack(column) for column in columns]
        if config.layout == Layout.TAGS:
            return {heard: columns[0], "targets": columns[1]}
        lengths = columns.pop()
        width = config.padded(int(lengths.max())) if self._alone else config.longest
        kept = slice(-width, None) if config.layout == Layout.REFERENCE else slice(width)
        ids, labels, segments, text_positions = (
            np.ascontiguousarray(text[:, kept]) for text in columns[1:]
        )
        positions = np.broadcast_to(
            np.arange(config.audio_tokens + width, dtype=np.int32),
            (len(ids), config.audio_tokens + width),
        ).copy()
        if config.layout == Layout.GROUPED:
            positions[:, config.audio_tokens :] = text_positions
        return {
            heard: columns[0],
            "input_ids": ids,
            "labels": labels,
            "segment_ids": segments,
            "positions": positions,
        }


def batches(
    config: DataConfig,
    *,
    tokenizer: Tokenizer | None = None,
    start_step: int = 0,
    steps: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Example]:
    """Open `config` and yield its batches; see `InputPipeline`."""
    pipeline = InputPipeline(
        config, tokenizer=tokenizer, process_index=process_index, process_count=process_count
    )
    return pipeline.batches(start_step=start_step, steps=steps)
