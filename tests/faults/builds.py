"""A build of Open-ASQA that is killed at any instant, and started again, is the undisturbed one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import published_tables
from tests.faults.count import Count
from tests.faults.runs import Lab

# Starts after which a build that is killed again and again is let go on to its end.
_PATIENCE = 6
_SOURCES = ("as_strong", "audioset", "freesound", "mosei")
_RATE = 16_000


def kill_builds(lab: Lab, *, kills: int, seed: int = 0) -> Count:
    """SIGKILL at random instants of a build's life, the same command again, to its end.

    The sources have several pieces each; of one, segments are cut out of long files. A chain of
    kills passes when all files of the folder are those of the undisturbed build, byte for byte.
    """
    count, generator, chain = Count(), random.Random(seed), 0
    folder = lab.make_folder("builds")
    sources = _make_sources(folder)
    began = time.monotonic()
    whole = _Build(sources, folder / "whole")
    assert whole.wait() == 0, whole.said()
    seconds, truth = time.monotonic() - began, results(folder / "whole")
    while count.tried < kills:
        out, in_chain = folder / f"killed{chain}", 0
        while True:
            build = _Build(sources, out)
            if in_chain >= _PATIENCE or count.tried + in_chain >= kills:
                status = build.wait()
                break
            status = build.wait(within=generator.uniform(0, seconds))
            if status is not None:
                break
            if build.kill() == -signal.SIGKILL:
                in_chain += 1
        where = f"chain {chain} of {in_chain} kills (seed {seed})"
        made = results(out)
        differing = sorted(n for n in truth.keys() | made.keys() if truth.get(n) != made.get(n))
        if status != 0:
            count.add(in_chain, failed=f"{where}: ended with {status}: {build.said()[-600:]}")
        elif differing:
            count.add(in_chain, failed=f"{where}: differs in {', '.join(differing[:5])}")
        else:
            count.add(in_chain)
        shutil.rmtree(out)
        chain += 1
    return count


def results(folder: Path) -> dict[str, bytes]:
    """Return all files of a build but those of its work: name -> bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0] not in (".build", ".lock")
    }


def _make_sources(folder: Path) -> Path:
    sizes = published_tables.Sizes().of(0.006)
    path = published_tables.write(folder / "tables", sizes)
    audio = folder / "audio"
    audio.mkdir()
    for clip in range(9_000_001, 9_000_013):  # the first videos of CMU-MOSEI
        samples = np.random.default_rng(clip).integers(-500, 500, 60 * _RATE, np.int16)
        soundfile.write(audio / f"{published_tables.video(clip)}.flac", samples, _RATE)
    tables = [f'[{name}]\nmetadata = "tables/{name}"\n' for name in _SOURCES]
    path = folder / "sources.toml"
    path.write_text("\n".join([*tables, 'audio = "audio"\n']))
    return path


class _Build:
    """A build in a process of its own."""

    def __init__(self, sources: Path, out: Path):
        self._log = out.with_name(f"{out.name}.log")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "data_pipelines.open_asqa", "build", "--sources", sources,
                 "--out", out, "--workers", "2"],
                stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def wait(self, *, within: float | None = None) -> int | None:
        """Wait for its end; return its status, None where it goes on."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> int:
        """Kill it, its workers not; return its status."""
        self._process.kill()
        return self._process.wait()

    def said(self) -> str:
        """Return what it printed."""
        return self._log.read_text(errors="replace")
