"""Records in, device batches out: read, decode, log-mel, tokenise and pad, in the background.

`InputPipeline.row` makes one row in plain Python. `InputPipeline.batches` has the rows of this host
made by worker processes (`row_workers`), asked by a `tf.data` graph in parallel and ahead of the
step; the bits do not depend on their number. Which rows a step holds is a function of (seed, step)
alone (`RowOrder`), the same for every number of hosts: host p of n reads only the records of its
part of each global batch, and resuming at a step costs nothing. The tokens of every pair are known
beforehand (`token_counts`), so hosts agree on shapes without talking.

A record that cannot be used costs itself only. The places of its pairs become padding without a
target, and nothing attends to the place of its clip. The rest of the batch keeps every bit, on this
host and on the others. In layout "tags" the row at the next position takes its place. Bad records
are counted.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.input import mixtures, pair_weights, soft_labels
from data_pipelines.input.data_config import DataConfig, FeatureSource, RowLayout
from data_pipelines.input.row_order import OrderRule, RowOrder
from data_pipelines.input.row_report import RowReport, row_report
from data_pipelines.input.row_stream import HostRows, made_ahead
from data_pipelines.input.row_workers import RowWorkers
from data_pipelines.input.rows import Example, LostRecords, RowMaker, RowPlan, plan_row, read_labels
from data_pipelines.input.token_counts import folder, token_lengths
from data_pipelines.records import whisper_features
from data_pipelines.records.bad_records import BadRecord, BadRecordCounter, BadRecordLog
from data_pipelines.records.record_files import RecordStore, shard_path
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import as_path
from ltu_jax.models.text_batch import ROW_WEIGHTS, with_targets
from ltu_jax.preprocessing.text import IGNORE, Tokenizer, TrainOn
from ltu_jax.weights.fingerprint import Fingerprint

_THREADS = 4  # that make rows where there are no workers


class InputPipeline:
    """The rows and batches of one split of a records directory."""

    def __init__(
        self,
        config: DataConfig,
        *,
        tokenizer: Tokenizer | None = None,
        tokenizer_dir: Path | None = None,
        process_index: int = 0,
        process_count: int = 1,
        clip_fingerprint: Callable[[], Fingerprint] | None = None,
        bad_log: BadRecordLog | None = None,
    ):
        """Open the records and choose the pairs.

        Args:
            config: what to read.
            tokenizer: of the language model; not needed for layout "tags".
            tokenizer_dir: its folder, for the command that counts tokens.
            process_index, process_count: this host and all hosts; the global batch is cut into
                equal consecutive parts.
            clip_fingerprint: computes the numeric fingerprint of the model's encoder; asked only
                where stored features carry another name than `config.feature_fingerprint`.
            bad_log: where bad records are written down.

        Raises:
            UserError: no records there, stored features absent or of another encoder, a dataset
                that is not there, a filter that leaves nothing, a batch that hosts cannot share.
            TooManyBadRecords: so many records lie behind the ends of their files.
        """
        self.config = config
        self.store = RecordStore(config.records, split=config.split)
        if config.layout != RowLayout.TAGS and tokenizer is None:
            raise ValueError(f"layout {str(config.layout)!r} needs a tokenizer")
        self._tokenizer, self._tokenizer_dir = tokenizer, tokenizer_dir
        if config.rows_per_batch % process_count:
            raise UserError(
                f"data.rows_per_batch is {config.rows_per_batch}, which {process_count} hosts "
                "cannot share equally; use a multiple"
            )
        share = config.rows_per_batch // process_count
        self._host = HostRows(
            per_batch=config.rows_per_batch, first=process_index * share, count=share
        )
        tagged = config.layout == RowLayout.TAGS
        self.labels = read_labels(as_path(config.records)) if tagged else ()
        self._check_stored(clip_fingerprint, show=process_index == 0)
        self.order = self._choose(show=process_index == 0)
        self._sums = functools.lru_cache(maxsize=4)(self._sum_rows)  # of the newest steps
        self._rows = RowMaker(
            config,
            features_shape=self.store.features_shape,
            tokenizer=tokenizer,
            label_index={label: place for place, label in enumerate(self.labels)},
            soft=soft_labels.of_split(self.store, config, labels=self.labels),
        )
        self._bad_log = bad_log
        self.bad = BadRecordCounter(
            records=len(self.store),
            max_share=config.max_bad_share,
            where=f"split {config.split!r} of {config.records}",
            report=bad_log,
        )
        self._note(self.store.cut_off().items(), step=0)

    @property
    def rows_per_epoch(self) -> int:
        """Rows that hold every chosen pair once."""
        return self.order.rows_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Global batches that cover an epoch, rounded up."""
        return -(-self.rows_per_epoch // self.config.rows_per_batch)

    def order_fingerprint(self) -> str:
        """Return the hex SHA-256 of all that decides which pairs a row has, equal on all hosts."""
        return self.order.fingerprint()

    def report(self) -> RowReport | None:
        """Count what the rows of an epoch hold and waste; None for layout "tags"."""
        if self.config.layout == RowLayout.TAGS:
            return None
        return row_report(self.order, self.config, whole=self._whole)

    def _check_stored(
        self, clip_fingerprint: Callable[[], Fingerprint] | None, *, show: bool
    ) -> None:
        if self.config.features != FeatureSource.STORED:
            return
        stored = self.store.manifest["features"]
        if stored is None:
            raise UserError(
                f"data.features is 'stored', but {self.config.records} holds none; write them with "
                "`python -m data_pipelines.write_records --features WHISPER_WEIGHTS_DIR`, "
                "or use 'on_the_fly'"
            )
        if self.config.feature_fingerprint is not None:
            whisper_features.check_encoder(
                stored,
                name=self.config.feature_fingerprint,
                clip_fingerprint=clip_fingerprint,
                records=self.config.records,
                show=show,
            )

    def _choose(self, *, show: bool) -> RowOrder:
        """Order all pairs that the filters take; in layout "tags" a clip is one pair."""
        config = self.config
        tagged = config.layout == RowLayout.TAGS
        # Of all splits: a name is not unknown because the validation split has no such clip.
        splits = self.store.manifest["splits"].values()
        all_datasets = {name for split in splits for name in split["datasets"]}
        if not tagged:
            tasks = {name for split in splits for name in split["tasks"]}
            mixtures.check_tasks(config.tasks, there=tasks, where=config.records)
        weights = pair_weights.parse(config.weights)
        records, pairs, numbers = chosen = mixtures.choose(
            self.store.entries,
            tasks=None if tagged else config.tasks,
            datasets=mixtures.datasets(config.datasets, there=all_datasets, where=config.records),
            where=f"split {config.split!r} of {config.records}",
        )
        clips = None
        if weights:
            weighted = pair_weights.weigh(
                self.store.entries,
                chosen,
                weights,
                there=all_datasets,
                tagged=tagged,
                where=config.records,
            )
            records, pairs, numbers = weighted.records, weighted.pairs, weighted.numbers
            clips = weighted.clips
        self.selection = mixtures.count(self.store.entries, records, tagged=tagged)
        if tagged:
            self._prompts = self._whole = np.ones(len(records), np.int64)
        else:
            counted = token_lengths(
                config.records,
                split=config.split,
                tokenizer=self._tokenizer,
                show=show,
                tokenizer_dir=self._tokenizer_dir,
            )
            if weights or len(numbers) < len(counted):
                counted = counted[numbers]
            self._prompts, self._whole = (part.astype(np.int64) for part in counted.T)
        self._tokens = np.minimum(self._whole, config.cutoff)
        return RowOrder(
            OrderRule.from_config(config),
            records=records,
            pairs=pairs,
            tokens=self._tokens,
            clips=clips,
            keep_in=None if tagged else folder(config.records, tokenizer=self._tokenizer),
        )

    def contents(self, position: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Return (clip, numbers of its pairs) for each clip of the row at `position`."""
        return tuple(
            (self.store.entries[number].clip_id, pairs)
            for number, pairs in self.order.row(position)
        )

    def row(self, position: int) -> Example:
        """Make the row at `position` of the endless stream.

        Returns:
            "log_mel" float32 [frames, M] or "features" float32 [W, A, D], with an axis of
            `clips_per_row` in front when that is above 1 (zeros where there are fewer clips); and
            for layout "tags" "targets" float32 [labels], else "input_ids", "labels", "segment_ids",
            "positions" (of the text only) int32 [T], without padding, and "clip_ids" int32 [T] with
            that axis.

        Raises:
            RecordError: a record is damaged or incomplete; the message names file and record.
                Batches go on without it.
        """
        plan = next(self._plans(position))
        example, lost = self._rows.make(plan, self._rows.fetch(plan))
        if lost:
            raise RecordError(lost[0][1])
        return example

    def _plans(self, position: int) -> Iterator[RowPlan]:
        """Plan the row at `position`, and in layout "tags" those that may stand in for it."""
        tags = self.config.layout == RowLayout.TAGS
        for stand_in in range(position, position + (self.rows_per_epoch if tags else 1)):
            yield plan_row(
                self.order,
                stand_in,
                entries=self.store.entries,
                prompts=self._prompts,
                tokens=self._tokens,
            )

    def _made(
        self, position: int, *, by: Callable[[RowPlan], tuple[list[np.ndarray] | None, LostRecords]]
    ) -> tuple[list[np.ndarray], LostRecords]:
        """Have the row at `position` made, and return the records that it lost."""
        lost: LostRecords = []
        for plan in self._plans(position):
            columns, without = by(plan)
            lost += without
            if columns is not None:
                return columns, lost
        raise RecordError(f"no tagged clip of {self.config.records} can be used: {lost[0][1]}")

    def _fixed_here(self, plan: RowPlan) -> tuple[list[np.ndarray] | None, LostRecords]:
        return self._rows.fixed(plan, self._rows.fetch(plan))

    def _note(self, lost: Iterable[tuple[int, str]], *, step: int) -> None:
        """Count the records that `step` lost (number, reason), and only then judge."""
        met = []
        for number, reason in lost:
            entry = self.store.entries[number]
            met.append(
                BadRecord(
                    file=str(shard_path(self.config.records, entry.shard)),
                    offset=entry.offset,
                    record=entry.number,
                    clip_id=entry.clip_id,
                    split=self.config.split,
                    step=step,
                    reason=reason,
                )
            )
        self.bad.note(*met)

    def text_length(self, step: int) -> int:
        """Return T of the global batch of `step`."""
        return self.config.padded(int(self._sums(step)[0].max()))

    def most_targets(self, step: int) -> int:
        """Return the largest number of targets of any row of the global batch of `step`."""
        return int(self._targets(step).max())

    def _sum_rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Sum tokens, and tokens that may be targets, of each row of the global batch."""
        rows = self.config.rows_per_batch
        pairs, begin = self.order.batch(step * rows, rows=rows)
        tokens = self._tokens[pairs]
        if self.config.train_on == TrainOn.ANSWER:
            targets = tokens - np.minimum(self._prompts[pairs], tokens)
        else:  # BOS is one in reference rows only, see `_targets`
            targets = tokens - (self.config.layout != RowLayout.REFERENCE)
        return np.add.reduceat(tokens, begin), np.add.reduceat(targets, begin)

    def _targets(self, step: int) -> np.ndarray:
        """Count the targets of each row of the global batch, all records being sound."""
        lengths, targets = self._sums(step)
        if self.config.train_on == TrainOn.ANSWER or self.config.layout != RowLayout.REFERENCE:
            return targets
        return targets - (lengths == self._widths(step))  # BOS, if a pad position predicts it

    def _widths(self, step: int) -> np.ndarray:
        """Return the padded length of each row of the global batch in its micro-batch."""
        lengths, _ = self._sums(step)
        together = self.config.micro_rows or len(lengths)
        longest = lengths.reshape(-1, together).max(axis=1)
        return np.repeat([self.config.padded(int(length)) for length in longest], together)

    def row_weights(self, step: int) -> np.ndarray:
        """Return the weight of a target of each row of the global batch, float32 [rows].

        With them a sum over all targets is the mean over micro-batches of the means over their
        targets, however the rows lie on devices (facts 14). A step that averages the sums of
        `accumulation` parts needs weights as many times larger. Targets of a record that cannot be
        used count where they would have been.
        """
        counts = self._targets(step).reshape(-1, self.config.micro_rows)
        weights = 1.0 / (len(counts) * np.maximum(counts.sum(axis=1), 1))
        weights = np.repeat(weights, self.config.micro_rows).astype(np.float32)
        return weights * np.float32(self.config.accumulation)

    def batch(self, step: int) -> Example:
        """Make this host's part of the global batch of `step`, without tf.data and workers."""
        rows = []
        for position in self._host.positions(step):
            columns, lost = self._made(position, by=self._fixed_here)
            self._note(lost, step=step)
            rows.append(columns)
        return self._batch_of(step, *map(np.stack, zip(*rows, strict=True)))

    def batches(self, *, start_step: int = 0, steps: int | None = None) -> Iterator[Example]:
        """Yield this host's part of global batches `start_step`, `start_step + 1`, ...

        Args:
            start_step: first batch; any number costs the same.
            steps: how many; None for no end.

        Yields:
            numpy, for B rows of this host: "log_mel" float32 [B, frames, M] or "features" float32
            [B, W, A, D]; for text "input_ids", "segment_ids" (0: padding) int32 [B, T], "positions"
            int32 [B, A+T], "target_positions" and "target_ids" int32 [B, P] (see `with_targets`);
            for tags "targets" float32 [B, labels]. T is the smallest allowed length that holds all
            rows of the global batch, P likewise for targets. With G = `clips_per_row` above 1
            "log_mel" is [B, G, frames, M], "features" [B, G, W, A, D], "positions" [B, G*A+T], and
            "clip_ids" int32 [B, T] tells the clip of each token. With `micro_rows` there is
            "row_weights", see there.

        Raises:
            TooManyBadRecords: at the step that meets one too many.
            UserError: a worker process has ended.
        """
        if self._bad_log is not None:
            self.bad.recall(self._bad_log.before(start_step, split=self.config.split))
        with contextlib.ExitStack() as open_:
            fixed, at_once = self._fixed_here, _THREADS
            if count := self.config.worker_count:
                workers = RowWorkers(self._rows, workers=count)
                open_.callback(workers.close)
                fixed, at_once = workers.fixed, workers.at_once
            stream = made_ahead(
                functools.partial(self._made, by=fixed),
                blank=self._rows.blank(),
                rows=self._host,
                start_step=start_step,
                steps=steps,
                at_once=at_once,
                prefetch=self.config.prefetch,
            )
            open_.enter_context(contextlib.closing(stream))
            for step, (columns, lost) in enumerate(stream, start=start_step):
                if lost:
                    self._note(lost, step=step)
                yield self._batch_of(step, *columns)

    def _batch_of(self, step: int, audio: np.ndarray, *columns: np.ndarray) -> Example:
        """Cut the padding to the length of the step and put the audio's positions in front."""
        config = self.config
        example = {self._rows.audio_column: audio}
        if config.layout == RowLayout.TAGS:
            return {**example, "targets": columns[0]}
        width, reference = self.text_length(step), config.layout == RowLayout.REFERENCE
        places = slice(-width, None) if reference else slice(width)
        for name, text in zip(self._rows.columns, columns, strict=True):
            example[name] = np.ascontiguousarray(text[:, places])
        if config.layout != RowLayout.GROUPED:  # padding counts, as in the official code
            after = config.audio_tokens + np.arange(width, dtype=np.int32)
            example["positions"] = np.broadcast_to(after, (len(audio), width))
        if config.micro_rows:
            mine = slice(self._host.first, self._host.first + self._host.count)
            ahead = width - self._widths(step)[mine, None]  # places that its micro-batch has not
            example["positions"] = np.maximum(example["positions"] - ahead, config.audio_tokens)
            # The first place of a micro-batch, which nothing predicts, may hold BOS.
            outside = np.arange(width) <= ahead
            example["labels"] = np.where(outside, IGNORE, example["labels"])
            example[ROW_WEIGHTS] = self.row_weights(step)[mine]
        ahead = np.tile(np.arange(config.audio_tokens, dtype=np.int32), config.clips_per_row)
        ahead = np.broadcast_to(ahead, (len(audio), len(ahead)))
        example["positions"] = np.concatenate([ahead, example["positions"]], axis=1)
        return with_targets(example, most=self.most_targets(step))
