"""The summary's structure as others read it, the tables, and a picture that is one."""

import json

import pytest
import synthetic_metrics as synthetic
from PIL import Image

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.report import plots, tables


@pytest.fixture
def demo():
    """What `make demo` writes: greedy answers only, a chance level, two metrics of one row."""

    def row(task, figures):
        return {"task": task, "n": 60, "clips": 60, "figures": figures, "grounding": []}

    def figures(metric, value, **more):
        made = []
        for mode in ("joint", "audio"):
            for rule, of_rule in (("paper", value + 0.1), ("strict", value)):
                bounds = {"value": of_rule, "low": of_rule - 0.25, "high": of_rule + 0.25}
                given = {"metric": metric, "rule": rule, "mode": mode, "n": 60, **bounds, **more}
                made.append(synthetic.figure(**given))
        return made

    rows = {
        "sound": row(
            "classification",
            [*figures("accuracy", 0.75), *synthetic.baseline("accuracy", "chance", 0.0625)],
        ),
        "spoken_text": row(
            "spoken_text",
            [
                *figures("WER", 1.25, higher=False),
                *figures("WER vs Whisper", 1.0, higher=False),
                *synthetic.baseline("WER", "chance", 0.95, higher=False),
                *synthetic.baseline("WER vs Whisper", "chance", 0.5, higher=False),
                *synthetic.baseline("WER", "Whisper transcript", 0.3, higher=False),
            ],
        ),
    }
    return synthetic.metrics("mini", "test", rows, system="run", modes=("joint", "audio"))


def test_summary_has_the_agreed_structure(demo, tmp_path):
    path = tmp_path / "summary.json"
    tables.merge_summary(path, tables.summary_tasks(demo))

    def entry(chance, value):
        cell = {"value": value, "low": value - 0.25, "high": value + 0.25, "n": 60}
        return {"chance": chance, "joint": cell, "audio": cell}

    assert json.loads(path.read_text()) == {
        "seconds": {},
        "tasks": {
            "sound": entry(0.0625, 0.75),
            "spoken_text": entry(0.95, 1.25),
            "spoken_text_vs_whisper": entry(0.5, 1.0),
        },
    }


def test_summary_takes_greedy_figures_only():
    summary = tables.summary_tasks(synthetic.esc50())
    assert summary["esc50"]["joint"]["value"] == pytest.approx(0.74)
    assert "chance" not in summary["esc50"]
    sampled = synthetic.esc50()
    figures = sampled["rows"]["esc50"]["figures"]
    figures[:] = [figure for figure in figures if figure["decoding"] != "greedy"]
    assert tables.summary_tasks(sampled) == {}


def test_summary_leaves_out_what_was_not_computed():
    assert tables.summary_tasks(synthetic.audiocaps()) == {}


def test_merging_replaces_the_tasks_and_keeps_the_rest(demo, tmp_path):
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"seconds": {"train": 9.5}, "tasks": {"old": {}}}))
    tables.merge_summary(path, tables.summary_tasks(demo))
    summary = json.loads(path.read_text())
    assert summary["seconds"] == {"train": 9.5}
    assert set(summary["tasks"]) == {"sound", "spoken_text", "spoken_text_vs_whisper"}
    path.write_text("[]")
    with pytest.raises(UserError, match="not a summary"):
        tables.merge_summary(path, {})


def _line(text, *starts):
    (line,) = [line for line in text.splitlines() if line.split()[: len(starts)] == [*starts]]
    return line.split()


def test_table_has_paper_and_strict_of_each_mode_and_counts(demo):
    text = tables.table(demo)
    assert text.splitlines()[0].split() == ["joint", "audio"]
    assert " ".join(text.splitlines()[1].split()) == (
        "row metric system answers paper strict paper strict n missing unparsed refused differ"
    )
    cells = "85.0 75.0 [50.0, 100.0] 85.0 75.0 60 0 0 0 0"
    assert " ".join(_line(text, "sound", "accuracy", "model")[3:]) == f"greedy {cells}"
    assert _line(text, "sound", "accuracy", "chance")[3:5] == ["6.2", "6.2"]


def test_table_has_a_line_for_each_decoding_with_the_spread_of_its_draws():
    text = tables.table(synthetic.esc50())
    sampling = _line(text, "esc50", "accuracy", "model", "sampling")
    assert sampling[4:8] == ["80.8±0.4", "74.2±0.4", "[71.2,", "77.2]"]
    assert _line(text, "esc50", "accuracy", "model", "greedy")[4:6] == ["80.6", "74.0"]


def test_table_shows_a_count_of_each_rule_where_they_disagree():
    text = tables.table(synthetic.voxceleb2())
    assert _line(text, "age", "MAE")[-5:] == ["4911", "0", "120/141", "0", "0"]


def test_a_chance_level_has_no_counts(demo):
    computed = {"metric": "accuracy", "name": "best guess", "rule": "strict", "system": "chance"}
    computed |= {"mode": None, "decoding": None, "value": 0.25, "n": 60, "higher": True}
    figures = demo["rows"]["sound"]["figures"]
    figures[:] = [figure for figure in figures if figure["system"] != "chance"]
    figures.append(computed | {"not_computed": None})
    line = _line(tables.table(demo), "sound", "accuracy", "chance")
    assert " ".join(line[3:]) == "- 25.0 - - 60 - - - -"


def test_years_are_not_multiplied_by_a_hundred():
    assert _line(tables.table(synthetic.voxceleb2()), "age", "MAE")[4:6] == ["7.3", "8.1"]


def test_table_says_beneath_what_was_not_computed_and_why():
    lines = tables.table(synthetic.audiocaps()).splitlines()
    told = "audiocaps: SPICE: not computed: SPICE's jars are not here; `python -m ltu_jax.fetch"
    assert sum(line.startswith(told) for line in lines) == 1
    assert not any(line.startswith("audiocaps  SPICE") for line in lines)


def test_table_names_the_tools_of_a_metric():
    told = "accuracy: paper accuracy (all-MiniLM-L6-v2), strict accuracy (class named)"
    assert told in tables.table(synthetic.esc50()).splitlines()


def test_metrics_of_another_form_are_refused():
    with pytest.raises(UserError, match="without 'rows'"):
        tables.table({"tasks": {}, "modes": []})


def test_comparison_has_a_line_a_figure_with_signs_and_p():
    one = {"rule": "strict", "mode": "joint", "decoding": "greedy", "mcnemar_p": None}
    accuracy = {"row": "esc50", "metric": "accuracy", "a": 0.75, "b": 0.8, "difference": 0.05}
    accuracy |= {"low": -0.0004, "high": 0.1, "p": 0.0521, "mcnemar_p": 0.0123, "n": 1990}
    age = {"row": "age", "metric": "MAE", "a": 7.31, "b": 6.0, "difference": -1.31}
    age |= {"low": -1.6, "high": -1.0, "p": 0.0002, "n": 7}
    text = tables.comparison_table([one | accuracy, one | age])
    assert " ".join(_line(text, "esc50")) == (
        "esc50 accuracy strict joint greedy 75.0 80.0 +5.0 [+0.0, +10.0] 0.052 0.012 1990"
    )
    assert " ".join(_line(text, "age")) == (
        "age MAE strict joint greedy 7.3 6.0 -1.3 [-1.6, -1.0] <0.001 - 7"
    )


def test_undefined_differences_are_dashes():
    gone = dict.fromkeys(("a", "difference", "low", "high", "p"), float("nan"))
    one = {"row": "age", "metric": "MAE", "rule": "paper", "mode": "text", "decoding": "greedy"}
    text = tables.comparison_table([{**one, **gone, "b": 0.0, "mcnemar_p": None, "n": 9}])
    assert " ".join(_line(text, "age")) == "age MAE paper text greedy - 0.0 - [-, -] - - 9"


def test_comparison_of_nothing_says_so():
    assert "no items in common" in tables.comparison_table([])


@pytest.mark.parametrize("make", [synthetic.esc50, synthetic.voxceleb2, synthetic.audiocaps])
def test_plot_is_a_png(make, tmp_path):
    path = tmp_path / "deep" / "results.png"
    plots.bars(make(), path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 400


def test_nothing_to_draw_is_refused(tmp_path):
    made = synthetic.audiocaps()
    figures = made["rows"]["audiocaps"]["figures"]
    figures[:] = [figure for figure in figures if figure["metric"] == "SPICE"]
    with pytest.raises(UserError, match="nothing to draw"):
        plots.bars(made, tmp_path / "results.png")
