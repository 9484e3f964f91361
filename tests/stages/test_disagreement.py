"""Two processes that go apart while they train: found before the next step."""

import re

import pytest
from tiny_stage import ROOT, arguments, make_place, processes

pytestmark = pytest.mark.slow
KINDS = ("parameter", "later", "order")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What each process printed, by kind of disagreement."""
    place = make_place(tmp_path_factory.mktemp("apart"))
    runs = [part for kind in KINDS for part in (kind, str(place / kind))]
    command = [
        str(ROOT / "tests" / "stages" / "disagree.py"),
        *runs,
        "--",
        *arguments(
            place,
            place,
            "--config.guards.compare_every=1",
            "--config.mesh.data=2",
            "--config.mesh.tensor=1",
            "--config.checkpoint.every=0",
            "--config.log.validate_batches=0",
        ),
    ]
    found = []
    for process in processes(command, command, devices=2, cache=place / "cache"):
        assert process.returncode == 0, process.stderr
        lines = [line for line in process.stdout.splitlines() if line.startswith(KINDS)]
        found.append(dict(line.split(": ", 1) for line in lines))
    assert not list(place.glob("*/checkpoints/*"))
    return found


@pytest.mark.parametrize("kind, steps", [("parameter", 0), ("later", 2)])
def test_a_parameter_that_differs_in_one_bit(told, kind, steps):
    assert told[0][kind] == told[1][kind]
    assert told[0][kind].startswith(
        f"{steps} steps: trained parameters are not the same on all devices after {steps} steps: "
        "audio_proj.bias, on process 1 other than on the first device that holds them"
    )


def test_another_order_of_the_data(told):
    assert told[0]["order"] == told[1]["order"]
    assert re.fullmatch(
        r"0 steps: the 2 processes of this run differ: rows of the next step is \w{16} on process "
        r"0 and \w{16} on process 1; .*",
        told[0]["order"],
    )
