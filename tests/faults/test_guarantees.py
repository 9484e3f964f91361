"""The short form of `python -m tests.faults --report`: every trial of every guarantee passes."""

import pytest

from tests.faults.disks import NoRights
from tests.faults.guarantees import GUARANTEES
from tests.faults.runs import Lab

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    return Lab(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("name", GUARANTEES)
def test_guarantee(lab, name):
    guarantee = GUARANTEES[name]
    try:
        count = guarantee.attempt(lab, guarantee.short)
    except NoRights as error:
        pytest.skip(f"mounting a small disk needs rights ({error})")
    assert not count.failures
    assert count.passed == count.tried >= guarantee.short
