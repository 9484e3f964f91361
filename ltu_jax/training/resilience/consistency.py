"""Compare what all processes and devices of one run must have in common.

Each comparison of processes is one exchange of a digest; values travel only when something differs.
Devices that hold the same part of the trained parameters must hold the same bits: each sums a hash
of its own part, and a few kilobytes travel. A sum that crossed devices before it is compared would
hide what is looked for.
"""

import functools
import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.records.record_files import MANIFEST
from ltu_jax import checkpoint
from ltu_jax.core import distributed
from ltu_jax.core.axes import Array
from ltu_jax.core.distributed import AgreedError
from ltu_jax.core.errors import shorten
from ltu_jax.core.files import sha256_file
from ltu_jax.core.paths import as_path
from ltu_jax.core.sharding import replicated
from ltu_jax.core.trees import Params
from ltu_jax.training.stage import Stage, leaves
from ltu_jax.training.state import TrainState

_ROOT = Path(__file__).resolve().parents[3]
_CODE = ("ltu_jax", "configs", "data_pipelines")
_SAME_COMMAND = "start the same command on every host"
_SAME_CODE = "copy one checkout to every host (tpu_scripts/setup.sh) and start the same command"
_TOKEN = ".launch"
_HEX = 16  # digits shown of a hash
# Odd numbers, so that each product is one to one: an entry that differs is never lost (those of
# MurmurHash3 and the golden ratio).
_SPREAD, _FIRST, _SECOND = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35


def agree_at_launch(stages: Sequence[Mapping[str, Any]]) -> None:
    """Require one config, one code and one JAX on all processes.

    Args:
        stages: the resolved config of each stage.

    Raises:
        AgreedError: names the differing keys, files or versions, and the processes.
    """

    def config() -> dict[str, str]:
        facts = {}
        for stage in stages:
            values = leaves(stage).items()
            facts |= {f"{stage['stage']}: config.{key}": repr(value) for key, value in values}
        return facts

    distributed.check_devices()
    distributed.agree(config, advice=_SAME_COMMAND)
    distributed.agree(code_facts, advice=_SAME_CODE)


def code_facts() -> dict[str, str]:
    """Hash of every source file, JAX's version and the kind of device."""
    files = (path for name in _CODE for path in (_ROOT / name).rglob("*.py"))
    facts = {path.relative_to(_ROOT).as_posix(): sha256_file(path)[:_HEX] for path in files}
    return facts | {"jax": jax.__version__, "device": jax.devices()[0].device_kind}


def agree_on_files(stage: Stage) -> None:
    """Require one set of base weights, records, start and checkpoints on all processes.

    Raises:
        AgreedError: names what differs, and the processes.
    """
    settings, bases = stage.settings, stage.bases
    run_dir = as_path(settings.run_dir)

    def facts() -> dict[str, str]:
        hashes = {
            f"{settings.data.records}/{MANIFEST}": sha256_file(
                as_path(settings.data.records) / MANIFEST
            )[:_HEX],
            "order of the data": stage.pipeline.order_fingerprint()[:_HEX],
            "config.weights.whisper": bases.whisper.sha256[:_HEX],
        }
        if bases.llama is not None:
            hashes["config.weights.llama"] = bases.llama.sha256[:_HEX]
            for file in sorted(bases.llama.tokenizer_dir.glob("tokenizer*")):
                hashes[f"config.weights.llama/{file.name}"] = sha256_file(file)[:_HEX]
        return hashes

    distributed.agree(facts, advice="put the same records and weights on every host")
    agree_on_run_dir(run_dir)
    saved = {"checkpoints": str(checkpoint.steps_in(run_dir))}
    distributed.agree(lambda: saved, advice=f"{run_dir} must be one folder that all hosts share")


def agree_on_run_dir(run_dir: Path) -> None:
    """Require that what the main process writes in `run_dir` is seen by the others.

    Raises:
        AgreedError: names the processes that see another folder.
    """
    if jax.process_count() == 1:
        return
    token = run_dir / _TOKEN
    if distributed.is_main():
        run_dir.mkdir(parents=True, exist_ok=True)
        token.write_text(uuid.uuid4().hex)
    distributed.barrier("launch-token")
    seen = token.read_text() if token.is_file() else "(absent)"
    distributed.agree(
        lambda: {str(token): seen},
        advice="config.run_dir must be one folder that all hosts share: a mounted bucket "
        "(tpu_scripts/setup.sh --bucket) or a network disk",
    )
    if distributed.is_main():
        token.unlink()


def agree_at_the_end(*, step: int, last_loss: float, resolved: Mapping[str, Any]) -> None:
    """Require that all processes did the same: step, config and the loss they saw.

    Raises:
        AgreedError: names what differs, and the processes.
    """
    done = {"step": str(step), "last loss": repr(last_loss)}
    values = {f"config.{key}": repr(value) for key, value in leaves(resolved).items()}
    advice = "the hosts went apart during training; start again from an earlier checkpoint"
    distributed.agree(lambda: done | values, advice=advice)


def agree_while_training(stage: Stage) -> Callable[[TrainState], None]:
    """Make the comparison of all processes that runs every `guards.compare_every` steps.

    That is the step, the rows that come next, and the trained parameters bit by bit, over all
    devices. It raises an AgreedError that names what differs.
    """
    rows = rows_of(stage)

    def compare(state: TrainState) -> None:
        step = int(state.step)

        def facts() -> dict[str, str]:
            coming = hashlib.sha256("\n".join(rows(step)).encode()).hexdigest()
            return {"step": str(step), "rows of the next step": coming[:_HEX]}

        distributed.agree(
            facts, advice="the hosts went apart; start the same command again on every host"
        )
        check_replicas(state.trainable, mesh=stage.mesh, step=step)

    return compare


def rows_of(stage: Stage) -> Callable[[int], tuple[str, ...]]:
    """Make a function that names the rows of a step's global batch: clips, numbers of pairs."""
    rows = stage.settings.data.rows_per_batch

    def names(step: int) -> tuple[str, ...]:
        return tuple(
            " + ".join(
                f"{clip} pairs {' '.join(map(str, pairs))}"
                for clip, pairs in stage.pipeline.contents(position)
            )
            for position in range(step * rows, (step + 1) * rows)
        )

    return names


def check_replicas(params: Params, *, mesh: Mesh, step: int) -> int:
    """Compare the replicas of parameters over all devices of all processes.

    Args:
        params: 4-byte arrays on `mesh`.
        mesh: where they lie.
        step: for the message.

    Returns:
        How many parts were compared with the same part on the first device that holds it.

    Raises:
        AgreedError: on every process; names the parameters and the processes that hold another
            value than the first device does.
    """
    if mesh.size == 1:
        return 0
    specs = {path: leaf.sharding.spec for path, leaf in params.items()}
    sums = np.asarray(_compiled(mesh, tuple(sorted(specs.items())))(dict(params)))
    devices = list(mesh.devices.flat)
    wrong: dict[str, set[int]] = {}
    compared = 0
    for column, path in enumerate(sorted(params)):
        leaf, first = params[path], {}
        places = leaf.sharding.devices_indices_map(leaf.shape)
        for row, device in enumerate(devices):
            place = str(places[device])
            compared += place in first
            if sums[row, column] != first.setdefault(place, sums[row, column]):
                wrong.setdefault(path, set()).add(device.process_index)
    if wrong:
        processes = ", ".join(map(str, sorted(set().union(*wrong.values()))))
        raise AgreedError(  # every process has all the sums
            f"trained parameters are not the same on all devices after {step} steps: "
            f"{shorten(wrong)}, on process {processes} other than on the first device that holds "
            "them; the hosts went apart, or a chip computes wrongly: go on from the last checkpoint"
        )
    return compared


@functools.cache
def _compiled(mesh: Mesh, specs: tuple[tuple[str, PartitionSpec], ...]):
    """Compile sums uint32 [devices of the mesh, parameters by name], the same on every process."""

    def on_one(params: Mapping[str, Array]) -> Array:
        return jnp.stack([checksum(params[path]) for path, _ in specs])[None]

    everywhere = jax.shard_map(
        on_one,
        mesh=mesh,
        in_specs=(dict(specs),),
        out_specs=PartitionSpec(mesh.axis_names),
        check_vma=False,
    )
    shardings = {path: NamedSharding(mesh, spec) for path, spec in specs}
    return jax.jit(everywhere, in_shardings=(shardings,), out_shardings=replicated(mesh))


def checksum(leaf: Array) -> Array:
    """Return a 32-bit sum over the bits of a 4-byte array and their places."""
    bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
    mixed = bits ^ (jax.lax.iota(jnp.uint32, bits.size) * jnp.uint32(_SPREAD))
    mixed = mixed * jnp.uint32(_FIRST)
    mixed = (mixed ^ (mixed >> 13)) * jnp.uint32(_SECOND)
    return (mixed ^ (mixed >> 16)).sum(dtype=jnp.uint32)
