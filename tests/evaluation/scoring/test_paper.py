"""Every official text function against what the official code returned, and MMAU's and AIR-Bench's
rules against cases worked out by hand from their published scripts."""

import json

import pytest
from sklearn.metrics import accuracy_score, f1_score

from ltu_jax.evaluation.metrics.words import word_errors
from ltu_jax.evaluation.scoring import paper
from ltu_jax.evaluation.scoring.paper import Part


def word_error_rate(hypotheses, references):
    """All word edits over all reference words, as the official function counts them."""
    pairs = list(zip(references, hypotheses, strict=True))
    edits = sum(word_errors(one.split(), other.split()) for one, other in pairs)
    return edits / sum(len(one.split()) for one, _ in pairs)


@pytest.fixture
def cases(golden):
    return lambda name: json.loads((golden / "eval_scoring" / f"{name}.json").read_text())


def test_librispeech_text_equals_the_official_functions(cases):
    for row in cases("librispeech_text"):
        assert paper.librispeech_answer(row["in"]) == row["process_text"]
        assert paper.librispeech_normal(row["in"]) == row["preprocess_text_only"]
        assert paper.librispeech_words(row["in"]) == row["preprocess_process"]


def test_substitution_and_single_rates_equal_the_official_ones(cases):
    for row in cases("librispeech_wer")["rows"]:
        said = paper.librispeech_words(row["pred"])
        transcript = paper.librispeech_words(row["whisper"])
        assert (said, transcript) == (row["pred_proc"], row["whisper_proc"])
        assert paper.librispeech_words(row["ref"]) == row["gt"]
        assert (transcript in said) is row["contained"]
        chosen = paper.substituted(said, transcript)
        assert chosen == row["chosen"]
        assert word_error_rate([chosen], [row["gt"]]) == row["wer_single"]["value"]


def test_corpus_rates_equal_the_official_ones(cases):
    data = cases("librispeech_wer")
    rows = data["rows"]
    truth = [row["gt"] for row in rows]
    for name, column in (
        ("wer_whisper", "whisper_proc"),
        ("wer_ltuas", "chosen"),
        ("wer_ltuas_no_postproc", "pred_proc"),
    ):
        rate = word_error_rate([row[column] for row in rows], truth)
        assert rate == data["corpus"][name]
    pairs = data["random_pairs"]
    for pair in pairs:
        assert word_error_rate([pair["hyp"]], [pair["ref"]]) == pair["wer"]
    rate = word_error_rate([pair["hyp"] for pair in pairs], [pair["ref"] for pair in pairs])
    assert rate == data["random_corpus_wer"]


def test_age_numbers_equal_the_official_ones(cases):
    for row in cases("voxceleb_age_numbers"):
        numbers = paper.age_numbers(row["in"])
        assert numbers == row["value"]
        assert [type(number) for number in numbers] == [type(number) for number in row["value"]]


def test_the_first_number_is_the_age_as_officially(cases):
    """The official pairs also cut the true age off their references, which items give as it is."""
    data = cases("voxceleb_age_reg")
    rows = [row for row in data["rows"] if "error" not in row]
    first = [next(iter(paper.age_numbers(row["pred"])), None) for row in rows]
    assert first == [row["value"][1] for row in rows]
    pairs = [row["value"] for row in rows if row["value"] != [None, None]]
    assert len(pairs) == data["summary"]["n"]


def test_genders_equal_the_official_ones(cases):
    data = cases("voxceleb_gender")
    code = {"female": 0, "male": 1}
    true, guess = [], []
    for row in data["rows"]:
        true.append(code[paper.gender(row["ref"])])
        guess.append(code[paper.gender(row["pred"])])
        assert [true[-1], guess[-1]] == row["gender_cla2"]
        assert (true[-1] == guess[-1]) is row["gender_cla"]
    summary = data["summary"]
    assert len(true) == summary["n"]
    assert accuracy_score(true, guess) == summary["accuracy"]
    assert f1_score(true, guess, average="macro") == summary["f1_macro"]


def test_captions_equal_the_official_ones(cases):
    for row in cases("audiocaps_clean"):
        normal = paper.audiocaps_normal(row["in"])
        assert normal == row["remove_punctuation_and_lowercase"]
        assert paper.audiocaps_clean(row["in"]) == row["cleaned"]


@pytest.mark.parametrize(
    "part, frame, answer, embedded",
    [
        (Part.WHOLE, "{}", "  The Speaker is happy: yes", "The Speaker is happy: yes"),
        (Part.AFTER_COLON, "sound of {}", "Audio caption: A Dog {barks}", "sound of a dog {barks}"),
        (Part.AFTER_COLON, "sound of {}", "A Dog", "sound of a dog"),
        (Part.AFTER_LEAD_IN, "sound of {}", 'Audio caption: "A dog: Rex"', "sound of a dog: rex"),
        (Part.AFTER_LEAD_IN, "sound of {}", "A dog barks", "sound of dog barks"),
        (Part.AFTER_LEAD_IN, "sound of {}", "", "sound of "),
    ],
)
def test_what_is_embedded_of_an_answer(part, frame, answer, embedded):
    assert paper.embedded_answer(answer, part=part, frame=frame) == embedded


def test_what_is_embedded_of_a_label():
    assert paper.embedded_label("Church_Bells", frame="sound of {}") == "sound of church bells"
    # VGGSound's table says "pigeon_ dove cooing", of which its script makes two spaces.
    label = paper.embedded_label("pigeon, dove cooing", frame="sound of {}", comma=",  ")
    assert label == "sound of pigeon,  dove cooing"


CHOICES = ("A child", "A woman", "An adult man", "A teenager")


@pytest.mark.parametrize(
    "answer, output, right",
    [
        ("A woman", "a woman", True),
        ("A woman", "(B) A woman.", True),
        ("A woman", "woman", False),  # all tokens of the answer are needed: "a" is one
        ("A woman", "A woman and a child", False),
        ("A woman", "An old woman, a singer", False),  # "an" belongs to another choice only
        ("A child", "a child's voice", True),
        ("A woman", "", False),
        ("A woman", "B", False),
    ],
)
def test_mmau_needs_all_words_of_the_answer_and_none_of_other_choices(answer, output, right):
    assert paper.mmau_match(answer, output, CHOICES) is right


@pytest.mark.parametrize(
    "output, letter",
    [
        ("A", "A"),
        ("B. A woman", "B"),
        ("Dog barking", "D"),
        ("The answer is C.", "C"),
        ("The answer is C", None),
        ("(B)", "B"),
        ("\n\nAnswer\n", "A"),
        ("x", None),
        ("", None),
        ("None", None),
        ("\u00bfB?", "B"),
        ("E.", None),
    ],
)
def test_air_bench_reads_the_first_character_or_the_last_but_one(output, letter):
    assert paper.air_bench_letter(output) == letter
