"""The metrics of every task but captions, and the factories of those that a benchmark settles."""

import math

from ltu_jax.evaluation.datasets.item import Task
from ltu_jax.evaluation.scoring.attributes import MACRO_F1, MAE
from ltu_jax.evaluation.scoring.choices import Official, choice_metrics
from ltu_jax.evaluation.scoring.classification import (
    BOTH_RIGHT,
    classification_metrics,
    multilabel_metrics,
)
from ltu_jax.evaluation.scoring.free import JUDGE_SCORE, REFUSAL_RATE, SIMILARITY
from ltu_jax.evaluation.scoring.interface import AnswerScore, Metric
from ltu_jax.evaluation.scoring.paper import Part
from ltu_jax.evaluation.scoring.spoken import WER, WER_VS_WHISPER

__all__ = [
    "METRICS",
    "WER_VS_WHISPER",
    "Official",
    "Part",
    "choice_metrics",
    "classification_metrics",
    "differs",
    "multilabel_metrics",
]

METRICS: dict[Task, tuple[Metric, ...]] = {
    Task.CLASSIFICATION: classification_metrics(),
    Task.MULTILABEL: multilabel_metrics(),
    Task.SPOKEN_TEXT: (WER,),
    Task.GENDER: (MACRO_F1,),
    Task.AGE: (MAE,),
    Task.CHOICE: choice_metrics(Official.MMAU),
    Task.OPEN: (JUDGE_SCORE, SIMILARITY, REFUSAL_RATE),
    Task.CLASS_AND_WORDS: (BOTH_RIGHT,),
}

# Below the rounding of float32 embeddings, whose batches differ where a rule drops answers.
_SAME = 1e-5


def differs(a: AnswerScore, b: AnswerScore) -> bool:
    """Tell whether two rules score an answer differently; left out differs from any score."""
    if a.value is None or b.value is None:
        return a.value is not b.value
    return not math.isclose(a.value, b.value, rel_tol=0, abs_tol=_SAME)
