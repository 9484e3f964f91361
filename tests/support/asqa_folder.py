"""A folder as `data_pipelines.open_asqa build` leaves it, of clips that a test makes up."""

import json
import os
import signal
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from data_pipelines.open_asqa import __main__ as open_asqa
from data_pipelines.open_asqa.clip_journal import ClipJournal

RATE = 16_000
_PATIENCE = 300  # seconds that a step may take


def make(root: Path, source: str, clips: Mapping[str, tuple[np.ndarray | None, Mapping]]) -> None:
    """Write the clips of a source: name -> (samples at 16 kHz or None, more fields)."""
    (root / source / "audio").mkdir(parents=True)
    (root / "build.json").write_text(json.dumps({"seed": "0", "sources": {}}))
    lines = []
    for name, (samples, fields) in sorted(clips.items()):
        record = {"source": source, "clip_id": name, "dataset": source, "files": [name]}
        record |= {"where": "t:1", "licence": "l", **fields}
        if samples is not None:
            record["audio"] = f"{source}/audio/{name}.flac"
            soundfile.write(root / record["audio"], samples, RATE, subtype="PCM_16")
            os.utime(root / record["audio"], (1_700_000_000, 1_700_000_000))
        lines.append(json.dumps(record) + "\n")
    (root / source / "clips.jsonl").write_text("".join(lines))


def rows(root: Path, source: str, name: str) -> dict[str, dict[str, Any]]:
    """Return clip -> its line of a file of a source."""
    lines = (root / source / name).read_text(encoding="utf-8").splitlines()
    return {row["clip_id"]: row for row in map(json.loads, lines)}


def run(*arguments: object) -> None:
    """Run a step."""
    assert open_asqa.command([str(argument) for argument in arguments]) == 0


def results(root: Path) -> dict[str, bytes]:
    """Return what the steps promise to be the same: all files of the sources."""
    files = sorted(path for path in root.rglob("*/*.json*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def killed(arguments: Sequence[object], *, after: int, prepare: Callable[[], None]) -> bool:
    """Run a step in a process that kills itself at its `after`-th write; False if it ended first.

    A write is a line of a journal, half of which is there, or a file that takes its place.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no step that is killed computes by JAX
        child = os.fork()
    if child == 0:
        signal.alarm(_PATIENCE)
        try:
            prepare()
            _kill_at(after)
            run(*arguments)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _kill_at(after: int) -> None:
    left = [after]
    add, replace = ClipJournal.add, os.replace

    def due() -> bool:
        left[0] -= 1
        return left[0] <= 0

    def dying_add(self, name, result):
        if due():
            with self.path.open("ab") as file:
                file.write(json.dumps({"audio": name}).encode()[:-4])
            os.kill(os.getpid(), signal.SIGKILL)
        add(self, name, result)

    def dying_replace(*arguments, **named):
        if due():
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments, **named)

    ClipJournal.add, os.replace = dying_add, dying_replace
