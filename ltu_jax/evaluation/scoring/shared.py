"""Parts that the rules of all tasks share: scores of common shape, names, texts as vectors."""

from collections.abc import Callable, Sequence

import numpy as np

from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import Item
from ltu_jax.evaluation.scoring.interface import (
    Answered,
    AnswerScore,
    Embedder,
    NotComputedError,
    Status,
    Tools,
)


def named(name: str) -> Callable[[Tools], str]:
    """Return a `ScoringRule.describe` for a figure that needs no tool."""
    return lambda tools: name


def by_embedder(name: str) -> Callable[[Tools], str]:
    """Return a `ScoringRule.describe` that adds the name of the embedder."""
    return lambda tools: f"{name} ({tools.embedder.name if tools.embedder else 'text embedding'})"


def one_by_one(
    score: Callable[[Answered], AnswerScore],
) -> Callable[[Sequence[Answered], Tools], list[AnswerScore]]:
    """Return a `ScoringRule.grade` that looks at each answer alone and needs no tool."""
    return lambda answers, tools: [score(answered) for answered in answers]


def dropped(status: Status) -> AnswerScore:
    """Return the score of an answer that an official rule leaves out of its figure."""
    return AnswerScore(parsed=None, status=status, value=None, counts=())


def right_or_wrong(parsed: str | None, *, right: bool, status: Status) -> AnswerScore:
    """Return a score whose figure is `bootstrap.ratio`: the share of right answers."""
    return AnswerScore(parsed=parsed, status=status, value=float(right), counts=(float(right), 1.0))


def checked_label(item: Item, known: Sequence[str]) -> str:
    """Return the item's label.

    Raises:
        UserError: it is not among `known`, so no answer could be right.
    """
    if item.label not in known:
        raise UserError(
            f"item {item.item_id!r}: the reference {item.label!r} is not among {list(known)[:10]}: "
            "correct the reference or the choices"
        )
    return item.label


def embedder_of(tools: Tools, *, purpose: str) -> Embedder:
    """Return the embedder.

    Raises:
        NotComputedError: there is none.
    """
    if tools.embedder is None:
        raise NotComputedError(
            f"{purpose} needs a text embedder: python -m ltu_jax.fetch all-minilm-l6-v2, or "
            "--embedder"
        )
    return tools.embedder


def vectors(embedder: Embedder, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
    """Return unit vectors of texts, each distinct text embedded once."""
    if not texts:
        return np.zeros((0, 0))
    distinct = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(distinct)}
    return np.asarray(embedder(distinct))[[place[text] for text in texts]]
