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


@pytest.mark.parametrize(
    ("name", "change", "named"),
    [
        ("v5e-16", {}, ""),
        ("v5e-16", {"est_step_seconds": 1.021}, "est_step_seconds"),
        ("v5e-16", {"peak_bytes_per_chip": 14.51e9}, "peak_bytes_per_chip"),
        ("v5e-16", {"compile_resident_bytes": 4.01e9}, "compile_resident_bytes"),
        ("v5e-16", {"flops_per_device": 1.08}, "flops_per_device"),
        ("v5e-16", {"jax": "0.9"}, "jax"),
        ("v5p-16", {"peak_bytes_per_chip": 1.031}, "peak_bytes_per_chip"),
        ("v4-32", {}, ""),
        ("h200", {}, ""),
        ("single_rows_v5e-16", {}, ""),  # which did not fit when it was committed either
    ],
)
def test_a_plan_that_became_worse_is_named(monkeypatch, capsys, name, change, named):
    def compiled(name, target):
        made = json.loads(plan._committed(name).read_text())
        for figure, value in change.items():
            if isinstance(value, str):
                made["versions"][figure] = value
            else:
                made[figure] = value if value > 1e9 else value * made[figure]
        target.write_text(json.dumps(made))
        return 0 if made["fits"] else 1

    monkeypatch.setattr(plan, "_run", compiled)
    assert plan.main(["--check", name]) == (1 if named else 0)
    assert named in capsys.readouterr().out


def test_the_memory_of_a_chip_is_bounded_whatever_was_committed(monkeypatch, tmp_path):
    worse = json.loads((plan.RESULTS / "plan_v5e-16.json").read_text())
    worse["peak_bytes_per_chip"] = 14.6e9
    (tmp_path / "plan_v5e-16.json").write_text(json.dumps(worse))
    monkeypatch.setattr(plan, "RESULTS", tmp_path)
    monkeypatch.setattr(
        plan, "_run", lambda name, target: target.write_text(json.dumps(worse)) and 0
    )
    assert plan.main(["--check", "v5e-16"]) == 1
