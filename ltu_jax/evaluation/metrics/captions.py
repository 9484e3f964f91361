"""Closeness of a caption to human ones, on words: BLEU, ROUGE-L, CIDEr-D, and METEOR's sums.

All take tokens, as the Penn Treebank tokenizer cuts them (`metrics/java.py`). The counts and scores
of single captions are those of coco-caption (the package pycocoevalcap, which the tokenizer comes
with); here is what makes figures of summed counts, so that a bootstrap can resample them.
"""

from collections.abc import Sequence

import numpy as np

Tokens = Sequence[str]

# coco-caption's: they keep a caption without any match at (almost) 0 instead of dividing by 0.
_BLEU_TINY = 1e-15
_BLEU_SMALL = 1e-9
# METEOR 1.5, English, the jar's own constants: weight of precision against recall, exponent and
# weight of the fragmentation penalty, weight of content against function words; then of exact,
# stem, synonym and paraphrase matches.
_METEOR_ALPHA, _METEOR_BETA, _METEOR_GAMMA, _METEOR_DELTA = 0.85, 0.2, 0.6, 0.75
_METEOR_STAGES = np.array([1.0, 0.6, 0.8, 0.6])


def bleu_counts(candidate: Tokens, references: Sequence[Tokens], *, n: int) -> tuple[float, ...]:
    """Return what a caption adds to the sums of BLEU-n: matches of 1..n words, n-grams, length.

    An n-gram matches as often as the reference that has most of it. The length is that of the
    reference closest in length, the shorter of two equally close.

    Args:
        candidate: the caption.
        references: the human captions, at least one.
        n: the longest n-grams.

    Returns:
        2 n + 1 counts, which `bleu` takes.
    """
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    cooked = cook_refs([" ".join(words) for words in references], n=n)
    counts = cook_test(" ".join(candidate), cooked, eff="closest", n=n)
    return tuple(map(float, (*counts["correct"], *counts["guess"], counts["reflen"])))


def bleu(sums: np.ndarray) -> np.ndarray:
    """Return BLEU of a corpus from the sums of `bleu_counts` [..., 2 n + 1]: 0 to 1."""
    n = (sums.shape[-1] - 1) // 2
    matches, totals, expected = sums[..., :n], sums[..., n : 2 * n], sums[..., -1]
    precision = np.prod((matches + _BLEU_TINY) / (totals + _BLEU_SMALL), axis=-1) ** (1 / n)
    length = (totals[..., 0] + _BLEU_TINY) / (expected + _BLEU_SMALL)
    return precision * np.exp(np.minimum(0.0, 1 - 1 / length))


def rouge_l(candidate: Tokens, references: Sequence[Tokens]) -> float:
    """Return ROUGE-L of a caption, 0 to 1: F of the longest common subsequence.

    Precision and recall are each the best over the references, recall weighing more. An empty
    caption has 0, against an empty reference too.
    """
    from pycocoevalcap.rouge.rouge import Rouge

    if not candidate:  # to coco-caption an empty text is one empty word
        return 0.0
    return float(
        Rouge().calc_score([" ".join(candidate)], [" ".join(reference) for reference in references])
    )


def cider_d(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> list[float]:
    """Return CIDEr-D of each caption, 0 to 10: cosine of rare n-grams with each reference.

    How rare an n-gram is comes from the references of all items given, so the value of one caption
    depends on which others are evaluated with it; of a single item it is 0.

    Raises:
        ValueError: `candidates` and `references` differ in number.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    scorer = CiderScorer()
    for candidate, group in zip(candidates, references, strict=True):
        scorer += (" ".join(candidate), [" ".join(words) for words in group])
    if not any(words for group in references for words in group):
        return [0.0] * len(candidates)
    return scorer.compute_score()[1].tolist()


def meteor(sums: np.ndarray) -> np.ndarray:
    """Return METEOR 1.5 of a corpus from the sums of `java.meteor_counts` [..., 23]: 0 to 1.

    The jar's own `EVAL` does the same to what it is given. The counts are words of caption and
    reference; function words of both; for exact, stem, synonym and paraphrase matches, content
    words of both and function words of both; chunks; matched words of both.
    """
    lengths, functions = sums[..., 0:2], sums[..., 2:4]
    stages = sums[..., 4:20].reshape(*sums.shape[:-1], 4, 2, 2)  # kind, content/function, side
    chunks, matched = sums[..., 20], sums[..., 21:23]
    weights = np.array([_METEOR_DELTA, 1 - _METEOR_DELTA])
    totals = np.einsum("...kws,k,w->...s", stages, _METEOR_STAGES, weights)
    words = weights[0] * (lengths - functions) + weights[1] * functions
    share = _divide(totals, words)  # precision, recall
    against = np.array([1 - _METEOR_ALPHA, _METEOR_ALPHA])
    mean = _divide(1.0, _divide(against, share, empty=np.inf).sum(axis=-1))
    fragments = _divide(chunks, matched.mean(axis=-1))
    return np.maximum(mean * (1 - _METEOR_GAMMA * fragments**_METEOR_BETA), 0.0)


def _divide(above, below, *, empty: float = 0.0) -> np.ndarray:
    """Return the quotient, with `empty` where there is nothing to divide by."""
    above, below = np.broadcast_arrays(np.asarray(above, dtype=np.float64), below)
    return np.divide(above, below, out=np.full(below.shape, empty), where=below > 0)
