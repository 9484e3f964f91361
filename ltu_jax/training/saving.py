"""Save checkpoints while training goes on, and check before that there is room for them.

With one process a checkpoint is copied to host memory and written by a thread; at most one is in
flight. Several processes write theirs together and wait for it, because what they exchange while
writing must not cross what a step exchanges.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import jax
import numpy as np

from ltu_jax import checkpoint
from ltu_jax.core.distributed import is_main
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import (
    absolute,
    as_path,
    copy_object,
    failures,
    is_remote,
    reason,
    remove_tree,
)
from ltu_jax.core.trees import Params
from ltu_jax.training.program import is_adapter, split_parameters, stage_optimizer
from ltu_jax.training.run_folder import INPUTS
from ltu_jax.training.stage import Stage
from ltu_jax.training.state import TrainState, abstract_state
from ltu_jax.weights.fingerprint import KEY, Fingerprint
from ltu_jax.weights.open import base_entry

# Beside its arrays a checkpoint has a few files, the longest of them the lists of paths.
_OTHER_BYTES = 4 << 20


class Saver:
    """Writes the checkpoints of one run; use it as a context around the training loop.

    A failed save is raised by the next call of `poll`, `save` or `finish`, whichever comes first,
    and the checkpoints before it stay. While the context is open a signal that the loop does not
    take (a second one, or one after its end) never breaks a save off; see `signal`.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        frozen: Params,
        metadata: Mapping[str, Any],
        keep: int,
        turn: checkpoint.Turn | None = None,
    ) -> None:
        """Take what each checkpoint has beside the state: adapter parameters not trained, facts.

        `turn` is the right to write there; it is checked before each save and each deletion.
        """
        self._run_dir, self._frozen = run_dir, dict(frozen)
        self._turn = turn or checkpoint.Turn()
        self._metadata, self._keep = metadata, keep
        self._alone = jax.process_count() == 1
        self._pending: tuple[int, Future] | None = None
        self._noted: list[int] = []
        self._told = False
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> "Saver":
        self._writer = self._exit.enter_context(
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        )
        self._exit.enter_context(_handlers(self._note))
        if self._alone:
            self._frozen = _to_host(self._frozen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._exit:  # the thread ends what it has begun
            if error is None:
                self.finish()
            elif self._pending is not None:
                step, written = self._pending
                failure = written.exception()
                if failure is not None and not isinstance(failure, UserError):
                    failure = checkpoint.not_written(self._folder(step), failure)
                if failure is not None and str(failure) != str(error):
                    _write_line(f"besides, {failure}")

    @property
    def signal(self) -> int:
        """The first signal that came while the context was open and that no loop took, or 0."""
        return self._noted[0] if self._noted else 0

    def save(self, state: TrainState) -> Path:
        """Begin to write a checkpoint; returns the folder that it will have.

        Waits for the one before. The state's buffers may be given away (donated) afterwards.

        Raises:
            CheckpointError: the one before failed; with several processes, also this one.
        """
        self.finish()
        if self._alone:
            self._turn.check()  # before the state is copied
        step = int(state.step)
        held = _to_host(state) if self._alone else state
        written = self._writer.submit(
            checkpoint.save,
            self._run_dir,
            state=held,
            adapter={**held.trainable, **self._frozen},
            metadata=self._metadata,
            keep=self._keep,
            turn=self._turn,
        )
        self._pending = (step, written)
        if not self._alone:
            self.finish()
        return self._folder(step)

    def poll(self) -> None:
        """Raise what went wrong with a save in flight, if it has ended; never waits.

        Alone it also raises where the right to write is known to be lost; several processes find
        that together, at the next save.
        """
        if self._alone:
            self._turn.poll()
        if self._noted and signal.getsignal(self._noted[0]) != self._note:
            signal.raise_signal(self._noted.pop(0))  # it came before the loop took signals
        if self._pending is not None and self._pending[1].done():
            self.finish()

    def finish(self) -> None:
        """Wait until the save in flight, if any, is on the disk.

        Raises:
            CheckpointError: it is not.
        """
        if self._pending is None:
            return
        step, written = self._pending
        failure = written.exception()
        self._pending = None
        if isinstance(failure, UserError):
            raise failure
        if failure is not None:  # Orbax and TensorStore raise errors of many types
            self._turn.check()  # another may have cleared away what was half written
            raise checkpoint.not_written(self._folder(step), failure) from failure
        if not self._told and is_main():
            print(f"saved {self._folder(step)}", flush=True)  # tpu_scripts/resume.sh looks for it
        self._told = True

    def _folder(self, step: int) -> Path:
        return absolute(self._run_dir) / checkpoint.FOLDER / str(step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        saving = self._pending is not None and not self._pending[1].done()
        if number == signal.SIGINT and not saving:
            raise KeyboardInterrupt
        if not self._noted:
            _write_line("stopping after a checkpoint; kill -9 ends this at once, without it")
        self._noted.append(number)


def _write_line(text: str) -> None:
    os.write(2, f"{text}\n".encode())  # print is not for signal handlers


@contextlib.contextmanager
def _handlers(note: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _to_host(tree: Any) -> Any:
    """Copy arrays to the host, so that their devices' buffers may be given away."""
    arrays = jax.device_get(tree)
    # Those of a CPU are views of the very buffers.
    return jax.tree.map(np.array, arrays) if jax.default_backend() == "cpu" else arrays


def checkpoint_bytes(adapter: Mapping[str, Any], state: TrainState) -> int:
    """Bound the size of a checkpoint, of arrays or shapes; it has all adapter parameters."""
    leaves = [*adapter.values(), *jax.tree.leaves(state.opt_state)]
    arrays = sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)
    return arrays + arrays // 100 + _OTHER_BYTES


def check_room(run_dir: Path, *, size: int, keep: int, saves: int) -> None:
    """Require that a run can write its checkpoints, before it begins.

    Args:
        run_dir: the run folder; made if it is not there.
        size: of one checkpoint in bytes.
        keep: how many are kept; while one is written there is one more.
        saves: how many the run has still to write.

    Raises:
        UserError: the folder cannot be written, or the disk has too little room for them.
    """
    folder = absolute(run_dir) / checkpoint.FOLDER
    try:
        _probe(folder)
    except failures(folder) as error:
        raise UserError(
            f"checkpoints cannot be written in {folder} ({reason(error)}); make it writable, or "
            "choose another --config.run_dir"
        ) from error
    if is_remote(folder):
        return
    more = max(1, min(saves, keep + 1 - len(checkpoint.steps_in(run_dir))))
    disk = shutil.disk_usage(folder)
    if disk.total and disk.free < more * size:  # some network disks do not tell (0)
        raise UserError(
            f"{folder} has {_megabytes(disk.free)} free, and {more} more checkpoints of up to "
            f"{_megabytes(size)} come to lie there at a time (checkpoint.keep={keep} and the one "
            "being written); make room, lower --config.checkpoint.keep, or choose another "
            "--config.run_dir"
        )


def _probe(folder: Path) -> None:
    """Do once what a save does: write, rename (in a bucket copy), delete."""
    if is_remote(folder):
        probe = folder / f"{checkpoint.UNFINISHED}{uuid.uuid4().hex}"
        (probe / "probe").write_bytes(b"probe")
        copy_object(probe / "probe", probe / "copy")
        remove_tree(probe)
        return
    folder.mkdir(parents=True, exist_ok=True)
    probe = Path(tempfile.mkdtemp(prefix=checkpoint.UNFINISHED, dir=folder))
    (probe / "probe").write_bytes(b"probe")
    renamed = probe.rename(probe.with_name(f"{probe.name}-renamed"))
    shutil.rmtree(renamed)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def check_room_for(stage: Stage, *, newest: int) -> None:
    """Require room for the checkpoints that a stage has still to write; see `check_room`."""
    settings, shapes = stage.settings, stage.model.shapes
    trainable, _ = split_parameters(shapes, settings)
    tx = stage_optimizer(settings, paths=trainable, steps=stage.steps)
    every = settings.checkpoint.every
    check_room(
        as_path(settings.run_dir),
        size=checkpoint_bytes(
            {path: leaf for path, leaf in shapes.items() if is_adapter(path)},
            abstract_state(trainable, tx),
        ),
        keep=settings.checkpoint.keep,
        saves=len(range(newest + every, stage.steps, every)) + 1 if every else 1,
    )


def describe(
    stage: Stage,
    *,
    resolved: Mapping[str, Any],
    inputs: Mapping[str, Mapping[str, str]],
    mfu_peak: str,
    clip_fingerprint: Fingerprint,
) -> dict[str, Any]:
    """Return the metadata with which a checkpoint explains itself (see `checkpoint/format.py`)."""
    settings, bases = stage.settings, stage.bases
    tagging = settings.stage == "tagging"
    model = {
        "tltr": dataclasses.asdict(settings.model.tltr),
        "audio_layers": settings.model.whisper.n_audio_layer,
        "audio_tokens": settings.model.audio_tokens,
    }
    base = {"whisper": bases.whisper} | ({} if tagging else {"llama": bases.llama})
    if bases.transcriber is not None:
        base["transcriber"] = bases.transcriber
    # Relative, so that a folder with runs and weights may move; absolute for all other cases.
    inside = absolute(settings.run_dir) / checkpoint.FOLDER / "step"
    return {
        "kind": checkpoint.KINDS[1] if tagging else checkpoint.KINDS[0],
        "stage": settings.stage,
        "model": model if tagging else dataclasses.asdict(settings.model.ltu_as()),
        "whisper_config": dataclasses.asdict(settings.model.whisper),
        "labels": list(stage.pipeline.labels),
        "transcription": settings.weights.transcription,
        "base": {name: base_entry(weights, relative_to=inside) for name, weights in base.items()},
        INPUTS: dict(inputs),
        "config": resolved,
        "feature_fingerprint": bases.fingerprint,
        KEY: clip_fingerprint.to_json(),
        "mfu_peak": mfu_peak,
    }
