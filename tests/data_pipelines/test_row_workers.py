"""Rows are the same whoever makes them, and nothing of a worker outlives its pipeline."""

import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.input import row_workers
from data_pipelines.input.row_workers import RowWorkers
from ltu_jax.core.errors import UserError
from tests.support.damages import LAYOUTS, assert_same, flip, open_pipeline


def _children() -> dict[int, str]:
    """Return the worker processes of this one, by id."""
    path = Path(f"/proc/{os.getpid()}/task")
    ids = {int(pid) for task in path.iterdir() for pid in (task / "children").read_text().split()}
    lines = {pid: Path(f"/proc/{pid}/cmdline") for pid in ids}
    return {
        pid: line.read_text() for pid, line in lines.items() if "row_workers" in line.read_text()
    }


def _gone(pid: int, *, within: float = 60.0) -> bool:
    end = time.monotonic() + within
    while Path(f"/proc/{pid}/stat").exists():
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("layout", ["packed", "tags"])
def test_batches_are_those_of_no_workers(records_copy, tokenizer, layout, workers):
    flip(records_copy)  # a record that is lost, and one that another row stands in for
    changes = dict(layout="tags") if layout == "tags" else LAYOUTS[layout]
    tokenizer = None if layout == "tags" else tokenizer
    alone = open_pipeline(records_copy, tokenizer, **changes)
    helped = open_pipeline(records_copy, tokenizer, workers=workers, **changes)
    for step, batch in enumerate(helped.batches(start_step=2, steps=3), start=2):
        assert_same(batch, alone.batch(step))
    assert helped.bad.found.keys() == alone.bad.found.keys() and len(alone.bad) == 1
    assert not _children()


def test_a_worker_that_is_killed_is_named_and_the_others_end(records_dir, tokenizer):
    pipeline = open_pipeline(records_dir, tokenizer, workers=2, **LAYOUTS["packed"])
    batches = pipeline.batches()
    next(batches)
    victim, other = _children()
    for number in (signal.SIGTERM, signal.SIGINT):  # of a group: the trainer saves first
        os.kill(victim, number)
    assert_same(next(batches), pipeline.batch(1))
    libraries = Path(f"/proc/{other}/maps").read_text()
    assert "sentencepiece" in libraries
    assert "jaxlib" not in libraries and "tensorflow" not in libraries
    os.kill(victim, signal.SIGKILL)
    message = rf"input worker \d of 2 \(process {victim}, data.workers\) was killed by SIGKILL"
    with pytest.raises(UserError, match=message):
        for _ in range(50):  # those made ahead come first
            next(batches)
    assert _gone(other) and not _children()


def test_a_fault_in_a_worker_ends_it_with_its_traceback(records_dir, tokenizer, capfd):
    pipeline = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])
    workers = RowWorkers(pipeline._rows, workers=1)
    with pytest.raises(UserError, match="input worker 1 of 1 .* ended with status 1"):
        workers.fixed((None,))
    workers.close()
    assert "AttributeError: 'NoneType'" in capfd.readouterr().err


def test_a_crash_of_a_decoder_is_told_by_the_worker(records_dir, tokenizer, capfd):
    pipeline = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])
    workers = RowWorkers(pipeline._rows, workers=1)
    plan = next(pipeline._plans(0))
    workers.fixed(plan)
    (pid,) = _children()
    os.kill(pid, signal.SIGSEGV)
    with pytest.raises(UserError, match="was killed by SIGSEGV; its reason stands on stderr"):
        for _ in range(50):
            workers.fixed(plan)
    workers.close()
    assert "Segmentation fault" in capfd.readouterr().err


def test_workers_for_which_the_system_has_no_room_are_an_error(records_dir, tokenizer, monkeypatch):
    maker, made = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])._rows, []
    make_pair = socket.socketpair

    def few():
        if len(made) == 3:  # the second worker's last one
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        made.append(None)
        return make_pair()

    monkeypatch.setattr(socket, "socketpair", few)
    message = r"input worker 2 of 5 \(data.workers\) cannot be started: Too many open files"
    with pytest.raises(UserError, match=message):
        RowWorkers(maker, workers=5)
    assert not _children()


def test_a_worker_imports_what_the_trainer_does(records_dir, tokenizer, tmp_path, monkeypatch):
    pipeline = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])
    (tmp_path / "pickle.py").write_text("raise RuntimeError('of the folder')")
    monkeypatch.chdir(tmp_path)
    folders = [folder for folder in sys.path if folder]
    monkeypatch.setattr(sys, "path", [*folders, tmp_path])  # no text: imports pass it over
    workers = RowWorkers(pipeline._rows, workers=1)
    made, _ = workers.fixed(plan := next(pipeline._plans(0)))
    workers.close()
    for column, wanted in zip(made, pipeline._fixed_here(plan)[0], strict=True):
        np.testing.assert_array_equal(column, wanted)


_TRAINER = """
import pickle, sys, time
from data_pipelines.input.row_workers import RowWorkers
with open(sys.argv[1], "rb") as file:
    maker, plan = pickle.load(file)
workers = RowWorkers(maker, workers=2)
workers.fixed(plan)
print(*{channel.process.pid for channel in workers._channels}, flush=True)
time.sleep(600)
"""


def test_workers_end_with_a_trainer_that_is_killed(records_dir, tokenizer, tmp_path):
    pipeline = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])
    told = tmp_path / "maker.pickle"
    told.write_bytes(pickle.dumps((pipeline._rows, next(pipeline._plans(0)))))
    command = [sys.executable, "-c", _TRAINER, str(told)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        ids = list(map(int, trainer.stdout.readline().split()))
        assert len(ids) == 2
        trainer.kill()
    assert all(map(_gone, ids))


def test_workers_read_a_bucket_many_records_at_once(records_dir, tokenizer, bucket):
    address = bucket.take(records_dir, "records")
    here = open_pipeline(records_dir, tokenizer, **LAYOUTS["packed"])
    there = open_pipeline(address, tokenizer, workers=1, **LAYOUTS["packed"])
    for step, batch in enumerate(there.batches(steps=2)):
        assert_same(batch, here.batch(step))
    workers = RowWorkers(there._rows, workers=1)
    assert workers.at_once == row_workers._AHEAD_REMOTE
    workers.close()
