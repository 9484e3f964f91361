"""The Stanford tokenizer against pycocoevalcap's, and what is said where Java is missing."""

import sys

import numpy as np
import pytest
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from ltu_jax.evaluation.metrics import java
from ltu_jax.evaluation.scoring.interface import NotComputedError

PIECES = (
    "A", "dog", "Dog's", "barks,", "don't", "(loudly)", "[sic]", '"quoted"', "\u201csmart\u201d",
    "and/or", "well-known", "...", "--", "-", "!", "?", ":", ";", "10:30", "3.5", "$5", "50%", "&",
    "caf\u00e9", "\u00e9", "\u2014", "a.m.", "U.S.", "x|y", "'", "`", "http://x.y/z", "can't.",
    "gonna", "#tag", "@", "it's", "\u266b", "Mr.", "rains.It", "'tis", "1/2", "\\", "*", "<b>",
)  # fmt: skip


def test_tokens_equal_pycocoevalcap():
    generator = np.random.default_rng(11)
    texts = ["", " ", ".", "\n", "one", "line\nfeed"] + [
        " ".join(generator.choice(PIECES, generator.integers(0, 14))) for _ in range(250)
    ]
    expected = PTBTokenizer().tokenize({i: [{"caption": one}] for i, one in enumerate(texts)})
    found = java.ptb_tokens(texts)
    # "5 1/2" is one token with a no-break space there, which its BLEU and CIDEr cut in two again.
    joined = [expected[i][0].replace("\u00a0", " ") for i in range(len(texts))]
    assert [" ".join(words) for words in found] == joined


def test_each_caption_stays_on_its_line_whatever_characters_it_has():
    odd = ["a\u2028b", "c\x0bd\x0ce", "f\rg\r\nh", "i\x85j", "k\x00l", "\ud83d m", "n\u00a0o", ""]
    assert java.ptb_tokens([*odd, "the end"])[-1] == ("the", "end")
    assert java.ptb_tokens(odd[:4]) == [("a", "b"), ("c", "d", "e"), ("f", "g", "h"), ("i", "j")]


def test_known_texts_are_not_sent_again(monkeypatch):
    first = java.ptb_tokens(["Sent once.", "Sent once.", "And another."])
    monkeypatch.setattr(java, "run_java", None)  # would fail if it was called
    assert java.ptb_tokens(["And another.", "Sent once."]) == [first[2], first[0]]


def test_without_java_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(NotComputedError, match="apt install default-jre-headless.*pycocoevalcap"):
        java.ptb_tokens(["never tokenized before 1"])
    with pytest.raises(NotComputedError, match="^METEOR runs in Java and no java"):
        java.meteor_counts([(("never", "aligned"), (("before",),))])


def test_a_wrong_java_home_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(NotComputedError, match=f"JAVA_HOME is {tmp_path}, which has no bin/java"):
        java.java_version()


def test_without_the_package_the_message_says_so(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "pycocoevalcap"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(NotComputedError, match="not installed; .* pip install pycocoevalcap"):
        java.ptb_tokens(["never tokenized before 2"])


def test_what_java_says_when_it_fails_is_passed_on():
    with pytest.raises(NotComputedError, match="METEOR ended with status 1: .*NoSuchClass"):
        java.run_java(["-cp", "nowhere", "NoSuchClass"], program="METEOR", stdin="", seconds=60)


def test_a_java_that_does_not_end_is_stopped():
    with pytest.raises(NotComputedError, match="did not end within 0 s"):
        java.run_java(["-version"], program="METEOR", stdin="", seconds=0)


def test_java_version_is_a_number():
    assert java.java_version() >= 8
