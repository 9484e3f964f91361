"""Confusion matrices and the grounding plot: what is drawn, read back from the axes and pixels."""

import copy

import matplotlib.axes
import matplotlib.figure
import numpy as np
import pytest
import synthetic_metrics as synthetic
from PIL import Image

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.report import plots


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved, to be read back."""
    found = []
    save = matplotlib.figure.Figure.savefig

    def remember(figure, *args, **kwargs):
        found.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", remember)
    return found


def _labels(axis, which):
    return [text.get_text() for text in getattr(axis, f"get_{which}ticklabels")()]


def test_cells_are_the_counts_and_colours_the_share_of_their_row(drawn, tmp_path):
    table = {"male": {"male": 3, "female": 1}, "female": {"(unparsed)": 2, "robot": 2}}
    plots.confusion(table, tmp_path / "deep" / "matrix.png", title="made up")
    axis = drawn[0].axes[0]
    assert _labels(axis, "y") == ["female", "male"]
    assert _labels(axis, "x") == ["female", "male", "robot", "(unparsed)"]
    expected = [[0, 0, 0.5, 0.5], [0.25, 0.75, 0, 0]]
    np.testing.assert_allclose(axis.images[0].get_array(), expected, rtol=1e-12)
    told = {text.get_position(): text.get_text() for text in axis.texts}
    assert told == {(2, 0): "2", (3, 0): "2", (0, 1): "1", (1, 1): "3"}
    with Image.open(tmp_path / "deep" / "matrix.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize(("classes", "labels"), [(2, 2), (60, 60), (61, 31), (309, 52)])
def test_labels_are_thinned_and_the_picture_stays_bounded(classes, labels, drawn, tmp_path):
    table = synthetic.confusion([f"class {index:03d}" for index in range(classes)], right=1.0)
    plots.confusion(table, tmp_path / "matrix.png", title="made up")
    axis = drawn[0].axes[0]
    assert len(_labels(axis, "y")) == labels
    assert bool(axis.texts) == (classes <= 20)
    with Image.open(tmp_path / "matrix.png") as image:
        assert max(image.size) < 2000


def test_answers_without_a_class_keep_their_label_among_many(drawn, tmp_path):
    table = {f"class {index:03d}": {"(unparsed)": 1} for index in range(100)}
    plots.confusion(table, tmp_path / "matrix.png", title="made up")
    assert _labels(drawn[0].axes[0], "x")[-1] == "(unparsed)"


def test_names_from_data_start_no_formula(drawn, tmp_path):
    plots.confusion({r"$\bad{$": {r"$\bad{$": 1}}, tmp_path / "matrix.png", title=r"$\worse{$")
    assert _labels(drawn[0].axes[0], "y") == [r"$\bad{$"]


def test_long_names_are_cut(drawn, tmp_path):
    plots.confusion({"x" * 300: {"y": 1}}, tmp_path / "matrix.png", title="made up")
    assert _labels(drawn[0].axes[0], "y") == ["x" * 27 + "…"]


def test_no_answers_are_refused(tmp_path):
    with pytest.raises(UserError, match="no answers"):
        plots.confusion({}, tmp_path / "matrix.png", title="made up")


def test_grounding_has_a_panel_for_each_direction_and_unit(drawn, tmp_path, monkeypatch):
    spans = []
    errorbar = matplotlib.axes.Axes.errorbar

    def remember(axis, x, y, xerr, label, **kwargs):
        spans.append((axis.get_subplotspec().num1, label, x - xerr[0], x, x + xerr[1]))
        return errorbar(axis, x, y, xerr=xerr, label=label, **kwargs)

    monkeypatch.setattr(matplotlib.axes.Axes, "errorbar", remember)
    plots.grounding(synthetic.voxceleb2(), tmp_path / "grounding.png")
    higher, lower = drawn[0].axes
    assert higher.get_title().startswith("higher is better, x 100: right of zero")
    assert lower.get_title().startswith("lower is better, years: left of zero")
    assert _labels(higher, "y") == [
        "gender, macro-F1: joint − silence",
        "gender, macro-F1: joint − shuffled",
    ]
    of_strict = [span for span in spans if span[1] == "strict"]
    np.testing.assert_allclose(of_strict[0][2:], [[42, 47], [45, 50], [48, 53]], rtol=1e-9)
    np.testing.assert_allclose(of_strict[1][2:], [[-3.1], [-2.5], [-1.9]], rtol=1e-9)


def test_nothing_compared_is_refused(tmp_path):
    with pytest.raises(UserError, match="run at least two modes"):
        plots.grounding(synthetic.audiocaps(), tmp_path / "grounding.png")


def test_a_run_gets_every_picture_it_has_data_for(tmp_path):
    names = [path.name for path in plots.write(synthetic.voxceleb2(), tmp_path)]
    assert names == ["confusion_gender_paper.png", "confusion_gender_strict.png", "grounding.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert plots.write(synthetic.audiocaps(), tmp_path / "open") == ()


def test_rows_share_no_file(tmp_path):
    paths = {plots.confusion_path(tmp_path, name, "paper") for name in ("a b", "a/b", "a_b")}
    assert len(paths) == 3
    assert all(path.parent == tmp_path for path in paths)


@pytest.mark.parametrize("rows", [1, 10, 11, 45])
def test_bars_of_many_rows_go_on_in_lines_of_ten(rows, drawn, tmp_path):
    made = synthetic.esc50()
    row = made["rows"]["esc50"]
    made["rows"] = {f"row {place}": copy.deepcopy(row) for place in range(rows)}
    plots.bars(made, tmp_path / "results.png")
    axes = drawn[0].axes
    told = [label for axis in axes for label in _labels(axis, "x")]
    assert [label.split("\n")[0] for label in told] == [f"row {place}" for place in range(rows)]
    assert len(axes) == -(-rows // 10)
    with Image.open(tmp_path / "results.png") as image:
        assert image.width < 3000  # a row keeps its width, whatever their number


def test_cider_has_an_axis_of_its_own(drawn, tmp_path):
    plots.bars(synthetic.audiocaps(), tmp_path / "results.png")
    metrics = [{label.split("\n")[1] for label in _labels(axis, "x")} for axis in drawn[0].axes]
    assert {"CIDEr-D"} in metrics
    assert not any("CIDEr-D" in own and "METEOR" in own for own in metrics)
