"""Word error rates of whole rows against jiwer and the golden corpus; each official trap."""

import json

import jiwer
import numpy as np
import pytest

from ltu_jax.evaluation.metrics.words import words
from ltu_jax.evaluation.scoring import paper
from ltu_jax.evaluation.scoring.interface import NotComputedError, Status, Tools
from ltu_jax.evaluation.scoring.spoken import WER
from ltu_jax.evaluation.scoring.task_metrics import WER_VS_WHISPER

VOCABULARY = (
    "the",
    "a",
    "dog",
    "ran",
    "home",
    "colour",
    "go",
    "it's",
    "twenty",
    "one",
    "Mr.",
    "on",
)


def random_text(generator, low):
    return " ".join(generator.choice(VOCABULARY, size=generator.integers(low, 9)))


def test_paper_equals_the_golden_corpus(golden, answer, figure):
    data = json.loads((golden / "eval_scoring" / "librispeech_wer.json").read_text())
    answers = [answer(row["pred"], row["ref"], spoken_text=row["whisper"]) for row in data["rows"]]
    assert figure(WER.paper, answers) == data["corpus"]["wer_ltuas"]
    for one, row in zip(WER.paper.grade(answers, Tools()), data["rows"], strict=True):
        assert (one.parsed, one.value) == (row["chosen"], row["wer_single"]["value"])


@pytest.mark.parametrize("seed", range(3))
def test_paper_equals_jiwer_on_the_officially_processed_texts(seed, answer, figure):
    generator = np.random.default_rng(seed)
    answers, said, truth = [], [], []
    for _ in range(80):
        output, label = random_text(generator, 0), random_text(generator, 1)
        whisper = random_text(generator, 0)
        answers.append(answer(f"Spoken text: {output}", label, spoken_text=whisper))
        said.append(
            paper.substituted(paper.librispeech_normal(output), paper.librispeech_normal(whisper))
        )
        truth.append(paper.librispeech_normal(label))
    assert figure(WER.paper, answers) == pytest.approx(jiwer.wer(truth, said), rel=1e-12)
    for one, a, b in zip(WER.paper.grade(answers, Tools()), truth, said, strict=True):
        assert one.value == pytest.approx(jiwer.wer(a, b), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_strict_equals_jiwer_on_whisper_normalised_texts(seed, answer, figure):
    generator = np.random.default_rng(seed)
    answers, said, truth = [], [], []
    for _ in range(80):
        output, label = random_text(generator, 0), random_text(generator, 1)
        answers.append(answer(f"Spoken text: {output}", label, spoken_text=label))
        said.append(" ".join(words(output)))
        truth.append(" ".join(words(label)))
    assert figure(WER.strict, answers) == pytest.approx(jiwer.wer(truth, said), rel=1e-12)
    for one, a, b in zip(WER.strict.grade(answers, Tools()), truth, said, strict=True):
        assert one.value == pytest.approx(jiwer.wer(a, b), rel=1e-12)


def test_strict_never_takes_the_transcript_for_the_answer(answer, figure):
    within = [answer("Spoken text: going home", "go", spoken_text="go")]
    assert figure(WER.paper, within) == 0
    assert figure(WER.strict, within) == 2
    in_a_sentence = [
        answer("He says he went home yesterday, calmly.", "he went", spoken_text="he went")
    ]
    assert figure(WER.paper, in_a_sentence) == 0
    assert figure(WER.strict, in_a_sentence) > 0


def test_an_empty_transcript_replaces_nothing_in_strict(answer, figure):
    answers = [answer("a b c", "a b c d", spoken_text="")]
    assert figure(WER.paper, answers) == 1
    assert figure(WER.strict, answers) == pytest.approx(1 / 4)


def test_strict_normalises_numbers_contractions_and_hyphens(answer, figure):
    answers = [answer("Spoken text: It's twenty-one", "it is 21", spoken_text="x")]
    assert figure(WER.paper, answers) == 1
    assert figure(WER.strict, answers) == 0


def test_a_missing_answer_is_dropped_officially_and_all_wrong_in_strict(answer, figure):
    answers = [answer(None, "a red fox"), answer("go on", "go on", spoken_text="go on")]
    official = WER.paper.grade(answers, Tools())[0]
    assert (official.counts, official.value, official.status) == ((), None, Status.MISSING)
    assert WER.strict.grade(answers, Tools())[0].status is Status.MISSING
    assert figure(WER.paper, answers) == 0
    assert figure(WER.strict, answers) == pytest.approx(3 / 5)


def test_a_refusal_is_scored_and_marked_unless_it_was_said(answer):
    refusal = "I'm sorry, I cannot hear it."
    declined, spoken = WER.strict.grade(
        [answer(refusal, "hello"), answer(f"Spoken text: {refusal}", refusal)], Tools()
    )
    assert (declined.status, declined.value > 0) == (Status.REFUSED, True)
    assert (spoken.status, spoken.value) == (Status.PARSED, 0)


@pytest.mark.parametrize("rule", ["paper", "strict"])
def test_a_row_without_reference_words_is_not_computed(rule, answer):
    with pytest.raises(NotComputedError, match="no reference has a word"):
        getattr(WER, rule).grade([answer("a", "", spoken_text="b")], Tools())


def test_one_empty_reference_among_others_counts_its_insertions(answer, figure):
    answers = [answer("a", "", spoken_text="b"), answer("go on", "go on", spoken_text="b")]
    assert figure(WER.paper, answers) == pytest.approx(1 / 2)
    # The Whisper normaliser leaves the article; it is one insertion there, too.
    assert figure(WER.strict, answers) == pytest.approx(1 / 2)


def test_versus_whisper_takes_the_transcript_as_reference_and_substitutes_nothing(answer, figure):
    answers = [answer("Spoken text: the cat sat down", "unused", spoken_text="The cat sat.")]
    assert figure(WER_VS_WHISPER.paper, answers) == pytest.approx(1 / 3)
    assert figure(WER_VS_WHISPER.strict, answers) == pytest.approx(1 / 3)


def test_identical_words_in_typographic_spelling_have_no_errors(answer, figure):
    answers = [answer("it\u2019s a dog\u2019s life", "it's a dog's life")]
    assert figure(WER.strict, answers) == 0


def test_the_language_of_a_row_is_that_of_all_its_references(answer, figure):
    german = ["Wie geht es dir heute", "um acht Uhr"]
    answers = [answer(german[0], german[0]), answer("acht Uhr", german[1])]
    assert figure(WER.strict, answers) == pytest.approx(1 / 8)  # "um" is a word
    assert WER.strict.qualifier(answers) == "not as English"
    chinese = [answer("今天很好", "今天天气很好")]
    assert figure(WER.strict, chinese) == pytest.approx(2 / 6)
    assert WER.strict.qualifier(chinese) == "not as English, characters of scripts without spaces"
    assert WER.strict.qualifier([answer("a", "it is a dog")]) == ""
