"""A run scored: values against plain counts, jiwer and scikit-learn; scored again, compared."""

import dataclasses
import json

import jiwer
import numpy as np
import pytest
from sklearn.metrics import f1_score

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.dataset import read_dataset
from ltu_jax.evaluation.datasets.item import EvaluationMode
from ltu_jax.evaluation.metrics.bootstrap import bootstrap_draws, ratio
from ltu_jax.evaluation.run import runner as running
from ltu_jax.evaluation.run.compare import compare
from ltu_jax.evaluation.run.results import score
from ltu_jax.evaluation.run.run_dir import read_run
from ltu_jax.evaluation.run.samples import GREEDY, SAMPLING
from ltu_jax.evaluation.scoring.interface import Tools

# What is compared is the figure; intervals of many resamples and pictures have tests of their own.
pytestmark = pytest.mark.usefixtures("few_resamples", "undrawn")
SETTINGS = running.EvaluationSettings(
    system="listener",
    weights={"sha256": "a"},
    whisper="Whisper",
    dtype="float32",
    modes=tuple(EvaluationMode),
    decodings=(GREEDY,),
    batch_size=8,
    seed=0,
    limit=None,
    allow_missing=False,
    resume=False,
)


class Letters:
    """Texts as letter counts: an embedder that needs no weights."""

    name = "letters"

    def __call__(self, texts):
        counts = np.array([[text.lower().count(c) for c in "abcdefghijklmnop"] for text in texts])
        norms = np.linalg.norm(counts, axis=1, keepdims=True)
        return counts / np.maximum(norms, 1e-9)


@pytest.fixture
def questions(corpus):
    return read_dataset(corpus, name="mini", split="test")


@pytest.fixture
def evaluate(questions, listener, tmp_path):
    """Run with other settings, tools or answers; returns the metrics and the folder."""

    def run(name="out", *, answer=None, tools=None, predictions=None, **settings):
        model = listener()
        if answer is not None:
            model.answer = answer
        outcome = running.run(
            questions,
            running.EvaluationSettings(**{**vars(SETTINGS), **settings}),
            load=lambda: model,
            out=tmp_path / name,
            tools=tools or Tools(embedder=Letters()),
            clap=None,
            predictions=predictions or {},
        )
        return outcome.metrics, tmp_path / name

    return run


def value(metrics, row, *, metric=None, rule="strict", mode="joint", system="model", draw=GREEDY):
    figures = metrics["rows"][row]["figures"]
    metric = metric or figures[0]["metric"]
    found = [
        figure
        for figure in figures
        if (figure["metric"], figure["rule"], figure["mode"], figure["system"])
        == (metric, rule, mode, system)
        and figure["decoding"] in (draw, None)
    ]
    assert len(found) == 1
    return found[0]


def test_controls_expose_what_is_not_heard(evaluate):
    metrics, _ = evaluate()
    strict = {
        row: {mode: value(metrics, row, mode=mode)["value"] for mode in EvaluationMode}
        for row in metrics["rows"]
    }
    assert strict["sound"] == {"joint": 1, "audio": 1, "text": 0, "shuffled": 0, "silence": 0}
    assert strict["gender"]["joint"] == 1
    assert strict["gender"]["silence"] == 0
    assert strict["spoken_text"]["joint"] == strict["spoken_text"]["text"] == 0
    assert strict["spoken_text"]["audio"] > 0.8
    only_joint = {"joint": 1, "audio": 0, "text": 0, "shuffled": 0, "silence": 0}
    assert strict["joint_questions"] == only_joint
    added = {
        one["without"]: one["difference"]
        for one in metrics["rows"]["sound"]["grounding"]
        if one["rule"] == "strict"
    }
    assert added == {"audio": 0, "text": 1, "shuffled": 1, "silence": 1}


def some_answers(question, index, said):
    """Right, wrong and unreadable answers in turn."""
    if question == "Who speaks?":
        return ("The speaker is male.", "The speaker is female.", "neither", "male")[index % 4]
    if question == "What do you hear?":
        return ("A dog.", "It might be rain.", "A cat and a dog.")[index % 3]
    return ("Spoken text: the cat sat", f"Spoken text: {said}", "I do not know.")[index % 3]


def test_figures_equal_other_implementations(evaluate, questions):
    metrics, folder = evaluate(answer=some_answers)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    joint = [one for one in samples if one["mode"] == "joint"]

    sound = [one for one in joint if one["row"] == "sound"]
    right = [
        {"A dog.": "dog", "It might be rain.": "rain"}.get(one["output"]) == one["reference"][0]
        for one in sound
    ]
    assert value(metrics, "sound")["value"] == pytest.approx(np.mean(right))
    assert value(metrics, "sound")["unparsed"] == 4

    gender = [one for one in joint if one["row"] == "gender"]
    strict = [one["scores"]["macro-F1"]["strict"]["parsed"] or "none" for one in gender]
    truth = [one["reference"][0] for one in gender]
    expected = f1_score(truth, strict, labels=["female", "male"], average="macro")
    assert value(metrics, "gender")["value"] == pytest.approx(expected)
    official = ["female" if "female" in one["output"].lower() else "male" for one in gender]
    expected = f1_score(truth, official, labels=["female", "male"], average="macro")
    assert value(metrics, "gender", rule="paper")["value"] == pytest.approx(expected)
    apart = [
        (one == label) != (other == label)
        for one, other, label in zip(official, strict, truth, strict=True)
    ]
    assert value(metrics, "gender")["differ"] == sum(apart) > 0

    words = [one for one in joint if one["row"] == "spoken_text"]
    parsed = [one["scores"]["WER"]["strict"]["parsed"] for one in words]
    plain = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.Strip()])
    expected = jiwer.wer(plain([one["reference"][0] for one in words]), plain(parsed))
    assert value(metrics, "spoken_text")["value"] == pytest.approx(expected)


def test_several_draws_give_a_mean_a_spread_and_one_interval(evaluate):
    metrics, folder = evaluate(decodings=(GREEDY, SAMPLING))
    found = value(metrics, "sound", draw=SAMPLING)
    assert (found["draws"], found["value"], found["spread"]) == (3, 1.0, 0.0)
    lines = (folder / "samples.jsonl").read_text().splitlines()
    assert len(lines) == 48 * 5 * (1 + 3)
    counts = np.array([[(1, 1), (0, 1)], [(1, 1), (1, 1)]])
    draws = bootstrap_draws(counts, clusters=["a", "b"], statistic=ratio)
    assert draws.value == 0.75
    assert draws.spread == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert (draws.low, draws.high) == (0.5, 1.0)  # both samples are a, or both are b


def test_intervals_of_draws_against_brute_force():
    generator = np.random.default_rng(0)
    counts = generator.integers(0, 5, size=(3, 20, 2)) + 1.0
    clusters = [f"c{index // 3}" for index in range(20)]
    found = bootstrap_draws(counts, clusters=clusters, statistic=ratio, resamples=20_000)
    names, values = sorted(set(clusters)), []
    for _ in range(4_000):
        chosen = generator.choice(names, size=len(names))
        rows = [i for name in chosen for i, one in enumerate(clusters) if one == name]
        values.append(np.mean([d[rows, 0].sum() / d[rows, 1].sum() for d in counts]))
    np.testing.assert_allclose(
        (found.low, found.high), np.percentile(values, (2.5, 97.5)), atol=0.02
    )


def test_baselines_stand_beside_the_model(evaluate, questions, tmp_path):
    path = tmp_path / "other.jsonl"
    own = [item for item in questions.items if item.row == "sound"]
    lines = [{"item_id": item.item_id, "output": f"a {item.label}"} for item in own[:9]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    metrics, _ = evaluate(predictions={"other": path})
    sound = {"mode": None, "draw": None}
    assert value(metrics, "sound", system="majority class", **sound)["value"] == 0.25
    assert value(metrics, "sound", system="chance", **sound)["value"] == 0.25
    other = value(metrics, "sound", system="other", **sound)
    assert (other["value"], other["missing"]) == (0.75, 3)
    whisper = value(metrics, "spoken_text", system="Whisper transcript", **sound)
    assert whisper["value"] == 0


def test_predictions_for_unknown_items_are_refused(evaluate, tmp_path):
    path = tmp_path / "other.jsonl"
    path.write_text('{"item_id": "nothing", "output": "a dog"}\n')
    with pytest.raises(UserError, match="other.jsonl:1: the benchmark has no item 'nothing'"):
        evaluate(predictions={"other": path})


def test_what_cannot_be_computed_says_why(evaluate):
    metrics, folder = evaluate(tools=Tools())
    found = value(metrics, "sound", rule="paper")
    assert found["value"] is None
    assert found["not_computed"].startswith("not computed: ")
    assert "all-minilm-l6-v2" in found["not_computed"]
    assert value(metrics, "sound")["value"] == 1  # the strict rule needs no embedder
    assert found["not_computed"] in (folder / "results.txt").read_text()


def test_missing_clips_stay_in_the_denominator_of_strict(evaluate, questions):
    gone = questions.clips["clip02"].audio
    gone.unlink()
    with pytest.raises(UserError, match="clip02.flac: no such file"):
        evaluate()
    metrics, _ = evaluate(allow_missing=True, modes=(EvaluationMode.JOINT,))
    found = value(metrics, "sound")
    assert (found["n"], found["missing"]) == (12, 1)
    assert found["value"] == pytest.approx(11 / 12)


def test_a_run_is_scored_again_without_model_or_data(evaluate, corpus):
    metrics, folder = evaluate()
    names = ("samples.jsonl", "metrics.json", "results.txt", "report.html")
    before = {name: (folder / name).read_bytes() for name in names}
    (corpus / "clips.jsonl").unlink()
    again = score(read_run(folder), Tools(embedder=Letters()), throughput=metrics["throughput"])
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(metrics))
    assert {name: (folder / name).read_bytes() for name in names} == before


def test_another_evaluation_is_put_aside_unless_it_should_be_resumed(evaluate, capsys):
    with pytest.raises(UserError, match="holds no evaluation"):
        evaluate(resume=True)
    evaluate()
    with pytest.raises(UserError, match="another evaluation, which differs in weights"):
        evaluate(weights={"sha256": "b"}, resume=True)
    evaluate(resume=True)
    _, folder = evaluate(weights={"sha256": "b"})
    assert "starting afresh" in capsys.readouterr().out
    assert len((folder / "old.1" / "samples.jsonl").read_text().splitlines()) == 48 * 5
    read_run(folder / "old.1")  # a whole run, which can be compared and scored again


def test_runs_are_compared_on_the_items_of_both(evaluate):
    _, a = evaluate("a", answer=some_answers)
    _, b = evaluate("b")
    found = compare(read_run(a), read_run(b), Tools(embedder=Letters()))
    row = next(
        one
        for one in found
        if (one["row"], one["rule"], one["mode"]) == ("sound", "strict", "joint")
    )
    assert (row["n"], row["b"]) == (12, 1.0)
    assert row["difference"] == pytest.approx(1 - row["a"])
    assert row["low"] <= row["difference"] <= row["high"]
    assert 0 < row["mcnemar_p"] < 0.05
    assert row["better"] == "B"
    left_out: list[str] = []
    same = compare(read_run(b), read_run(b), Tools(embedder=Letters()), left_out=left_out)
    assert left_out == []
    assert {one["better"] for one in same} == {"not shown"}
    assert {one["difference"] for one in same} == {0.0}


def test_all_right_has_the_exact_interval_of_its_clusters(evaluate):
    metrics, _ = evaluate(modes=(EvaluationMode.JOINT,))
    found = value(metrics, "sound")
    assert (found["value"], found["n"]) == (1.0, 12)
    assert (found["low"], found["high"]) == (pytest.approx(0.025 ** (1 / 12)), 1.0)


def test_what_is_not_compared_is_said(evaluate):
    _, a = evaluate("a", modes=(EvaluationMode.JOINT, EvaluationMode.AUDIO))
    _, b = evaluate("b", modes=(EvaluationMode.JOINT, EvaluationMode.TEXT))
    a, b = read_run(a), read_run(b)
    sounds = [item for item in b.items if item.row == "sound"]
    b = dataclasses.replace(
        b, items=[item for item in b.items if item.row != "sound" or item in sounds[:3]]
    )
    left_out: list[str] = []
    found = compare(a, b, Tools(), left_out=left_out)
    sound = next(one for one in found if (one["row"], one["rule"]) == ("sound", "strict"))
    assert (sound["n"], sound["clusters"], sound["better"]) == (3, 3, "too few")
    assert sound["low"] is sound["high"] is None
    tool_names = "\n".join(left_out)
    assert "sound: 3 items are the same; left out: 9 of A, 0 of B" in tool_names
    assert "mode audio: only A has it" in tool_names
    assert "mode text: only B has it" in tool_names
    assert "sound, accuracy (paper), joint, greedy: not computed" in tool_names


def test_runs_without_a_common_figure_say_so(evaluate):
    _, a = evaluate("a", modes=(EvaluationMode.JOINT,))
    _, b = evaluate("b", modes=(EvaluationMode.TEXT,))
    with pytest.raises(UserError, match="no figure in common: .*a has modes joint, greedy; .*text"):
        compare(read_run(a), read_run(b), Tools())


def test_a_folder_of_something_else_is_named(tmp_path):
    with pytest.raises(UserError, match="is not the folder of an evaluation"):
        read_run(tmp_path)
