"""Two real processes that agree, fail together, vote and share batches; and how they start."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ltu_jax.core import distributed
from ltu_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def told() -> list[dict]:
    """What each of two processes with two devices each has to say."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    started = []
    for index in range(2):
        own = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": str(ROOT),
            "LTU_JAX_COORDINATOR": f"localhost:{port}",
            "LTU_JAX_NUM_PROCESSES": "2",
            "LTU_JAX_PROCESS_ID": str(index),
            "LTU_JAX_START_SECONDS": "60",
        }
        started.append(
            subprocess.Popen(
                [sys.executable, str(ROOT / "tests" / "core" / "two_processes.py")],
                env={**os.environ, **own},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        found = []
        for process in started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err
            found.append(json.loads(out[out.index("{") :]))
        return found
    finally:
        for process in started:
            process.kill()


def test_agreement_is_silent_and_a_difference_is_told_alike_by_all(told):
    first, second = told
    for name in ("same", "value", "names", "one failed", "both failed", "nobody failed", "votes"):
        assert first[name] == second[name], name
    assert first["same"] == first["nobody failed"] == ""
    assert first["value"] == (
        "the 2 processes of this run differ: b is x on process 0 and xx on process 1; do this"
    )
    assert first["names"] == (
        "the 2 processes of this run differ: only0 is 1 on process 0 and (absent) on process 1; "
        "only1 is (absent) on process 0 and 1 on process 1; do this"
    )


def test_an_error_of_one_process_is_an_error_of_all(told):
    assert told[0]["one failed"] == "opening: no file 1 on process 1"
    assert told[0]["both failed"] == "opening: no file 0 on process 0 and no file 1 on process 1"


def test_votes_are_counted_one_step_later(told):
    assert told[0]["votes"] == [False, False, True, False]


@pytest.mark.parametrize(
    ("mesh", "first", "second"),
    [
        ("(4, 1, 1)", [0, 1, 2, 3], [4, 5, 6, 7]),
        ("(2, 1, 2)", [0, 1, 2, 3], [4, 5, 6, 7]),
        # A tensor axis over both processes: both need every row.
        ("(1, 1, 4)", list(range(8)), list(range(8))),
    ],
)
def test_each_process_reads_the_rows_that_its_devices_hold(told, mesh, first, second):
    for found, rows in zip(told, (first, second), strict=True):
        found = found["meshes"][mesh]
        assert found["read"] == found["held"] == rows
        assert found["shape"] == [8] and found["total"] == 140.0  # the sum of squares below 8


def fake_mesh(owners: list[int], sizes: tuple[int, int, int]) -> SimpleNamespace:
    """What `batch_share` asks of a mesh, with devices of which only the process is known."""
    devices = np.asarray([SimpleNamespace(process_index=owner) for owner in owners], object)
    names = ("data", "fsdp", "tensor")
    return SimpleNamespace(
        devices=devices.reshape(sizes),
        axis_names=names,
        shape=dict(zip(names, sizes, strict=True)),
    )


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((8, 1, 1), [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ((2, 4, 1), [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ((2, 2, 2), [(0, 4), (1, 4), (2, 4), (3, 4)]),
        ((1, 2, 4), [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ((1, 1, 8), [(0, 1), (0, 1), (0, 1), (0, 1)]),
    ],
)
def test_shares_on_four_processes_of_two_devices(sizes, expected):
    mesh = fake_mesh([0, 0, 1, 1, 2, 2, 3, 3], sizes)
    shares = [distributed.batch_share.__wrapped__(mesh, process=number) for number in range(4)]
    assert [(share.index, share.count) for share in shares] == expected


def test_a_tensor_axis_that_cuts_through_processes_is_refused():
    mesh = fake_mesh([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], (4, 1, 3))
    with pytest.raises(UserError) as error:
        distributed.batch_share.__wrapped__(mesh, process=0)
    assert str(error.value) == (
        "mesh {'data': 4, 'fsdp': 1, 'tensor': 3} over 3 processes of 4 devices: tensor=3 cuts "
        "through the devices of a process; use a divisor or a multiple of 4"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"LTU_JAX_COORDINATOR": "a:1"},
            "LTU_JAX_COORDINATOR set but LTU_JAX_NUM_PROCESSES, LTU_JAX_PROCESS_ID missing",
        ),
        (
            {
                "LTU_JAX_COORDINATOR": "a:1",
                "LTU_JAX_NUM_PROCESSES": "two",
                "LTU_JAX_PROCESS_ID": "0",
            },
            "LTU_JAX_NUM_PROCESSES is 'two'; give a whole number",
        ),
        ({"LTU_JAX_DISTRIBUTED": "yes"}, "LTU_JAX_DISTRIBUTED is 'yes'; use 'auto'"),
    ],
)
def test_wrong_settings_of_the_start(given, message, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        distributed.initialize()


def test_alone_nothing_is_asked():
    def never() -> dict:
        raise AssertionError("asked")

    distributed.agree(never, advice="")
    ballot = distributed.Votes()
    assert [ballot.cast(flag) for flag in (False, True)] == [False, True]
    with pytest.raises(UserError, match="^as it is$"), distributed.together("opening"):
        raise UserError("as it is")
