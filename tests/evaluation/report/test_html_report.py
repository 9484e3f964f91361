"""report.html: complete in itself, safe against what models write, and saying what it should."""

import base64
import json
from html.parser import HTMLParser

import pytest
import synthetic_metrics as synthetic

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.report import html_report, plots, published_scores, sample_answers

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, attributes, tables as lists of cells."""

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.open, self.tables, self.words = [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "small" and {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def table(self, *head):
        """The tables whose first line starts with these titles."""
        return [table for table in self.tables if tuple(table[0][: len(head)]) == head]

    def line(self, start):
        (line,) = [line for table in self.tables for line in table if line[0] == start]
        return line


def _write(tmp_path, *runs, **more):
    folders = [
        synthetic.write_run(tmp_path / f"run{place}", made, **more)
        for place, made in enumerate(runs)
    ]
    html_report.write(folders, tmp_path / "out" / "report.html")
    return Page(tmp_path / "out" / "report.html")


def test_page_loads_and_runs_nothing(tmp_path):
    made = synthetic.voxceleb2()
    folder = synthetic.write_run(tmp_path / "run", made)
    plots.bars(made, folder / "results.png")
    drawn = plots.write(made, folder)
    html_report.write([folder], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "form", "base"}
    sources = [attributes["src"] for tag, attributes in page.elements if tag == "img"]
    pictures = {base64.b64decode(source.partition("base64,")[2]) for source in sources}
    assert pictures == {path.read_bytes() for path in (folder / "results.png", *drawn)}
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in "".join(
        value for _, attributes in page.elements for value in attributes.values() if value
    )
    assert not any("@import" in text or "url(" in text for text in page.words)


def test_what_models_and_data_wrote_is_shown_and_not_interpreted(tmp_path):
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;"
    made = synthetic.esc50(system=attack)
    made["source"] = made["config"]["note"] = attack
    made["rows"] = {attack: made["rows"]["esc50"]}
    made["rows"][attack]["per_class"] = {attack: {"n": 1, "paper": 1.0, "strict": 0.0}}
    made["rows"][attack]["groups"] = {attack: {attack: {"n": 1, "paper": 1.0, "strict": 0.0}}}
    made["rows"][attack]["figures"][0]["name"] = attack
    samples = [
        synthetic.sample(attack, row=attack, output=attack, question=attack, reference=[attack])
    ]
    page = _write(tmp_path, made, samples=samples)
    tags = [tag for tag, _ in page.elements]
    assert "script" not in tags
    assert "img" not in tags
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    (answers,) = page.table("", "item")
    assert answers[1][1:5] == [attack] * 4


def test_characters_that_would_break_or_reorder_the_page_are_replaced(tmp_path):
    output = "a\x00b\x1bc\ud800d\u202ee\ufffff 日本 🎵\ttab\nline"
    page = _write(tmp_path, synthetic.esc50(), samples=[synthetic.sample("1", output=output)])
    (answers,) = page.table("", "item")
    assert answers[1][4] == "a\ufffdb\ufffdc\ufffdd\ufffde\ufffdf 日本 🎵\ttab\nline"


def test_published_scores_are_those_of_the_poster(tmp_path):
    page = _write(tmp_path, synthetic.esc50())
    assert page.line("LTU-AS")[1::2] == ["80.8", "15.0", "4.9", "65.2", "90.8", "7.3", "50.3"]
    assert page.line("inference: audio only")[1] == "81.9"
    assert all(
        len(scores) == len(published_scores.COLUMNS)
        for scores in published_scores.PUBLISHED.values()
    )
    assert "Gong et al., ASRU 2023, poster" in "".join(page.words)


def test_runs_of_one_system_share_lines_beneath_the_poster(tmp_path):
    page = _write(tmp_path, synthetic.esc50(), synthetic.librispeech(), synthetic.voxceleb2())
    joint = page.line("runs/synthetic/stage3 joint")
    assert joint[1:3] == ["80.8±0.4 [77.6, 84.0] n=2000", "74.0 [71.0, 77.0] n=2000"]
    assert joint[3:5] == ["-", "-"]  # no AudioCaps here
    assert joint[5].startswith("4.9±0.4")
    assert joint[9].startswith("90.8±0.4")
    assert joint[11] == "7.3 [7.0, 7.6] n=4911 greedy"  # paper rule on greedy answers: said so
    assert joint[12] == "8.1 [7.8, 8.4] n=4911"
    assert page.line("runs/synthetic/stage3 audio")[2].startswith("71.8")


def test_other_splits_do_not_stand_under_the_poster(tmp_path):
    made = synthetic.librispeech()
    made["split"] = "test-other"
    page = _write(tmp_path, made)
    assert not [line for table in page.tables for line in table if line[0].endswith(" joint")]
    assert "None of these runs is of one of these benchmarks." in "".join(page.words)


def test_runs_of_one_benchmark_stand_side_by_side(tmp_path):
    page = _write(tmp_path, synthetic.esc50(), synthetic.esc50(shift=0.03))
    (table,) = page.table("row", "metric")
    assert [cell.split(" ")[0] for cell in table[2]] == (
        ["esc50", "accuracy", "80.8±0.4", "74.0", "83.8±0.4", "77.0"]
    )
    poster = [line for line in page.tables[0] if line[0] == "runs/synthetic/stage3 joint"]
    assert [line[1].split("±")[0] for line in poster] == ["80.8", "83.8"]


def test_rows_of_other_items_share_no_line(tmp_path):
    """Two runs that asked the same, and a third that expects another answer of one item."""
    folders = []
    for place, answer in enumerate(("dog", "dog", "cat")):
        folder = synthetic.write_run(tmp_path / f"run{place}", synthetic.esc50())
        item = {"item_id": "1", "row": "esc50", "question": "What?", "references": [answer]}
        (folder / "items.jsonl").write_text(json.dumps(item) + "\n")
        folders.append(folder)
    html_report.write(folders, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    (table,) = page.table("row", "metric")
    lines = [line for line in table if line[:2] == ["esc50", "accuracy"]]
    given = [[cell != "-" for cell in line[2:]] for line in lines]
    assert given == [[True] * 4 + [False] * 2, [False] * 4 + [True] * 2]
    (told,) = [words for words in page.words if "share no line" in words]
    assert told.startswith("esc50:")
    assert all(str(folder) in told for folder in folders)


def test_figures_have_both_rules_counts_and_baselines(tmp_path):
    page = _write(tmp_path, synthetic.esc50())
    (table,) = page.table("metric", "system")
    assert table[0][4:] == ["paper", "strict", "differ", "n", "missing", "unparsed", "refused"]
    assert table[1] == [
        "accuracy ↑ paper: accuracy (all-MiniLM-L6-v2) strict: accuracy (class named)",
        *("model", "sampling\u00a0×\u00a03", "joint"),
        *("80.8±0.4 [77.6, 84.0]", "74.2±0.4 [71.2, 77.2]"),
        *("57", "2000", "0", "0/31", "0"),
    ]
    assert table[-1][1:5] == ["CLAP (laion/clap-htsat-unfused)", "", "", "82.6 [79.3, 85.9]"]
    assert len(table) == 1 + 5 * 2 + 2


def test_what_was_not_computed_says_why(tmp_path):
    page = _write(tmp_path, synthetic.audiocaps())
    told = "SPICE: not computed: SPICE's jars are not here; `python -m ltu_jax.fetch spice`"
    assert "".join(page.words).count(told) == 1


def test_grounding_groups_and_classes_have_tables(tmp_path):
    page = _write(tmp_path, synthetic.esc50())
    (grounding,) = page.table("metric", "difference of modes")
    assert grounding[1] == [
        *("accuracy", "joint − silence", "more is better"),
        *("+66.0 [+63.0, +69.0]", "+66.0 [+63.0, +69.0]"),
    ]
    (folds,) = page.table("fold")
    assert folds[1] == ["1", "400", "81.0", "75.0"]
    (classes,) = page.table("class")
    assert classes[1] == ["class 49", "40", "41.0", "31.0"]  # the weakest first


def test_examples_are_right_wrong_and_disputed(tmp_path):
    lines = [
        synthetic.sample("other mode", mode="audio"),
        synthetic.sample("sampled", decoding="sampling"),
        synthetic.sample("later draw", draw=1),
        *(synthetic.sample(f"right {index}") for index in range(3)),
        *(synthetic.sample(f"wrong {index}", paper=0, strict=0) for index in range(3)),
        *(synthetic.sample(f"apart {index}", paper=1, strict=0) for index in range(3)),
        synthetic.sample("other row", row="no such row"),
    ]
    folder = synthetic.write_run(tmp_path / "run", synthetic.esc50(), lines)
    chosen = sample_answers.choose(folder / "samples.jsonl", synthetic.esc50())
    assert [(one.kind, one.line["item_id"]) for one in chosen["esc50"]] == [
        ("right", "right 0"),
        ("right", "right 1"),
        ("wrong", "wrong 0"),
        ("wrong", "wrong 1"),
        ("rules differ", "apart 0"),
        ("rules differ", "apart 1"),
    ]


def test_a_rule_that_was_not_computed_disputes_nothing(tmp_path):
    lines = [synthetic.sample(str(index)) for index in range(5)]
    for line in lines:
        del line["scores"]["accuracy"]["paper"]
    page = _write(tmp_path, synthetic.esc50(), samples=lines)
    (answers,) = page.table("", "item")
    assert [(line[0], line[5]) for line in answers[1:]] == [("right", "-")] * 2


def test_examples_of_error_rates_are_best_and_worst(tmp_path):
    made = synthetic.librispeech()
    lines = [
        synthetic.sample(str(rate), row="librispeech", metric="WER", paper=rate, strict=rate)
        for rate in (0.4, 0.0, 0.1, 2.0, 0.5)
    ]
    folder = synthetic.write_run(tmp_path / "run", made, lines)
    chosen = sample_answers.choose(folder / "samples.jsonl", made)["librispeech"]
    assert [(one.kind, one.line["item_id"]) for one in chosen] == [
        ("right", "0.0"),
        ("best", "0.1"),
        ("worst", "2.0"),
        ("worst", "0.5"),
    ]


def test_all_right_has_no_wrong_example(tmp_path):
    lines = [synthetic.sample(str(index)) for index in range(5)]
    folder = synthetic.write_run(tmp_path / "run", synthetic.esc50(), lines)
    chosen = sample_answers.choose(folder / "samples.jsonl", synthetic.esc50())["esc50"]
    assert [one.kind for one in chosen] == ["right", "right"]


def test_long_and_missing_answers_are_shown_as_such(tmp_path):
    lines = [
        synthetic.sample("long", output="x" * 5000),
        synthetic.sample("missing", output=None, paper=0, strict=0),
    ]
    page = _write(tmp_path, synthetic.esc50(), samples=lines)
    (answers,) = page.table("", "item")
    assert [line[4] for line in answers[1:]] == ["x" * 400 + " […]", "(no answer)"]


@pytest.mark.parametrize(
    ("line", "told"), [("{", r"samples.jsonl:1 "), ('{"row": 1}', "it lacks decoding")]
)
def test_a_broken_samples_file_is_named(line, told, tmp_path):
    folder = synthetic.write_run(tmp_path / "run", synthetic.esc50())
    (folder / "samples.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=told):
        html_report.write([folder], tmp_path / "report.html")


def test_folders_that_are_no_runs_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"empty has no metrics\.json"):
        html_report.write([tmp_path / "empty"], tmp_path / "report.html")
    with pytest.raises(UserError, match="at least one folder"):
        html_report.write([], tmp_path / "report.html")


def test_configuration_is_there_in_full(tmp_path):
    made = synthetic.esc50()
    page = _write(tmp_path, made)
    assert json.dumps(made["config"], indent=2, sort_keys=True) in page.words


@pytest.mark.parametrize("content", ["[]", "{}", '{"rows": {}}'])
def test_a_broken_metrics_file_is_named(tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match="metrics.json lacks .*: run `evaluate rescore`"):
        html_report.write([tmp_path], tmp_path / "report.html")
