"""A stage opened as its config says, its parameters placed, for measurements without training."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.input.pipeline import InputPipeline
from ltu_jax import train
from ltu_jax.core.distributed import batch_share
from ltu_jax.core.trees import Params
from ltu_jax.training.initialize import prepare
from ltu_jax.training.stage import Stage, assemble, open_bases, open_pipeline
from ltu_jax.training.stage_config import stage_settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedStage:
    """A stage and its parameters: those it would train and those it never touches."""

    stage: Stage
    trainable: Params
    frozen: Params

    def rows(self, *, split: str) -> InputPipeline:
        """Open rows of one pair each, in the order of the records."""
        return open_pipeline(
            self.stage.settings,
            self.stage.bases,
            share=batch_share(self.stage.mesh),
            split=split,
            shuffle=False,
            group_by_length=0,
            layout="single",
        )


def open_fixed(arguments: Sequence[str]) -> FixedStage:
    """Open the stage of command-line arguments as `ltu_jax.train` takes them.

    Raises:
        UserError: as training would at its start.
    """
    (resolved,) = train.resolve(train.parse_config(list(arguments)))
    settings = stage_settings(resolved)
    stage = assemble(settings, open_bases(settings))
    prepared = prepare(stage, saved=None)
    return FixedStage(stage=stage, trainable=prepared.state.trainable, frozen=prepared.frozen)


def batches_with_clips(
    pipeline: InputPipeline,
) -> Iterator[tuple[dict[str, np.ndarray], list[str]]]:
    """Yield an epoch of batches with the clip of each row."""
    rows = pipeline.config.rows_per_batch
    for step, batch in enumerate(pipeline.batches(steps=pipeline.steps_per_epoch)):
        places = range(step * rows, min((step + 1) * rows, pipeline.rows_per_epoch))
        clips = [pipeline.contents(place)[0][0] for place in places]
        yield {name: leaf[: len(clips)] for name, leaf in batch.items()}, clips
