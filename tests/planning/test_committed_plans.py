"""The committed plans are of the presets that a user would run, word for word."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import plan
from configs import slice_presets

FILES = sorted(plan.RESULTS.glob("plan_*.json"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_plan_is_of_its_preset_and_of_rows_as_they_fill(file: Path):
    made = json.loads(file.read_text())
    name = file.stem.removeprefix("plan_")
    assert made["arguments"] == list(plan.arguments(name))
    assert made["fits"] and 0.5 < made["batch"]["filled_text"] <= 1
    preset = slice_presets.TABLE[name]
    rows = preset.rows["stage3"]
    assert (made["batch"]["rows"], made["batch"]["text_length"]) == (
        rows.rows_per_batch,
        rows.row_tokens,
    )
    assert made["compute"]["base_dtype"] == preset.base_dtype
    assert tuple(made["layout"]["mesh"].values()) == preset.mesh


def test_every_preset_has_its_plan_and_every_variant_its_own():
    assert {file.stem.removeprefix("plan_") for file in FILES} == set(slice_presets.TABLE)
    for name in plan.VARIANTS:
        made = json.loads((plan.RESULTS / f"{name}.json").read_text())
        assert made["arguments"] == list(plan.arguments(name))


def test_what_the_pages_launch_is_a_preset_of_the_slice_that_they_name():
    readme = (plan.ROOT / "README.md").read_text()
    assert "python -m ltu_jax.plan " + " ".join(plan.arguments("v5e-16")) in readme
    pages = [
        plan.ROOT / "README.md",
        *plan.ROOT.glob("docs/*.md"),
        *plan.ROOT.glob("tpu_scripts/*"),
    ]
    for page in pages:
        for line in page.read_text().splitlines():
            for slice_name in re.findall(r"--slice (\S+)", line):
                if preset := re.search(r"configs/stage3\.py:?(\S*)", line):
                    assert preset[1].removesuffix("_bfloat16") == slice_name, (page, line)
    job = (plan.ROOT / "tpu_scripts" / "jobset.yaml").read_text()
    assert "--config=configs/stage3.py:v5e-16\n" in job
