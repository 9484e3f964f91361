"""Closed-ended answers: confusion counts, macro-F1, and chance levels."""

from collections import Counter
from collections.abc import Sequence

import numpy as np


def confusion_counts(
    truth: Sequence[str], predicted: Sequence[str | None], *, classes: Sequence[str]
) -> np.ndarray:
    """Return a flat confusion matrix per sample, [n, K * (K + 1)]; its last column is unparsed."""
    k = len(classes)
    place = {name: index for index, name in enumerate(classes)}
    counts = np.zeros((len(truth), k, k + 1))
    for row, (true, guess) in enumerate(zip(truth, predicted, strict=True)):
        counts[row, place[true], k if guess is None else place[guess]] = 1
    return counts.reshape(len(truth), k * (k + 1))


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """Return mean F1 over the classes that occur, from summed confusion counts [..., K * (K + 1)].

    An unparsed answer is a miss of its true class and a false alarm of none. A class neither true
    nor predicted anywhere (possible in a resample) has no F1 and is left out, as scikit-learn does.
    """
    k = round((np.sqrt(1 + 4 * sums.shape[-1]) - 1) / 2)
    table = sums.reshape(*sums.shape[:-1], k, k + 1)
    right = np.einsum("...kk->...k", table[..., :k])
    relevant = table.sum(axis=-1) + table[..., :k].sum(axis=-2)
    f1 = np.divide(2 * right, relevant, out=np.zeros_like(right), where=relevant > 0)
    return f1.sum(axis=-1) / np.maximum((relevant > 0).sum(axis=-1), 1)


def chance_accuracy(truth: Sequence[str], choices: Sequence[Sequence[str]]) -> float:
    """Return the accuracy of the best constant answer to each distinct set of choices.

    Never below a uniform guess over the choices, and equal to it when the classes are balanced.
    """
    tallies: dict[frozenset[str], Counter[str]] = {}
    for true, among in zip(truth, choices, strict=True):
        tallies.setdefault(frozenset(among), Counter())[true] += 1
    return sum(max(tally.values()) for tally in tallies.values()) / len(truth)


def chance_macro_f1(truth: Sequence[str], *, classes: Sequence[str]) -> float:
    """Return macro-F1 of a blind guess: uniform (in expectation) or constant, the better one.

    Uniform guessing hits a class of share p with precision p and recall 1/K, so its F1 from
    expected counts is 2p/K / (p + 1/K).
    """
    share = np.array([truth.count(name) / len(truth) for name in classes])
    share = share[share > 0]
    uniform = np.mean(2 * share / len(classes) / (share + 1 / len(classes)))
    constant = 2 * share.max() / (share.max() + 1) / len(share)
    return float(max(uniform, constant))
