"""Every official text function against what the official code returned, and MMAU's and AIR-Bench's
rules against cases worked out by hand from their published scripts."""

import json

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from ltu_jax.evaluation.scoring import paper
from ltu_jax.evaluation.scoring.paper import Part


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
        assert paper.word_error_rate([chosen], [row["gt"]]) == row["wer_single"]["value"]


def test_corpus_rates_equal_the_official_ones(cases):
    data = cases("librispeech_wer")
    rows = data["rows"]
    truth = [row["gt"] for row in rows]
    for name, column in (
        ("wer_whisper", "whisper_proc"),
        ("wer_ltuas", "chosen"),
        ("wer_ltuas_no_postproc", "pred_proc"),
    ):
        rate = paper.word_error_rate([row[column] for row in rows], truth)
        assert rate == data["corpus"][name]
    pairs = data["random_pairs"]
    for pair in pairs:
        assert paper.word_error_rate([pair["hyp"]], [pair["ref"]]) == pair["wer"]
    rate = paper.word_error_rate([pair["hyp"] for pair in pairs], [pair["ref"] for pair in pairs])
    assert rate == data["random_corpus_wer"]


def test_a_rate_without_reference_words_divides_by_zero_as_officially(cases):
    assert cases("librispeech_wer")["empty_ref"]["error"] == "ZeroDivisionError"
    with pytest.raises(ZeroDivisionError):
        paper.word_error_rate(["a word"], [""])


def test_age_numbers_equal_the_official_ones(cases):
    for row in cases("voxceleb_age_numbers"):
        numbers = paper.age_numbers(row["in"])
        assert numbers == row["value"]
        assert [type(number) for number in numbers] == [type(number) for number in row["value"]]


def test_age_pairs_equal_the_official_ones(cases):
    data = cases("voxceleb_age_reg")
    pairs = []
    for row in data["rows"]:
        if "error" in row:
            assert row["error"] == "ValueError"
            with pytest.raises(ValueError, match="invalid literal"):
                paper.age_pair(row["ref"], row["pred"])
        elif row["value"] == [None, None]:
            assert paper.age_pair(row["ref"], row["pred"]) is None
        else:
            pairs.append(paper.age_pair(row["ref"], row["pred"]))
            assert list(pairs[-1]) == row["value"]
    true, guess = np.array(pairs).T
    summary = data["summary"]
    assert len(pairs) == summary["n"]
    assert np.abs(true - guess).mean() == summary["mean_abs_error_called_mse_in_official_print"]
    assert np.corrcoef(true, guess)[0, 1] == pytest.approx(summary["corrcoef"], rel=1e-12)


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
