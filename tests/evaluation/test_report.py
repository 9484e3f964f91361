"""The summary's structure as others read it, the table, and a picture that is one."""

import json

import pytest
from PIL import Image

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation import report


@pytest.fixture
def figures():
    cell = {"value": 0.75, "low": 0.5, "high": 1.0, "n": 60, "unparsed": 3}
    wer = {**cell, "value": 1.25, "low": 1.0, "high": 1.5}
    return {
        "sound": {"metric": "accuracy", "chance": 0.06, "joint": cell, "audio": cell},
        "spoken_text": {"metric": "WER", "chance": 0.95, "joint": wer, "audio": wer},
    }


def test_summary_has_the_agreed_structure(figures, tmp_path):
    path = tmp_path / "summary.json"
    report.merge_summary(path, report.summary_tasks(figures))
    cell = {"value": 0.75, "low": 0.5, "high": 1.0, "n": 60}
    assert json.loads(path.read_text()) == {
        "seconds": {},
        "tasks": {
            "sound": {"chance": 0.06, "joint": cell, "audio": cell},
            "spoken_text": {
                "chance": 0.95,
                "joint": {"value": 1.25, "low": 1.0, "high": 1.5, "n": 60},
                "audio": {"value": 1.25, "low": 1.0, "high": 1.5, "n": 60},
            },
        },
    }


def test_merging_replaces_the_tasks_and_keeps_the_rest(figures, tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"seconds": {"train": 9.5}, "tasks": {"old": {}}}))
    report.merge_summary(path, report.summary_tasks(figures))
    summary = json.loads(path.read_text())
    assert summary["seconds"] == {"train": 9.5}
    assert set(summary["tasks"]) == {"sound", "spoken_text"}
    path.write_text("[]")
    with pytest.raises(UserError, match="not a summary"):
        report.merge_summary(path, {})


def test_table_has_a_line_a_row_and_a_column_a_mode(figures):
    lines = report.table(figures, modes=("joint", "audio")).splitlines()
    assert lines[0].split() == ["task", "metric", "n", "chance", "joint", "audio"]
    assert lines[1].split()[:4] == ["sound", "accuracy", "60", "0.06"]
    assert lines[1].count("0.75 [0.50, 1.00]") == 2
    assert "1.25 [1.00, 1.50]" in lines[2]


def test_plot_is_a_png(figures, tmp_path):
    path = tmp_path / "deep" / "results.png"
    report.plot(figures, path, modes=("joint", "audio"), title="test")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
