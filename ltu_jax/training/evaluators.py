"""What a stage looks at besides its loss: validation, sample answers, clips to listen to."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.input.rows import Example
from data_pipelines.records.schema import RecordError
from ltu_jax.core.distributed import host_batch_to_global
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import batch_sharding, param_shardings, replicated
from ltu_jax.core.trees import Params, merge
from ltu_jax.preprocessing import audio
from ltu_jax.training import losses
from ltu_jax.training.logs import RunLog
from ltu_jax.training.metrics import mean_average_precision
from ltu_jax.training.stage import Stage, located, open_pipeline
from ltu_jax.training.state import TrainState
from ltu_jax.training.step import make_eval_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The held-out rows that a stage looks at; None for what it does not do."""

    validation: InputPipeline | None
    samples: InputPipeline | None


def open_held_out(stage: Stage) -> HeldOut:
    """Open what validation and sample answers read, before anything is written.

    There are no samples where log.samples is 0, in tagging, or where several processes train
    (answers would need all of them to generate in step).

    Raises:
        UserError: the records have no such split, or none of its rows is asked for.
    """
    settings = stage.settings
    validated = settings.log.validate_batches > 0
    asked = settings.log.samples > 0 and settings.stage != "tagging" and jax.process_count() == 1
    split, there = settings.data.validation_split, stage.pipeline.store.manifest["splits"]
    if (validated or asked) and split not in there:
        switches = {"validate_batches": validated, "samples": asked}
        off = " ".join(f"--config.log.{name}=0" for name, wanted in switches.items() if wanted)
        raise UserError(
            f"config.data.validation_split is {split!r}, but {settings.data.records} has no such "
            f'split; it has {", ".join(sorted(there))}. Give rows of the JSON a "split" and write '
            f"the records again, name another split, or train without held-out rows: {off}"
        )
    return HeldOut(
        validation=_held_out(stage) if validated else None,
        samples=_held_out(stage, layout="single", train_on="answer", lengths=(), rows_per_batch=1)
        if asked
        else None,
    )


def validation(
    stage: Stage, pipeline: InputPipeline | None, *, frozen: Params
) -> Callable[[TrainState], dict] | None:
    """The validation of a stage: loss over held-out batches, for tagging mean average precision.

    None when there is no pipeline.
    """
    settings = stage.settings
    if pipeline is None:
        return None
    batches = min(settings.log.validate_batches, pipeline.steps_per_epoch)
    if settings.stage == "tagging":
        return _tagging_validation(stage, pipeline, frozen=frozen, batches=batches)
    compiled: list[Callable] = []

    def validate(state: TrainState) -> dict[str, float]:
        if not compiled:
            by_path = param_shardings(stage.mesh, state.trainable)
            shardings = (by_path, param_shardings(stage.mesh, frozen))
            compiled.append(make_eval_step(stage.loss_fn, mesh=stage.mesh, shardings=shardings))
        found = []
        for batch in located(pipeline, steps=batches):
            batch = host_batch_to_global(batch, stage.mesh)
            found.append(compiled[0](state.trainable, frozen, batch))
        names = found[0].keys()
        return {f"val_{n}": float(np.mean([float(m[n]) for m in found])) for n in names}

    return validate


def samples(
    stage: Stage, pipeline: InputPipeline | None, *, frozen: Params, log: RunLog | None
) -> Callable[[TrainState], None] | None:
    """Answers to the first held-out questions, as text in the log and in TensorBoard.

    The clips they are about are put into TensorBoard the first time. A row whose record is damaged
    is left out, with the reason in the log. None when there is no pipeline.
    """
    settings = stage.settings
    if pipeline is None:
        return None
    # Rows of a clip are neighbours: a stride shows different clips.
    stride = max(1, pipeline.rows_per_epoch // settings.log.samples)
    places = [index * stride for index in range(settings.log.samples)]
    heard: set[str] = set()

    def show(state: TrainState) -> None:
        from ltu_jax.generation.generate import generate, left_pad

        rows, lost = _readable(pipeline, places)
        if log is not None and lost:
            log.row(int(state.step), {"samples_lost": lost})
        if not rows:
            return
        made = list(rows.values())
        prompts, answers = zip(*map(_question_and_answer, made), strict=True)
        ids, mask = left_pad(prompts)
        name = "features" if "features" in made[0] else "log_mel"
        batch = {name: np.stack([row[name] for row in made])}
        tokenizer = stage.bases.tokenizer
        generated = generate(
            stage.fns,
            merge(state.trainable, losses.without(frozen, "whisper.")),
            input_ids=ids,
            attention_mask=mask,
            audio_features=jax.jit(stage.features)(frozen, batch),
            max_new_tokens=settings.log.sample_tokens,
            eos_id=tokenizer.eos_id,
            sampling=None,
        )
        step, lines, shown = int(state.step), [], []
        for index, place in enumerate(rows):
            ((clip, _),) = pipeline.contents(place)
            texts = {
                "clip": clip,
                "prompt": tokenizer.decode(prompts[index]),
                "expected": tokenizer.decode(answers[index]),
                "answer": tokenizer.decode(generated.row(index)),
            }
            shown.append(texts)
            lines.append("\n\n".join(f"**{key}**: {value}" for key, value in texts.items()))
            if log is not None and clip not in heard and len(heard) < settings.log.audio_clips:
                heard.add(clip)
                wave = _samples_of(pipeline, clip)
                log.audio(step, f"clips/{clip}", wave, rate=audio.SAMPLE_RATE)
        if log is not None:
            log.row(step, {"samples": shown})
            log.text(step, "answers", "\n\n---\n\n".join(lines))

    return show


def _held_out(stage: Stage, **changes: Any) -> InputPipeline:
    split = stage.settings.data.validation_split
    return open_pipeline(
        stage.settings,
        stage.bases,
        mesh=stage.mesh,
        **{"split": split, "shuffle": False, "group_by_length": 0, **changes},
    )


def _tagging_validation(
    stage: Stage, pipeline: InputPipeline, *, frozen: Params, batches: int
) -> Callable[[TrainState], dict[str, float]]:
    def scores(trainable: Params, frozen: Params, batch: dict[str, Any]) -> tuple[Any, Any]:
        params = merge(trainable, losses.without(frozen, "whisper."))
        return stage.fns.logits(params, stage.features(frozen, batch)), batch["targets"]

    whole = replicated(stage.mesh)
    compiled = jax.jit(
        scores,
        in_shardings=(None, None, batch_sharding(stage.mesh)),
        out_shardings=(whole, whole),
    )

    def validate(state: TrainState) -> dict[str, float]:
        found, truth = [], []
        for batch in itertools.islice(pipeline.batches(), batches):
            logits, targets = compiled(
                state.trainable, frozen, host_batch_to_global(batch, stage.mesh)
            )
            found.append(np.asarray(logits))
            truth.append(np.asarray(targets))
        # The stream of rows goes on into the next epoch; each clip counts once.
        logits = np.concatenate(found)[: pipeline.rows_per_epoch]
        targets = np.concatenate(truth)[: pipeline.rows_per_epoch]
        mean, _ = mean_average_precision(logits, targets)
        loss = float(losses.binary_cross_entropy(logits, targets))
        return {"val_map": mean, "val_loss": loss}

    return validate


def _question_and_answer(row: dict[str, np.ndarray]) -> tuple[list[int], list[int]]:
    answered = row["labels"] != losses.IGNORED
    return row["input_ids"][~answered].tolist(), row["input_ids"][answered].tolist()


def _readable(
    pipeline: InputPipeline, places: Sequence[int]
) -> tuple[dict[int, Example], list[str]]:
    """The rows at these places, and why those that are not there could not be read."""
    rows, lost = {}, []
    for place in places:
        try:
            rows[place] = pipeline.row(place)
        except RecordError as error:
            lost.append(str(error))
    return rows, lost


def _samples_of(pipeline: InputPipeline, clip: str) -> np.ndarray:
    return audio.load_audio(pipeline.store.read(pipeline.store.find(clip)).audio).samples
