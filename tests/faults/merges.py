"""A merging of Open-ASQA that is killed at any instant, and started again, ends the same."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.count import Count
from tests.faults.runs import Lab
from tests.support import built_folder

# Starts after which a merging that is killed again and again is let go on to its end.
_PATIENCE = 6
_CLIPS = 3000  # of each of three sources
# The command, which notes how far it is every 500 rows instead of every 100,000.
_MERGE = """
import sys
from data_pipelines.open_asqa import __main__, merge_step
merge_step._OFTEN = 500
sys.exit(__main__.command(sys.argv[1:]))
"""


def kill_merges(lab: Lab, *, kills: int, seed: int = 0) -> Count:
    """SIGKILL at random instants of a merging's life, the same command again, to its end.

    Every second chain shuffles. A chain of kills passes when rows, provenance and licences are
    those of the undisturbed merging, byte for byte, and nothing else is left.
    """
    count, generator, chain = Count(), random.Random(seed), 0
    folder = lab.make_folder("merges")
    build = built_folder.made(folder / "build", clips=_CLIPS).root
    truths, seconds = {}, {}
    for shuffled in (False, True):
        began, out = time.monotonic(), folder / f"whole{shuffled}" / "rows.json"
        out.parent.mkdir()
        assert _started(build, out, shuffled=shuffled).wait() == 0
        truths[shuffled], seconds[shuffled] = _files(out), time.monotonic() - began
    while count.tried < kills:
        out, in_chain, shuffled = folder / f"killed{chain}" / "rows.json", 0, bool(chain % 2)
        out.parent.mkdir()
        while True:
            merging = _started(build, out, shuffled=shuffled)
            patient = in_chain >= _PATIENCE or count.tried + in_chain >= kills
            try:
                instant = None if patient else generator.uniform(0, seconds[shuffled])
                status = merging.wait(instant)
                break
            except subprocess.TimeoutExpired:
                merging.kill()
                in_chain += merging.wait() == -signal.SIGKILL
        where = f"chain {chain} of {in_chain} kills (seed {seed})"
        made = _files(out)
        if status != 0:
            count.add(in_chain, failed=f"{where}: ended with {status}")
        elif made != truths[shuffled]:
            count.add(in_chain, failed=f"{where}: differs; there are {', '.join(sorted(made))}")
        else:
            count.add(in_chain)
        chain += 1
    return count


def _started(build: Path, out: Path, *, shuffled: bool) -> subprocess.Popen:
    given = ["merge", build, "--out", out, *(["--shuffle-seed", "1"] if shuffled else [])]
    return subprocess.Popen(
        [sys.executable, "-c", _MERGE, *given],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _files(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out.parent)): path.read_bytes()
        for path in out.parent.rglob("*")
        if path.is_file()
    }
