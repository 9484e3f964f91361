"""The suite deals out its slowest files first, and what must not run side by side together."""

import types

from tests.support import durations
from tests.support.durations import TOGETHER, unit_of


def test_files_with_a_rule_of_their_own_are_there():
    root = durations.FILE.parent.parent
    for file in (*TOGETHER, *TOGETHER.values()):
        assert (root / file).is_file(), file


def test_units_are_files_or_several_files():
    ((part, whole),) = TOGETHER.items()
    assert unit_of("tests/a.py::test[b::c]") == "tests/a.py"
    assert unit_of(f"{part}::test") == unit_of(f"{whole}::test") == whole


def item_of(nodeid: str) -> types.SimpleNamespace:
    """Return what stands for a test; those of files "fine" have the marker `optimised`."""
    marker = "fine" in nodeid or None
    return types.SimpleNamespace(nodeid=nodeid, get_closest_marker=lambda name: marker)


def test_slow_units_come_first_and_tests_of_a_file_keep_their_order(monkeypatch):
    ((part, whole),) = TOGETHER.items()
    seconds = {"tests/quick.py": 1.0, "tests/slow.py": 90.0, part: 60.0, whole: 50.0}
    seconds |= {"tests/fine.py": 2.0, "tests/fine_too.py": 99.0}
    monkeypatch.setattr(durations, "read", lambda: {u: {"cpu": s} for u, s in seconds.items()})
    names = ["tests/quick.py::z", "tests/quick.py::a", "tests/new.py::n", f"{part}::p"]
    names += ["tests/fine.py::f", f"{whole}::w", "tests/slow.py::s", "tests/fine_too.py::f"]
    items = [item_of(name) for name in names]
    durations.slowest_first(items)
    assert [item.nodeid for item in items] == [
        f"{whole}::w",
        f"{part}::p",
        "tests/slow.py::s",
        "tests/fine_too.py::f",  # optimised ones together, so that programs are forgotten once
        "tests/fine.py::f",
        "tests/new.py::n",
        "tests/quick.py::z",
        "tests/quick.py::a",
    ]
