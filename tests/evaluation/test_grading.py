"""Single grades by hand; whole rows against a plain count, jiwer and scikit-learn."""

import jiwer
import pytest
from sklearn.metrics import f1_score

from ltu_jax.evaluation.benchmarks import Metric, Mode, read_benchmark
from ltu_jax.evaluation.grading import figures, grade, whisper_error_rate


@pytest.fixture
def benchmark(corpus):
    return read_benchmark(corpus, name="mini", split="test")


def item_of(benchmark, item_id):
    item = next(item for item in benchmark.items if item.item_id == item_id)
    return item, benchmark.clips[item.clip_id]


@pytest.mark.parametrize(
    "output, right",
    [
        ("It is a dog.", True),
        ("It is a cat.", False),
        ("A dog and a cat", False),
        ("", False),
    ],
)
def test_a_closed_answer_names_one_class(benchmark, output, right):
    graded = grade(*item_of(benchmark, "clip00-sound"), output, metric=Metric.ACCURACY)
    assert graded.right is right


@pytest.mark.parametrize(
    "output, right",
    [
        ('"The cat sat on the mat." over a dog.', True),
        ('The person says "the cat sat on a mat" while a dog barks.', True),
        ('"The cat sat on the mat." over a cat.', False),
        ('"The cat ate all your mat" over a dog.', False),
        ("The cat sat on the mat, and a dog.", False),
        ("a dog", False),
        ('"The cat sat on the mat." over nothing.', False),
    ],
)
def test_a_joint_answer_needs_the_sound_and_the_words(benchmark, output, right):
    item, clip = item_of(benchmark, "clip00-joint_questions")
    assert grade(item, clip, output, metric=Metric.CLASS_AND_WORDS).right is right


def outputs_for(benchmark, answer):
    return {(item.item_id, Mode.JOINT): answer(item) for item in benchmark.items}


def test_reference_answers_score_perfectly(benchmark):
    tasks = figures(benchmark, outputs_for(benchmark, lambda item: item.answer), modes=[Mode.JOINT])
    assert set(tasks) == {
        "sound",
        "spoken_text",
        "spoken_text_vs_whisper",
        "gender",
        "joint_questions",
    }
    for row, best in (("sound", 1), ("gender", 1), ("joint_questions", 1), ("spoken_text", 0)):
        cell = tasks[row]["joint"]
        assert (cell["value"], cell["low"], cell["high"], cell["n"]) == (best, best, best, 12)
        assert cell["unparsed"] == 0
    assert tasks["sound"]["chance"] == pytest.approx(1 / 4)
    assert tasks["joint_questions"]["chance"] == pytest.approx(1 / 4)
    assert 0.5 < tasks["spoken_text"]["chance"] <= 1


def test_rows_equal_plain_counts(benchmark):
    def answer(item):
        index = int(item.clip_id[4:])
        if item.row == "sound":
            return item.answer if index % 3 else "no idea"
        if item.row == "gender":
            return "male" if index % 5 else "neither"
        if item.row == "spoken_text":
            return 'They say "the cat sat"'
        return item.answer

    tasks = figures(benchmark, outputs_for(benchmark, answer), modes=[Mode.JOINT])
    sound = tasks["sound"]["joint"]
    assert sound["value"] == pytest.approx(8 / 12)
    assert sound["unparsed"] == 4
    assert sound["low"] < sound["value"] < sound["high"]
    assert sound["confusion"]["dog"] == {"(unparsed)": 1, "dog": 2}

    truth = [("male", "female")[index // 4 % 2] for index in range(12)]
    guess = ["male" if index % 5 else "unparsed" for index in range(12)]
    theirs = f1_score(truth, guess, labels=["female", "male"], average="macro")
    assert tasks["gender"]["joint"]["value"] == pytest.approx(theirs)

    references = [
        "the cat sat on the mat",
        "we bought 7 green apples",
        "a train leaves at noon",
        "nobody wanted to go home",
    ] * 3
    theirs = jiwer.wer(references, ["the cat sat"] * 12)
    assert tasks["spoken_text"]["joint"]["value"] == pytest.approx(theirs)


def test_word_errors_are_counted_against_script_and_transcript_apart(corpus):
    path = corpus / "clips.jsonl"
    path.write_text(path.read_text().replace('"spoken_text": "The cat', '"spoken_text": "The rat'))
    benchmark = read_benchmark(corpus, name="mini", split="test")
    copied = outputs_for(
        benchmark, lambda item: f'"{benchmark.clips[item.clip_id].spoken_text}" dog'
    )
    tasks = figures(benchmark, copied, modes=[Mode.JOINT])
    assert tasks["spoken_text_vs_whisper"]["joint"]["value"] == 0
    assert tasks["spoken_text"]["joint"]["value"] == pytest.approx(3 / 63)
    assert whisper_error_rate(benchmark).value == pytest.approx(3 / 63)
