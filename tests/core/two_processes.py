"""One of two processes: what `core.distributed` does between them; prints one JSON object."""

import json
import sys

import jax
import numpy as np

from ltu_jax.core import distributed
from ltu_jax.core.errors import UserError
from ltu_jax.core.sharding import MeshConfig, make_mesh


def message(run) -> str:
    try:
        run()
    except distributed.AgreedError as error:
        return str(error)
    return ""


def fail_on(processes: set[int]) -> None:
    with distributed.together("opening"):
        if jax.process_index() in processes:
            raise UserError(f"no file {jax.process_index()}")


def rows_on(sizes: tuple[int, int, int]) -> dict:
    """Read 8 rows as a pipeline does and say what this process's devices hold."""
    data, fsdp, tensor = sizes
    mesh = make_mesh(MeshConfig(data=data, fsdp=fsdp, tensor=tensor))
    share = distributed.batch_share(mesh)
    part = 8 // share.count
    mine = np.arange(8, dtype=np.float32)[share.index * part : (share.index + 1) * part]
    rows = distributed.host_batch_to_global({"rows": mine}, mesh)["rows"]
    total = float(jax.jit(lambda x: (x * x).sum())(rows))
    held = {int(row) for shard in rows.addressable_shards for row in np.asarray(shard.data)}
    return {
        "read": mine.astype(int).tolist(),
        "held": sorted(held),
        "shape": list(rows.shape),
        "total": total,
    }


def votes() -> list[bool]:
    ballot = distributed.Votes()
    return [ballot.cast(jax.process_index() == 1 and step == 1) for step in range(4)]


if __name__ == "__main__":
    distributed.initialize()
    distributed.initialize()  # a second call is harmless
    me = jax.process_index()
    distributed.check_devices()
    found = {
        "same": message(lambda: distributed.agree(lambda: {"a": "1"}, advice="x")),
        "value": message(
            lambda: distributed.agree(lambda: {"a": "1", "b": "x" * (1 + me)}, advice="do this")
        ),
        "names": message(lambda: distributed.agree(lambda: {f"only{me}": "1"}, advice="do this")),
        "nobody failed": message(lambda: fail_on(set())),
        "one failed": message(lambda: fail_on({1})),
        "both failed": message(lambda: fail_on({0, 1})),
        "votes": votes(),
        "meshes": {str(sizes): rows_on(sizes) for sizes in ((4, 1, 1), (2, 1, 2), (1, 1, 4))},
    }
    json.dump(found, sys.stdout)
