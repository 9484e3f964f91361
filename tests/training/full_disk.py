"""Save a small checkpoint, then one that the disk has no room for: RUN MEGABYTES [LIMIT]

With LIMIT no file may become longer than that many bytes, which needs no rights and no disk of its
own. Prints the error of the second save, and what can then be restored.
"""

import json
import resource
import sys
from pathlib import Path

import numpy as np

from ltu_jax import checkpoint
from ltu_jax.checkpoint import recovery
from ltu_jax.core.errors import UserError
from ltu_jax.training.saving import Saver
from ltu_jax.training.state import TrainState

if __name__ == "__main__":
    run_dir, rng = Path(sys.argv[1]), np.random.default_rng(0)
    found: dict = {"error": None}

    def state(step: int, count: int) -> TrainState:
        arrays = {f"a.{i}": rng.normal(size=(512, 512)).astype("f") for i in range(count)}
        return TrainState(step=np.int32(step), trainable=arrays, opt_state={})

    small = state(1, 1)
    with Saver(run_dir, frozen={}, metadata={"kind": "ltu-as-checkpoint"}, keep=1) as saver:
        saver.save(small)
        saver.finish()
        if len(sys.argv) > 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
        try:
            saver.save(state(2, int(sys.argv[2])))
            saver.finish()
        except UserError as error:
            found["error"] = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found["newest"] = recovery.newest_good(run_dir)
    _, adapter = checkpoint.load_adapter(run_dir)
    found["same"] = bool((adapter["a.0"] == small.trainable["a.0"]).all())
    found["left"] = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    saver = Saver(run_dir, frozen={}, metadata={"kind": "ltu-as-checkpoint"}, keep=1)
    with saver:  # with room again the run goes on
        saver.save(state(3, 1))
    found["after"] = recovery.newest_good(run_dir)
    print(json.dumps(found))
