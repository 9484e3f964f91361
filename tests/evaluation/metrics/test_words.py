"""Word errors against jiwer, the normaliser against transformers', quoted words by hand."""

import json
from pathlib import Path

import jiwer
import numpy as np
import pytest
import whisper_normalizer
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from ltu_jax.evaluation.metrics import scripts
from ltu_jax.evaluation.metrics.words import (
    around_words,
    chance_word_error_rate,
    spoken_words,
    word_error_counts,
    word_errors,
    words,
)

SENTENCES = [
    "Mr. Smith paid $2.50 on the 3rd of May.",
    "It's twenty-one degrees, isn't it?",
    "The colour of the theatre",
    "  one oh one Dalmatians [barking] ",
    "We've gotta go; y'all can't.",
    "naïve café at 10:30",
    "",
]


def test_words_equal_the_normaliser_of_transformers():
    mapping = Path(whisper_normalizer.__file__).parent / "normalizers" / "english.json"
    theirs = EnglishTextNormalizer(json.loads(mapping.read_text()))
    for sentence in SENTENCES:
        assert words(sentence) == theirs(sentence).split()


@pytest.mark.parametrize("seed", range(5))
def test_word_errors_equal_jiwer(seed):
    generator = np.random.default_rng(seed)
    for _ in range(20):
        reference = generator.choice(list("abcde"), size=generator.integers(1, 12)).tolist()
        hypothesis = generator.choice(list("abcde"), size=generator.integers(0, 12)).tolist()
        measures = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
        theirs = measures.substitutions + measures.insertions + measures.deletions
        assert word_errors(reference, hypothesis) == theirs


def test_summed_counts_give_the_corpus_word_error_rate_of_jiwer():
    references = ["The cat sat on the mat.", "Hello, World!", "It is 10 o'clock"]
    hypotheses = ["a cat sat on mat", "hello world again", "it is ten"]
    pairs = zip(references, hypotheses, strict=True)
    counts = np.array([word_error_counts(*pair) for pair in pairs])
    theirs = jiwer.wer(
        [" ".join(words(text)) for text in references],
        [" ".join(words(text)) for text in hypotheses],
    )
    assert counts[:, 0].sum() / counts[:, 1].sum() == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("it's a dog's life", "it\u2019s a dog\u2019s life"),
        ("don't", "don\uff07t"),
        ("o'clock, isn't it", "o\u02bcclock isn\u2018t it"),
        ('he said "no"', "he said \u201eno\u201c"),
        ("twenty-one", "twenty\u2011one"),
        ("hello world 12", "\uff48\uff45\uff4c\uff4c\uff4f\u3000world \uff11\uff12"),
        ("caf\u00e9", "cafe\u0301"),
        ("co\u00adoperate", "cooperate"),
    ],
)
def test_one_text_in_two_spellings_has_no_errors(reference, hypothesis):
    for pair in ((reference, hypothesis), (hypothesis, reference)):
        for english in (True, False):
            edits, count = word_error_counts(*pair, english=english)
            assert (edits, count > 0) == (0, True), (pair, english)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("今天天气很好。", "今 天 天 气 很 好"),
        ("iPhoneで話す", "iphone で 話 す"),
        (
            "\u0e17\u0e35\u0e48\u0e19\u0e35",
            "\u0e17\u0e35\u0e48 \u0e19\u0e35",
        ),  # marks belong to their base
        ("안녕 세상!", "안녕 세상"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("Um acht Uhr geht's über die Straße", "um acht uhr geht's über die strasse"),
        ("l\u2019été, «\u00a0oui\u00a0»", "l'été oui"),
        ("Привет, мир!", "привет мир"),
        ("[noise] ja (lacht)", "ja"),
    ],
)
def test_words_of_other_languages(text, expected):
    assert words(text, english=False) == expected.split()


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("it's a dog's life", True),
        ("HE HOPED THERE WOULD BE STEW FOR DINNER TURNIPS AND CARROTS", True),
        ("We've gotta go; y'all can't.", True),
        ("", True),
        ("42", True),
        ("Um acht Uhr geht's los", False),
        ("Le chien aboie dans le jardin", False),
        ("El perro ladra en el jardín", False),
        ("今天天气很好", False),
        ("Привет", False),
    ],
)
def test_english_is_told_by_letters_and_words(text, english):
    assert scripts.english([text]) is english


def test_a_rule_for_english_is_not_applied_to_others():
    assert word_error_counts("um acht Uhr", "acht Uhr", english=False) == (1, 3)
    assert word_error_counts("schön", "schon", english=False) == (1, 1)
    # Characters, not one wrong word; and whatever the language of the rest of the row is.
    assert word_error_counts("今天天气很好", "今天很差") == (3, 6)


@pytest.mark.parametrize(
    "answer, expected",
    [
        ('The speaker says "the cat sat" softly.', "the cat sat"),
        ("The speaker says \u201cthe cat sat\u201d.", "the cat sat"),
        ('She says: "he said "no" to me"', 'he said "no" to me'),
        ('The speaker says "the cat sat on', "the cat sat on"),
        ("Spoken text: The cat sat.", "The cat sat."),
        ("The spoken words are: note: bring milk", "note: bring milk"),
        ("note: bring milk", "note: bring milk"),
        ("The cat sat.", "The cat sat."),
        ("Nobody knows what this is: text", "Nobody knows what this is: text"),
        ("Background sound: dog. Spoken text: The cat sat.", "The cat sat."),
        ('Spoken text: He said "no" to me.', 'He said "no" to me.'),
        ("spoken text:The cat sat.", "The cat sat."),
        ("A female voice says: The cat sat.", "The cat sat."),
        ("Spoken text:", ""),
        ("Speaker gender: female.", "Speaker gender: female."),
        ("A speaker of low pitch says: The cat sat.", "The cat sat."),
        ("The words heard: The cat sat.", "The cat sat."),
        ("", ""),
        ('""', ""),
    ],
)
def test_spoken_words(answer, expected):
    assert spoken_words(answer) == expected


@pytest.mark.parametrize(
    "answer, expected",
    [
        ('He says "the dog ran" over rain.', "He says  over rain."),
        ("rain \u201cthe dog ran\u201d", "rain"),
        ('rain, he says "the dog', "rain, he says"),
        ("Background sound: rain. Spoken text: The dog ran.", "Background sound: rain."),
        ("Spoken text: The dog ran.", ""),
        ('"The dog ran."', ""),
        ("rain", "rain"),
        (
            "Speaker gender: male. Speech emotion: sad.",
            "Speaker gender: male. Speech emotion: sad.",
        ),
        ("Speech pitch: high.", "Speech pitch: high."),
        ("The gender of the speaker: male", "The gender of the speaker: male"),
        ("Background sounds heard: rain.", "Background sounds heard: rain."),
    ],
)
def test_around_words(answer, expected):
    assert around_words(answer) == expected


def test_chance_is_the_best_constant_transcript():
    references = ["the cat sat", "the cat ran", "the cat sat"]
    assert chance_word_error_rate(references) == pytest.approx(1 / 9)
    unlike = ["a b", "c d", "e f"]
    assert chance_word_error_rate(unlike) == pytest.approx(4 / 6)


def test_chance_of_silence_is_one_at_worst():
    references = ["one word", "a very much longer sentence here", "yes"]
    assert chance_word_error_rate(references) <= 1.0
    with pytest.raises(ValueError, match="no reference has a word"):
        chance_word_error_rate(["", "[noise]"])


def test_chance_is_the_least_of_all_guesses_tried_one_by_one():
    generator = np.random.default_rng(3)
    for _ in range(180):
        few = ["", "a", "b b", "a b", "c"][: generator.integers(2, 6)]
        lengths = generator.integers(0, 7, size=generator.integers(1, 9))
        references = [" ".join(generator.choice(few, size)) for size in lengths]
        references.append("d")
        split = [text.split() for text in references]
        total = sum(map(len, split))
        tried = [sum(word_errors(one, guess) for one in split) for guess in [[], *split]]
        assert chance_word_error_rate(references) == pytest.approx(min(tried) / total)


def test_chance_of_a_long_reference_does_not_overflow():
    references = ["no " * 40_000, "no", "no", "no"]  # more than 16 bits count
    assert chance_word_error_rate(references) == pytest.approx(39_999 / 40_003)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("9" * 100_000, 1),
        ("dog (" * 50_000, 50_000),
        ("dog [<" * 50_000, 50_000),
        ("(dog " * 50_000 + ") cat", 1),
        ("dog\u2028" * 100_000, 100_000),
    ],
)
def test_texts_that_no_model_says_end_in_time(text, count):
    assert len(words(text)) == count
