"""Wall and CPU seconds of every test file, recorded in `tests/durations.json`, and their use.

    python -m pytest --numprocesses 2 --dist loadfile --record-durations

writes the file anew (on a quiet machine). `--dist loadfile` then begins with the slowest files:
pytest-xdist alone would begin with those of most tests, and end with one worker at work. Files
whose programs are compiled with all optimisations come one after another, because a worker forgets
its programs where the next test is of the other kind.
"""

import json
import os
from pathlib import Path

import pytest

from tests.support.compilation import is_optimised
from tests.support.zygote import Zygote

FILE = Path(__file__).resolve().parent.parent / "durations.json"
# Files that are dealt out as part of another: libtpu allows one process per machine.
TOGETHER = {"tests/planning/test_precision.py": "tests/planning/test_aot.py"}
_UNKNOWN = 5.0  # seconds of a file that has no record yet
_LONG = 30.0  # seconds of files that come before those of the other kind


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its descendants that have ended."""
    spent = os.times()
    own = spent.user + spent.system + spent.children_user + spent.children_system
    return own + Zygote.cpu_seconds


def unit_of(nodeid: str) -> str:
    """Return what is run by one worker: the file of a test, or the first of several files."""
    file = nodeid.partition("::")[0]
    return TOGETHER.get(file, file)


def read() -> dict[str, dict[str, float]]:
    """Read the recorded seconds by file."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def slowest_first(items: list[pytest.Item]) -> None:
    """Sort tests by the CPU seconds of their unit; tests of one file keep their order.

    Units of optimised programs alone come together, behind long ones of the other kind.
    """
    seconds: dict[str, float] = {}
    for name, row in read().items():
        seconds[unit_of(name)] = seconds.get(unit_of(name), 0.0) + row["cpu"]
    others = {unit_of(item.nodeid) for item in items if not is_optimised(item)}
    place: dict[str, tuple] = {}
    for item in items:
        file, unit = item.nodeid.partition("::")[0], unit_of(item.nodeid)
        spent = seconds.get(unit, _UNKNOWN)
        turn = 1 if unit not in others else 0 if spent >= _LONG else 2
        place[item.nodeid] = (turn, -spent, file)
    items.sort(key=lambda item: place[item.nodeid])


class Recorder:
    """Adds CPU seconds to the reports of tests, and sums reports by unit."""

    def __init__(self, config: pytest.Config):
        self._config = config
        self._rows: dict[str, dict[str, float]] = {}
        self._since = cpu_seconds()

    def pytest_runtest_logstart(self) -> None:
        """Begin to count with a test."""
        self._since = cpu_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        """Write the CPU seconds of a phase into its report, which travels to the controller."""
        report = yield
        now = cpu_seconds()
        report.cpu_seconds, self._since = now - self._since, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a phase of a test to its unit."""
        row = self._rows.setdefault(unit_of(report.nodeid), {"tests": 0, "wall": 0.0, "cpu": 0.0})
        row["tests"] += report.when == "call"
        row["wall"] += report.duration
        row["cpu"] += report.cpu_seconds

    def pytest_sessionfinish(self) -> None:
        """Write the table, or add to it when only some files ran."""
        if hasattr(self._config, "workerinput"):
            return
        rows = {
            unit: {key: round(value, 2) for key, value in row.items()}
            for unit, row in self._rows.items()
        }
        kept = {unit: row for unit, row in read().items() if (FILE.parent.parent / unit).exists()}
        table = dict(sorted((kept | rows).items(), key=lambda entry: -entry[1]["cpu"]))
        lines = [f"{json.dumps(unit)}: {json.dumps(row)}" for unit, row in table.items()]
        FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that records."""
    parser.addoption(
        "--record-durations",
        action="store_true",
        help=f"write the seconds of every test file to {FILE.name}",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Record if asked to."""
    if config.getoption("--record-durations"):
        config.pluginmanager.register(Recorder(config), "durations-recorder")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the tests of an xdist worker; the scheduler deals them out in this order."""
    if hasattr(config, "workerinput"):
        slowest_first(items)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Deal out whole files, in the order they were collected."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class SlowestFirst(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid)

    config.option.loadscopereorder = False
    return SlowestFirst(config, log)
