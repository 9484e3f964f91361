"""Evaluate a stage while it trains: validation, sample answers, clips to listen to."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.input.rows import Example
from data_pipelines.records.schema import RecordError
from ltu_jax.core.distributed import Share, batch_share, everywhere, host_batch_to_global
from ltu_jax.core.errors import UserError
from ltu_jax.core.ranking import mean_average_precision
from ltu_jax.core.sharding import batch_sharding, param_shardings, replicated
from ltu_jax.core.trees import Params, merge
from ltu_jax.generation.buckets import left_pad
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.generate import generate
from ltu_jax.preprocessing import audio
from ltu_jax.preprocessing.text import IGNORE
from ltu_jax.training import losses
from ltu_jax.training.logs import RunLog
from ltu_jax.training.stage import Stage, open_pipeline
from ltu_jax.training.state import TrainState
from ltu_jax.training.step import make_eval_step


class Evaluator(Protocol):
    """Something that the loop runs every `every` steps (0 = never) and at the end of a stage."""

    every: int

    def __call__(self, state: TrainState) -> Mapping[str, float]:
        """Evaluate a state, and return scalars for the log."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out rows that a stage is evaluated on; None for what it does not do."""

    validation: InputPipeline | None
    samples: InputPipeline | None


def open_held_out(stage: Stage) -> HeldOut:
    """Open the rows of validation and sample answers, before anything is written.

    There are no samples where log.samples is 0, and in tagging.

    Raises:
        UserError: the records have no such split, or none of its rows is asked for.
    """
    settings = stage.settings
    validated = settings.log.validate_batches > 0
    sampled = settings.log.samples > 0 and settings.stage != "tagging"
    split, there = settings.data.validation_split, stage.pipeline.store.manifest["splits"]
    if (validated or sampled) and split not in there:
        switches = {"validate_batches": validated, "samples": sampled}
        off = " ".join(f"--config.log.{name}=0" for name, wanted in switches.items() if wanted)
        raise UserError(
            f"config.data.validation_split is {split!r}, but {settings.data.records} has no such "
            f'split; it has {", ".join(sorted(there))}. Give rows of the JSON a "split" and write '
            f"the records again, name another split, or train without held-out rows: {off}"
        )
    return HeldOut(
        validation=_held_out(stage) if validated else None,
        samples=_held_out(
            stage,
            share=Share(index=0, count=1),
            layout="single",
            train_on="answer",
            lengths=(),
            rows_per_batch=1,
        )
        if sampled
        else None,
    )


def make_evaluators(
    stage: Stage, held_out: HeldOut, *, frozen: Params, log: RunLog | None
) -> list[Evaluator]:
    """Make the evaluators of a stage, in the order in which they run."""
    evaluators: list[Evaluator] = []
    if held_out.validation is not None:
        kind = TaggingValidation if stage.settings.stage == "tagging" else Validation
        evaluators.append(kind(stage, held_out.validation, frozen=frozen))
    if held_out.samples is not None:
        evaluators.append(SampleAnswers(stage, held_out.samples, frozen=frozen, log=log))
    return evaluators


class Validation:
    """The mean training loss and metrics over held-out batches."""

    def __init__(self, stage: Stage, pipeline: InputPipeline, *, frozen: Params) -> None:
        settings = stage.settings
        self.every = settings.log.validate_every
        self._stage, self._pipeline, self._frozen = stage, pipeline, frozen
        self._batches = min(settings.log.validate_batches, pipeline.steps_per_epoch)
        self._step: Callable | None = None

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Return "val_loss" and the other metrics of the loss, each as "val_<name>"."""
        mesh, frozen = self._stage.mesh, self._frozen
        if self._step is None:
            shardings = (param_shardings(mesh, state.trainable), param_shardings(mesh, frozen))
            self._step = make_eval_step(self._stage.loss_fn, mesh=mesh, shardings=shardings)
        rows = [
            self._step(state.trainable, frozen, host_batch_to_global(batch, mesh))
            for batch in self._pipeline.batches(steps=self._batches)
        ]
        return {f"val_{n}": float(np.mean([float(row[n]) for row in rows])) for n in rows[0]}


class TaggingValidation:
    """Mean average precision and loss of a tagger over held-out clips."""

    def __init__(self, stage: Stage, pipeline: InputPipeline, *, frozen: Params) -> None:
        settings = stage.settings
        self.every = settings.log.validate_every
        self._pipeline, self._frozen, self._mesh = pipeline, frozen, stage.mesh
        self._batches = min(settings.log.validate_batches, pipeline.steps_per_epoch)

        def scores(trainable: Params, frozen: Params, batch: dict[str, Any]) -> tuple[Any, Any]:
            params = merge(trainable, losses.without(frozen, losses.WHISPER))
            return stage.model.bind(params)(stage.features(frozen, batch)), batch["targets"]

        whole = replicated(stage.mesh)
        self._scores = jax.jit(
            scores,
            in_shardings=(None, None, batch_sharding(stage.mesh)),
            out_shardings=(whole, whole),
        )

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Return "val_map" and "val_loss"."""
        scores, truth = [], []
        for batch in itertools.islice(self._pipeline.batches(), self._batches):
            placed = host_batch_to_global(batch, self._mesh)
            logits, targets = self._scores(state.trainable, self._frozen, placed)
            scores.append(np.asarray(logits))
            truth.append(np.asarray(targets))
        # The stream of rows goes on into the next epoch; each clip counts once.
        logits = np.concatenate(scores)[: self._pipeline.rows_per_epoch]
        targets = np.concatenate(truth)[: self._pipeline.rows_per_epoch]
        columns = np.concatenate([logits.astype(np.float64), targets], axis=1)
        mean = float(mean_average_precision(columns, np.ones(len(columns))))
        if math.isnan(mean):
            raise UserError("mean average precision: no clip of this split has any label")
        return {"val_map": mean, "val_loss": float(losses.binary_cross_entropy(logits, targets))}


class SampleAnswers:
    """Answers to the first held-out questions, as text in the log and in TensorBoard.

    All processes read the same rows and answer in step. The clips that they are about are put into
    TensorBoard the first time. A row whose record is damaged is left out, with the reason in the
    log.
    """

    def __init__(
        self, stage: Stage, pipeline: InputPipeline, *, frozen: Params, log: RunLog | None
    ) -> None:
        settings = stage.settings
        self.every = settings.log.samples_every
        self._stage, self._pipeline, self._frozen, self._log = stage, pipeline, frozen, log
        # Rows of a clip are neighbours: a stride shows different clips.
        stride = max(1, pipeline.rows_per_epoch // settings.log.samples)
        self._places = [index * stride for index in range(settings.log.samples)]
        self._played: set[str] = set()
        self._features = jax.jit(stage.features)
        self._layout = DataParallel(mesh=stage.mesh)

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Log the answers; there are no scalars."""
        rows, lost = _readable(self._pipeline, self._places)
        if self._log is not None and lost:
            self._log.row(int(state.step), {"samples_lost": lost})
        if rows:
            self._write(int(state.step), self._answer(state, rows))
        return {}

    def _answer(self, state: TrainState, rows: Mapping[int, Example]) -> list[dict[str, str]]:
        stage, examples = self._stage, list(rows.values())
        tokenizer = stage.bases.tokenizer
        prompts, answers = zip(*map(_question_and_answer, examples), strict=True)
        ids, mask = left_pad(prompts)
        name = "features" if "features" in examples[0] else "log_mel"
        batch = {name: np.stack([example[name] for example in examples])}
        features = self._layout.to_host(self._features(self._frozen, batch))
        generated = generate(
            stage.model,
            merge(state.trainable, losses.without(self._frozen, "whisper.")),
            input_ids=ids,
            attention_mask=mask,
            audio_features=features,
            max_new_tokens=stage.settings.log.sample_tokens,
            eos_id=tokenizer.eos_id,
            sampling=None,
            data_parallel=self._layout,
        )
        samples = []
        for index, place in enumerate(rows):
            ((clip, _),) = self._pipeline.contents(place)
            samples.append(
                {
                    "clip": clip,
                    "prompt": tokenizer.decode(prompts[index]),
                    "expected": tokenizer.decode(answers[index]),
                    "answer": tokenizer.decode(generated.row(index)),
                }
            )
        return samples

    def _write(self, step: int, samples: Sequence[Mapping[str, str]]) -> None:
        if self._log is None:
            return
        for clip in (sample["clip"] for sample in samples):
            if (
                clip not in self._played
                and len(self._played) < self._stage.settings.log.audio_clips
            ):
                self._played.add(clip)
                wave = _samples_of(self._pipeline, clip)
                self._log.audio(step, f"clips/{clip}", wave, rate=audio.SAMPLE_RATE)
        self._log.row(step, {"samples": samples})
        texts = (
            "\n\n".join(f"**{key}**: {value}" for key, value in sample.items())
            for sample in samples
        )
        self._log.text(step, "answers", "\n\n---\n\n".join(texts))


def _held_out(stage: Stage, *, share: Share | None = None, **changes: Any) -> InputPipeline:
    split = stage.settings.data.validation_split
    return open_pipeline(
        stage.settings,
        stage.bases,
        share=share or batch_share(stage.mesh),
        **{
            "split": split,
            "shuffle": False,
            "group_by_length": 0,
            "weights": (),
            "teacher": "",
            **changes,
        },
    )


def _question_and_answer(row: dict[str, np.ndarray]) -> tuple[list[int], list[int]]:
    answered = row["labels"] != IGNORE
    return row["input_ids"][~answered].tolist(), row["input_ids"][answered].tolist()


def _readable(
    pipeline: InputPipeline, places: Sequence[int]
) -> tuple[dict[int, Example], list[str]]:
    """Read the rows at these places.

    Returns those that every process could read, and why this one could not read others.
    """
    rows, lost = {}, []
    for place in places:
        try:
            rows[place] = pipeline.row(place)
        except RecordError as error:
            lost.append(str(error))
    readable = everywhere([place in rows for place in places])
    return {place: rows[place] for place, read in zip(places, readable, strict=True) if read}, lost


def _samples_of(pipeline: InputPipeline, clip: str) -> np.ndarray:
    return audio.load_audio(pipeline.store.read(pipeline.store.find(clip)).audio).samples
