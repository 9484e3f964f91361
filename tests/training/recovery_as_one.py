"""Damage, a failing save, a missing start in one of two processes: RUN; each prints its view."""

import json
import sys
from pathlib import Path

import jax
import numpy as np

from ltu_jax import checkpoint
from ltu_jax.checkpoint import recovery, writer
from ltu_jax.checkpoint.integrity import Damaged
from ltu_jax.core import distributed
from ltu_jax.core.errors import UserError
from ltu_jax.training.saving import Saver
from ltu_jax.training.state import TrainState

if __name__ == "__main__":
    distributed.initialize()
    run_dir, found = Path(sys.argv[1]), {}
    saver = Saver(run_dir, frozen={}, metadata={"kind": "ltu-as-checkpoint"}, keep=9)

    def state(step: int) -> TrainState:
        whole = jax.sharding.NamedSharding(
            jax.sharding.Mesh(np.asarray(jax.devices()), ("x",)), jax.sharding.PartitionSpec()
        )
        arrays = {"a.kernel": jax.make_array_from_callback((2,), whole, lambda _: np.ones(2, "f"))}
        return TrainState(step=np.int32(step), trainable=arrays, opt_state={})

    with saver:
        for step in (3, 5, 7):
            saver.save(state(step))
    if jax.process_index() == 1:  # the other one reads the same bytes without a fault
        real = recovery.check_files

        def check_files(folder, metadata):
            if folder.name == "7":
                raise Damaged("bits fell over here")
            real(folder, metadata)

        recovery.check_files = check_files
    else:
        (run_dir / "checkpoints" / "5" / "adapter" / "_METADATA").unlink()
    distributed.barrier("damaged")
    found["newest"] = recovery.newest_good(run_dir)

    def seal(folder, metadata):
        raise OSError(28, "No space left on device", str(folder))

    writer.seal = seal
    try:
        checkpoint.save(run_dir, state=state(9), adapter=state(9).trainable, metadata={}, keep=9)
    except UserError as error:
        found["error"], found["agreed"] = str(error), isinstance(error, distributed.AgreedError)
    distributed.barrier("failed")
    found["left"] = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    try:
        with distributed.together("no start"):
            checkpoint.load_adapter(run_dir if jax.process_index() == 0 else run_dir / "gone")
    except UserError as error:
        found["start"] = str(error)
    print(json.dumps(found))
