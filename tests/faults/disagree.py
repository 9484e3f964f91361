"""Runs of `ltu_jax.train` in which process 1 goes its own way: KIND RUN_DIR ... -- ARGUMENTS.

Prints for each kind the error that ended the run and how many steps this process had begun.
"""

import dataclasses
import sys

import jax
import numpy as np

from ltu_jax import train
from ltu_jax.core.distributed import AgreedError
from ltu_jax.training import stage as parts
from ltu_jax.training import trainer

REAL = (trainer.prepare, parts.data_config)
LEAF = "audio_proj.bias"


def flipped(leaf):
    """The same array with one bit of this process's copies turned over."""
    copies = []
    for shard in leaf.addressable_shards:
        values = np.array(shard.data)
        values.view(np.uint32).reshape(-1)[0] ^= 1
        copies.append(jax.device_put(values, shard.device))
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, copies)


def own_way(state):
    """A state of process 1 that differs in one bit; process 0 keeps its own."""
    if jax.process_index() == 0:
        return state
    trainable = {**state.trainable, LEAF: flipped(state.trainable[LEAF])}
    return dataclasses.replace(state, trainable=trainable)


def disagree(kind, begun):
    """Let `kind` happen in the run that comes."""

    def prepare(stage, **how):
        prepared = REAL[0](stage, **how)
        if kind == "rows":
            contents = stage.pipeline.contents
            stage.pipeline.contents = lambda row: contents(row + jax.process_index())
        state = own_way(prepared.state) if kind == "parameter" else prepared.state

        def step_fn(state, *others):
            begun.append(kind)
            state, metrics = prepared.step_fn(state, *others)
            if kind == "later" and len(begun) == 2:
                state = own_way(state)
            return state, metrics

        return dataclasses.replace(prepared, state=state, step_fn=step_fn)

    def data_config(settings, **changes):
        seed = jax.process_index() if kind == "order" else settings.seed
        return REAL[1](settings, seed=seed, **changes)

    trainer.prepare, parts.data_config = prepare, data_config


if __name__ == "__main__":
    cut = sys.argv.index("--")
    asked, arguments = sys.argv[1:cut], sys.argv[cut + 1 :]
    for kind, run_dir in zip(asked[::2], asked[1::2], strict=True):
        begun: list[str] = []
        disagree(kind, begun)
        try:
            print(f"{kind}: ended with {train.main([*arguments, f'--config.run_dir={run_dir}'])}")
        except AgreedError as error:
            print(f"{kind}: {len(begun)} steps: {error}")
