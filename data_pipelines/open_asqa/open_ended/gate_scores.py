"""Scores of pairs by other models, kept for good: `filter` compares them with thresholds."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipelines.open_asqa.open_ended.pair_json import QuestionAnswer
from data_pipelines.open_asqa.registry import SOURCES
from ltu_jax.clients.reply_cache import ReplyCache, key

SCORES = "scores.sqlite"
CLAP = "clap"
AGREEMENT = "agreement"
CONSISTENCY = "consistency"
GATES = (CLAP, AGREEMENT, CONSISTENCY)
_OF_WORDS = ("joint_audioset", "fma")  # what is said or sung matters, which CLAP does not know


def gate_applies(gate: str, source: str) -> bool:
    """Tell whether pairs of a source have this score: CLAP's is for sounds only."""
    return gate != CLAP or not (SOURCES[source].speech or source in _OF_WORDS)


class GateScores:
    """The scores of the pairs of a build."""

    def __init__(self, root: Path):
        self._cache = ReplyCache(root / SCORES)

    def get(
        self, gate: str, clips: Sequence[tuple[str, str, QuestionAnswer]], *, by: str | None = None
    ) -> list[float | None]:
        """Return the score of each (source, clip, pair); None where there is none.

        Args:
            gate: one of `GATES`.
            clips: the pairs.
            by: only scores of this model; None for any.
        """
        if not self._cache.path.is_file():
            return [None] * len(clips)
        names = [_name(gate, *clip) for clip in clips]
        found = {name: json.loads(value) for name, value in self._cache.get(names).items()}
        return [
            found[name]["score"] if name in found and by in (None, found[name]["by"]) else None
            for name in names
        ]

    def put(
        self, gate: str, scores: Mapping[tuple[str, str, QuestionAnswer], float], *, by: str
    ) -> None:
        """Keep scores, in place of those of other models."""
        self._cache.put(
            {
                _name(gate, *clip): json.dumps({"score": round(score, 4), "by": by}).encode()
                for clip, score in scores.items()
            }
        )


def _name(gate: str, source: str, clip_id: str, pair: QuestionAnswer) -> str:
    return key("gate", gate, source, clip_id, pair.question, pair.answer)
