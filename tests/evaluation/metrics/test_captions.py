"""BLEU, ROUGE-L, CIDEr-D and METEOR against pycocoevalcap (coco-caption) on random captions."""

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

from ltu_jax.evaluation.metrics import captions, java

# Few words, so that n-grams meet; with inflections and synonyms, which METEOR matches.
WORDS = (
    *("a", "the", "is", "of", "and", "while", "dog", "dogs", "barks", "barking"),
    *("car", "automobile", "loud", "loudly", "rain", "wind"),
)
ITEMS = 250
EXACT = 1e-9


@pytest.fixture(scope="module")
def corpus() -> list[java.Pair]:
    """Random captions with 1 to 5 references; among them empty, one-word and repetitive ones."""
    generator = np.random.default_rng(5)

    def caption(kind: int) -> tuple[str, ...]:
        length = (0, 1, int(generator.integers(2, 13)))[min(kind, 2)]
        pool = WORDS if kind != 3 else list(generator.choice(WORDS, 2))
        return tuple(str(word) for word in generator.choice(pool, length))

    pairs = []
    for _ in range(ITEMS):
        references = tuple(
            caption(int(generator.choice(6, p=[0.02, 0.05, 0.6, 0.13, 0.1, 0.1])))
            for _ in range(generator.integers(1, 6))
        )
        pairs.append((caption(int(generator.choice(4, p=[0.1, 0.1, 0.6, 0.2]))), references))
    return [*pairs, (WORDS[4:9], (WORDS[4:9], WORDS[:3]))]


def as_coco(pairs):
    references = {i: [" ".join(words) for words in group] for i, (_, group) in enumerate(pairs)}
    candidates = {i: [" ".join(own)] for i, (own, _) in enumerate(pairs)}
    return references, candidates


def parts(pairs, count: int):
    """Random parts of the corpus, of 1 to 40 captions."""
    generator = np.random.default_rng(7)
    for _ in range(count):
        chosen = generator.choice(len(pairs), generator.integers(1, 41), replace=False)
        yield [pairs[place] for place in chosen]


def test_bleu_of_captions_and_of_corpora_equals_coco_caption(corpus):
    expected, each = Bleu(4).compute_score(*as_coco(corpus), verbose=0)
    for n in (1, 2, 3, 4):
        counts = np.array([captions.bleu_counts(*pair, n=n) for pair in corpus])
        assert captions.bleu(counts) == pytest.approx(np.array(each[n - 1]), rel=EXACT, abs=EXACT)
        assert captions.bleu(counts.sum(axis=0)) == pytest.approx(expected[n - 1], rel=EXACT)


def test_bleu_of_random_parts_equals_coco_caption(corpus):
    for part in parts(corpus, 200):
        expected, _ = Bleu(4).compute_score(*as_coco(part), verbose=0)
        sums = np.sum([captions.bleu_counts(*pair, n=4) for pair in part], axis=0)
        assert captions.bleu(sums) == pytest.approx(expected[3], rel=EXACT, abs=EXACT)


def test_bleu_takes_the_shorter_of_two_equally_close_references():
    counts = captions.bleu_counts(tuple("abc"), [tuple("abcd"), tuple("ab")], n=1)
    assert counts == (3.0, 3.0, 2.0)


def test_bleu_takes_all_resamples_at_once(corpus):
    counts = np.array([captions.bleu_counts(*pair, n=4) for pair in corpus])
    draws = np.random.default_rng(0).integers(0, 3, size=(5, len(corpus)))
    together = captions.bleu(draws @ counts)
    assert together == pytest.approx([float(captions.bleu(one @ counts)) for one in draws])


def test_rouge_l_equals_coco_caption(corpus):
    _, expected = Rouge().compute_score(*as_coco(corpus))
    # There an empty text is one empty word, so that nothing matches nothing; here it is worth 0.
    empty = [not own and () in group for own, group in corpus]
    found = np.array([captions.rouge_l(*pair) for pair in corpus])
    assert found == pytest.approx(np.where(empty, 0.0, expected), rel=EXACT, abs=EXACT)
    assert 0 < sum(empty) < 20


def test_cider_d_equals_coco_caption(corpus):
    expected, each = Cider().compute_score(*as_coco(corpus))
    own, references = zip(*corpus, strict=True)
    found = captions.cider_d(own, references)
    assert found == pytest.approx(list(each), rel=EXACT, abs=EXACT)
    assert np.mean(found) == pytest.approx(expected, rel=EXACT)
    assert max(found) > 1


def test_cider_d_of_random_parts_equals_coco_caption(corpus):
    for part in parts(corpus, 50):
        _, each = Cider().compute_score(*as_coco(part))
        own, references = zip(*part, strict=True)
        assert captions.cider_d(own, references) == pytest.approx(list(each), rel=EXACT, abs=EXACT)


def test_cider_d_wants_references_for_each_caption():
    with pytest.raises(ValueError, match="argument"):
        captions.cider_d([("a",)], [[("a",)], [("b",)]])


@pytest.fixture(scope="module")
def meteor_of_coco():
    """One METEOR process for all tests: it takes seconds to start."""
    scorer = Meteor()
    yield scorer
    scorer.meteor_p.stdin.close()


def test_meteor_of_captions_and_of_corpora_equals_the_jar(corpus, meteor_of_coco):
    counts = np.array(java.meteor_counts(corpus))
    expected, each = meteor_of_coco.compute_score(*as_coco(corpus))
    assert counts.shape == (len(corpus), java.METEOR_COUNTS)
    assert captions.meteor(counts) == pytest.approx(np.array(each), rel=EXACT, abs=EXACT)
    assert captions.meteor(counts.sum(axis=0)) == pytest.approx(expected, rel=EXACT)
    assert each[-1] == 1.0  # all words, in one chunk


def test_meteor_of_random_parts_equals_the_jar(corpus, meteor_of_coco):
    for part in parts(corpus, 25):
        counts = np.array(java.meteor_counts(part))
        expected, _ = meteor_of_coco.compute_score(*as_coco(part))
        assert captions.meteor(counts.sum(axis=0)) == pytest.approx(expected, rel=EXACT, abs=EXACT)


def test_meteor_of_wholly_matched_captions_is_not_fragmented(corpus, meteor_of_coco):
    # The jar counts no chunk of a caption equal to its reference when it sums.
    part = [corpus[-1], corpus[-1], corpus[0]]
    expected, _ = meteor_of_coco.compute_score(*as_coco(part))
    sums = np.sum(java.meteor_counts(part), axis=0)
    assert captions.meteor(sums) == pytest.approx(expected, rel=EXACT)


def test_meteor_of_nothing_is_zero():
    assert captions.meteor(np.zeros((2, java.METEOR_COUNTS))) == pytest.approx([0.0, 0.0])


def test_references_without_a_word_are_worth_nothing():
    assert captions.cider_d([("a",), ()], [[()], [(), ()]]) == [0.0, 0.0]
    assert captions.rouge_l(("a",), [()]) == 0.0
