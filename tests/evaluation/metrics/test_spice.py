"""SPICE where it cannot run, and its output, recorded from SPICE 1.0's own scorer.

`golden/spice/scores.json` is what `edu.anu.spice.SpiceStats` of spice-1.0.jar wrote for five pairs
of hand-written propositions (not captions: parsing those needs CoreNLP 3.6.0), with `-subset`.
"""

import importlib.util
import json
from pathlib import Path

import pytest

from ltu_jax.evaluation.metrics import java, spice
from ltu_jax.evaluation.scoring.interface import NotComputedError

RECORDED = Path(__file__).parents[2] / "golden" / "spice" / "scores.json"
PAIRS = [(("a", "dog"), (("the", "dog"),)), ((), (("rain",),))]


@pytest.fixture
def folder(tmp_path):
    """A folder with the names of all jars that SPICE needs."""
    (tmp_path / "lib").mkdir()
    for name in (
        "spice-1.0.jar",
        "lib/ejml-0.23.jar",
        "lib/stanford-corenlp-3.6.0-models.jar",
        "lib/stanford-corenlp-3.6.0.jar",
    ):
        (tmp_path / name).touch()
    return tmp_path


@pytest.fixture
def installed(tmp_path):
    """The folder `spice` of pycocoevalcap as pip leaves it: with SPICE, without CoreNLP."""
    package, folder = java.package("SPICE") / "spice", tmp_path / "spice"
    for jar in ("*.jar", "lib/*.jar"):
        for real in package.glob(jar):
            if "corenlp" not in real.name:
                link = folder / real.relative_to(package)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(real)
    return folder


def test_scores_are_the_f_scores_of_all_propositions():
    text = RECORDED.read_text()
    counts = [entry["scores"]["All"] for entry in json.loads(text)]
    closed_form = [2 * one["tp"] / (2 * one["tp"] + one["fp"] + one["fn"]) for one in counts]
    assert spice.parse_spice(text, count=5) == pytest.approx(closed_form)
    assert closed_form == pytest.approx([4 / 9, 1, 0, 0, 0])


def test_scores_go_by_image_id():
    text = json.dumps(json.loads(RECORDED.read_text())[::-1])
    assert spice.parse_spice(text, count=5) == pytest.approx([4 / 9, 1, 0, 0, 0])


@pytest.mark.parametrize("broken", [None, float("nan")])
def test_a_caption_without_score_is_not_passed_over(broken):
    entries = json.loads(RECORDED.read_text())
    entries[2]["scores"]["All"]["f"] = broken
    with pytest.raises(NotComputedError, match="no score for 1 of 5 captions .* number 2"):
        spice.parse_spice(json.dumps(entries), count=5)


def test_without_corenlp_the_message_has_the_command(installed, monkeypatch):
    monkeypatch.setattr(java, "package", lambda what: installed.parent)
    with pytest.raises(NotComputedError, match="^SPICE needs Stanford CoreNLP 3.6.0"):
        spice.spice_scores(PAIRS, jars=None)
    with pytest.raises(NotComputedError, match="python -m pycocoevalcap.spice.get_stanford_models"):
        spice.spice_scores([], jars=installed)


def test_that_command_exists():
    assert importlib.util.find_spec("pycocoevalcap.spice.get_stanford_models")


def test_missing_jars_are_named(folder):
    (folder / "lib" / "stanford-corenlp-3.6.0-models.jar").unlink()
    with pytest.raises(NotComputedError, match="lacks stanford-corenlp-3.6.0-models.jar"):
        spice.spice_scores(PAIRS, jars=folder)
    (folder / "spice-1.0.jar").unlink()
    with pytest.raises(NotComputedError, match="has no spice-1.0.jar"):
        spice.spice_scores(PAIRS, jars=folder)


def test_a_java_without_javascript_is_refused_before_minutes_of_parsing(folder, monkeypatch):
    monkeypatch.setattr(java, "java_version", lambda: 17)
    with pytest.raises(NotComputedError, match="Java 8 to 14 .* this is Java 17: set JAVA_HOME"):
        spice.spice_scores(PAIRS, jars=folder)


def test_that_engine_may_come_from_a_jar(folder, monkeypatch):
    monkeypatch.setattr(java, "java_version", lambda: 17)
    (folder / "lib" / "nashorn-core-15.4.jar").touch()
    names = [jar.name for jar in spice.class_path(folder)]
    assert names[:3] == [
        "spice-1.0.jar",
        "stanford-corenlp-3.6.0.jar",
        "stanford-corenlp-3.6.0-models.jar",
    ]
    assert sorted(names[3:]) == ["ejml-0.23.jar", "nashorn-core-15.4.jar"]


def test_captions_go_in_as_spice_reads_them_and_empty_ones_do_not(folder, monkeypatch):
    sent = []

    def run_java(arguments, **_):
        sent.extend(json.loads(Path(arguments[4]).read_text()))
        Path(arguments[6]).write_text(json.dumps(json.loads(RECORDED.read_text())[:1]))

    monkeypatch.setattr(java, "java_version", lambda: 8)
    monkeypatch.setattr(java, "run_java", run_java)
    assert spice.spice_scores(PAIRS, jars=folder) == pytest.approx([4 / 9, 0])
    assert sent == [{"image_id": 0, "test": "a dog", "refs": ["the dog"]}]


def test_the_real_program_gets_as_far_as_its_missing_parser(installed):
    jars = [*installed.glob("*.jar"), *(installed / "lib").glob("*.jar")]
    with pytest.raises(NotComputedError, match="SPICE ended with status 1: .*edu/stanford/nlp"):
        spice._propositions(PAIRS[:1], jars)
