"""The committed plans are of the configs that their commands name: those that a user would run."""

import json
from pathlib import Path

import pytest

from benchmarks import plan

FILES = sorted(plan.RESULTS.glob("plan_*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_plan_is_of_its_command_and_of_rows_as_they_fill(file: Path):
    made = json.loads(file.read_text())
    assert made["arguments"] == list(plan.arguments(file.stem.removeprefix("plan_")))
    assert 0.5 < made["batch"]["filled_text"] <= 1


def test_the_readme_names_the_command_of_its_first_plan():
    text = (plan.ROOT / "README.md").read_text()
    assert "python -m ltu_jax.plan " + " ".join(plan.arguments("v5e-16")) in text
