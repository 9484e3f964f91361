"""What the processes of one run must have in common, and how they make sure of it.

Each comparison is one exchange of a digest; values travel only when something differs.
"""

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from data_pipelines.records.record_files import MANIFEST
from ltu_jax import checkpoint
from ltu_jax.core import distributed
from ltu_jax.core.files import sha256_file
from ltu_jax.training.resilience.replicas import check_replicas
from ltu_jax.training.stage import Stage, leaves
from ltu_jax.training.state import TrainState

_ROOT = Path(__file__).resolve().parents[3]
_CODE = ("ltu_jax", "configs", "data_pipelines")
_SAME_COMMAND = "start the same command on every host"
_SAME_CODE = "copy one checkout to every host (tpu_scripts/setup.sh) and start the same command"
_TOKEN = ".launch"
_HEX = 16  # digits shown of a hash


def agree_at_launch(stages: Sequence[Mapping[str, Any]]) -> None:
    """Require one config, one code and one JAX on all processes.

    Args:
        stages: the resolved config of each stage.

    Raises:
        AgreedError: names the differing keys, files or versions, and the processes.
    """

    def config() -> dict[str, str]:
        found = {}
        for stage in stages:
            values = leaves(stage).items()
            found |= {f"{stage['stage']}: config.{key}": repr(value) for key, value in values}
        return found

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
    run_dir = Path(settings.run_dir)

    def facts() -> dict[str, str]:
        found = {
            f"{settings.data.records}/{MANIFEST}": sha256_file(
                Path(settings.data.records) / MANIFEST
            )[:_HEX],
            "order of the data": stage.pipeline.order_fingerprint()[:_HEX],
            "config.weights.whisper": bases.whisper.sha256[:_HEX],
        }
        if bases.llama is not None:
            found["config.weights.llama"] = bases.llama.sha256[:_HEX]
            for file in sorted(bases.llama.tokenizer_dir.glob("tokenizer*")):
                found[f"config.weights.llama/{file.name}"] = sha256_file(file)[:_HEX]
        return found

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
    """What all processes compare before the first step and every `guards.compare_every` steps.

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
    """The rows of a step's global batch by name: clips, and the numbers of their pairs."""
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
