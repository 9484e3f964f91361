"""Log numbers: a JSONL log, TensorBoard event files, and a loss curve at the end."""

import contextlib
import dataclasses
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.text import metadata as text_plugin
from tensorboard.summary.writer.record_writer import RecordWriter

from ltu_jax.core.files import atomic_file
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl
from ltu_jax.core.parts import PartsWriter
from ltu_jax.core.paths import is_remote

RECENT = "recent_losses"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Intervals in steps; 0 switches a thing off, except that validation and samples then still
    run once at the end of a stage when their count of items is positive."""

    every: int
    validate_every: int
    validate_batches: int
    samples_every: int
    samples: int
    sample_tokens: int
    audio_clips: int
    tensorboard: bool
    peak_flops: float


class RunLog:
    """Append-only log of one run: RUN/log.jsonl and RUN/tensorboard/.

    Only the main process should make one. Rows are dicts with "step"; after a resume the steps
    go on, and rows of steps that were lost with a killed process stay in the file, before them.
    """

    def __init__(self, run_dir: Path, *, tensorboard: bool) -> None:
        self.path = run_dir / "log.jsonl"
        self._file = JsonlWriter(self.path)
        self._events = None
        if tensorboard:
            folder = run_dir / "tensorboard"
            stamp = f"events.out.tfevents.{time.time_ns() // 1_000_000}.ltu_jax"
            if is_remote(folder):
                self._raw = PartsWriter(folder / stamp, head=_first_record())
            else:
                folder.mkdir(exist_ok=True)
                self._raw = open(folder / stamp, "wb")  # noqa: SIM115 (closed by close)
                self._raw.write(_first_record())
            self._events = RecordWriter(self._raw)

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """Log scalars (and strings, to the JSONL only) of a step.

        Raises:
            OSError: the disk is full; it names the file.
        """
        self._file.append({"step": step, **values})
        scalars = [
            Summary.Value(tag=name, simple_value=float(value))
            for name, value in values.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        self._summary(step, scalars)

    def recent_losses(self, step: int) -> list[float]:
        """Read the losses that a row after `step` averages with its own; [] if none are known.

        The loop leaves them (`RECENT`) beside each checkpoint, so that a run that goes on from it
        logs the numbers of one that never stopped.
        """
        rows = [row for _, row in read_jsonl(self.path)]
        left = [row for row in rows if RECENT in row and row["step"] == step]
        return left[-1][RECENT] if left else []

    def text(self, step: int, name: str, markdown: str) -> None:
        """Show a text in TensorBoard."""
        plugin = text_plugin.create_summary_metadata(display_name=name, description="")
        tensor = TensorProto(
            dtype=DT_STRING,
            string_val=[markdown.encode()],
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
        )
        metadata = SummaryMetadata.FromString(plugin.SerializeToString())
        self._summary(step, [Summary.Value(tag=name, metadata=metadata, tensor=tensor)])

    def audio(self, step: int, name: str, samples: np.ndarray, *, rate: int) -> None:
        """Make mono float samples playable in TensorBoard."""
        wav = io.BytesIO()
        soundfile.write(wav, samples, rate, format="WAV", subtype="PCM_16")
        clip = Summary.Audio(
            sample_rate=float(rate),
            num_channels=1,
            length_frames=len(samples),
            encoded_audio_string=wav.getvalue(),
            content_type="audio/wav",
        )
        self._summary(step, [Summary.Value(tag=name, audio=clip)])

    def flush(self) -> None:
        """Wait until the rows are where they outlive this process; in a bucket that takes time."""
        self._file.flush()

    def close(self) -> None:
        """Close the files; every row was flushed when it was written, or its error raised."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._events is not None:
            with contextlib.suppress(OSError):
                self._events.close()

    def _summary(self, step: int, values: Sequence[Summary.Value]) -> None:
        if self._events is not None and values:
            summary = Summary(value=values)
            self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def _write(self, event: Event) -> None:
        self._events.write(event.SerializeToString())
        if not isinstance(self._raw, PartsWriter):  # which writes every few seconds by itself
            self._events.flush()


def _first_record() -> bytes:
    """Return what an event file begins with."""
    file = io.BytesIO()
    event = Event(wall_time=time.time(), file_version="brain.Event:2")
    RecordWriter(file).write(event.SerializeToString())
    return file.getvalue()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read a JSONL log: each step's last row of a kind, without a half-written last line.

    A row with "loss" is of that kind, another one is of the kind of its first value. Ascending by
    step and kind.
    """
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for _, row in read_jsonl(path):
        first = next((name for name in row if name != "step"), "")
        rows[(row["step"], "loss" if "loss" in row else first)] = row
    return [rows[key] for key in sorted(rows)]


def plot_losses(curves: Mapping[str, Sequence[tuple[int, float]]], path: Path) -> None:
    """Draw one panel per stage, loss over steps with a running mean, to a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(4.2 * len(curves), 3.2), squeeze=False)
    for axis, (name, points) in zip(axes[0], curves.items(), strict=True):
        steps = np.asarray([step for step, _ in points])
        losses = np.asarray([loss for _, loss in points])
        axis.plot(steps, losses, color="0.75", linewidth=0.8)
        width = max(1, len(losses) // 20)
        if len(losses) > 2 * width:
            mean = np.convolve(losses, np.ones(width) / width, mode="valid")
            axis.plot(steps[width - 1 :], mean, color="C0")
        axis.set(title=name, xlabel="step", ylabel="loss")
        axis.set_ylim(bottom=0.0)
    figure.tight_layout()
    with atomic_file(path) as file:
        figure.savefig(file, dpi=110)
    pyplot.close(figure)
