"""The parity certificate of a shipped model: what it computes and answers, beside the run's.

Both compute in float32 on this device; all that differs is the adapter, rounded to bfloat16 in the
shipped form. The clip, tokens and questions are fixed, and no clip of anybody is needed.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ltu_jax import inference
from ltu_jax.core.axes import Float, Int
from ltu_jax.weights import fingerprint
from ltu_jax.weights.open import open_model
from ltu_jax.weights.parity import certificate, modules

ANSWERS = "answers"  # the key of a certificate that has them
QUESTIONS = (
    "What do you hear?",
    "Is there music?",
    "What can be inferred from the audio?",
)
_AGAINST = "the run"
_STORED = "bfloat16"  # of the adapter; its tolerance is that of a module that computes so
_TOKENS, _NEW = 32, 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Computed:
    """What a model makes of the fixed clip: audio features, logits, and answers by question."""

    features: Float[np.ndarray, "W A D"]
    logits: Float[np.ndarray, "T V"]
    answers: Mapping[str, tuple[int, ...]]
    texts: Mapping[str, str]


def compute(path: Path) -> Computed:
    """Load a model and let it compute; nothing of it stays in memory."""
    model = inference.load(path)
    samples = fingerprint.clip()
    features = model.audio_features(samples)
    ids = _ids(model.config.llama.vocab_size)
    logits = model.logits(ids, np.ones_like(ids), features[None], layout="inference")
    answers, texts = {}, {}
    for question in QUESTIONS:
        # What is said is given: it is the language model that is compared, not the transcriber.
        given = model.answer(samples, question, spoken_text="", max_new_tokens=_NEW)
        answers[question], texts[question] = given.tokens, given.text
    return Computed(
        features=features, logits=np.asarray(logits[0], np.float32), answers=answers, texts=texts
    )


def certify(shipped: Path, *, ours: Computed, run: Computed) -> dict[str, Any]:
    """Return the certificate of a shipped folder.

    Args:
        shipped: the folder.
        ours: computed by it.
        run: computed by the run that it was made of.
    """
    rows = list(_rows(ours, run))
    written = certificate.document(
        open_model(shipped),
        rows,
        dtype=_STORED,
        precision="highest" if jax.config.jax_default_matmul_precision == "highest" else None,
        reference="the run's own checkpoint, in float32",
    )
    differing = [
        {"question": question, "run": run.texts[question], "shipped": ours.texts[question]}
        for question in QUESTIONS
        if ours.answers[question] != run.answers[question]
    ]
    return written | {ANSWERS: {"asked": len(QUESTIONS), "differing": differing}}


def _rows(ours: Computed, run: Computed) -> Iterator[modules.ModuleError]:
    for name in ("features", "logits"):
        pair = getattr(ours, name), getattr(run, name)
        yield modules.row(name, *pair, against=_AGAINST, dtype=_STORED)


def _ids(vocabulary: int) -> Int[np.ndarray, "1 T"]:
    """Return fixed random tokens."""
    share = (fingerprint.random_numbers(_TOKENS, start=1 << 20) + 1) / 2
    return (share * vocabulary).astype(np.int32)[None]
