"""What can be wrong with data, how much of it is tolerated, and what was found."""

import dataclasses
from collections.abc import Mapping

from data_pipelines.records.quarantine import MAX_SHARE
from ltu_jax.core.errors import UserError

_EXAMPLES = 50  # kept of each check; all are counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """`limit` is the share of `of` that may be so; 1 for a note that never fails."""

    title: str
    of: str
    limit: float


CHECKS = {
    "rows": Check(title="rows that break the format", of="pairs", limit=0),
    "shards": Check(title="shards that are not as written", of="shards", limit=0),
    "foreign": Check(title="foreign files among the shards", of="files", limit=1),
    "damaged": Check(title="damaged records", of="clips", limit=0),
    "quarantined": Check(title="left out when written", of="clips", limit=MAX_SHARE),
    "missing": Check(title="audio missing", of="clips", limit=0),
    "corrupt": Check(title="audio that cannot be decoded", of="clips", limit=0),
    "short": Check(title="audio too short to say much", of="clips", limit=0.01),
    "silent": Check(title="silent audio", of="clips", limit=0.001),
    "clipped": Check(title="clipped audio", of="clips", limit=0.05),
    "dropouts": Check(title="gaps of digital silence", of="clips", limit=1),
    "unheard": Check(title="audio beyond the 10 s window", of="clips", limit=1),
    "twins": Check(title="the same audio again in a split", of="clips", limit=0.01),
    "leaked_audio": Check(title="audio of training in val or test", of="clips", limit=0),
    "leaked_text": Check(title="spoken text of training in val or test", of="clips", limit=0),
    "shared_answers": Check(title="long answers of training in val or test", of="pairs", limit=1),
    "no_pairs": Check(title="clips that nothing is asked about", of="clips", limit=1),
    "repeated": Check(title="the same question and answer again", of="pairs", limit=0.01),
    "contradictions": Check(title="the same question, another answer", of="pairs", limit=0.01),
    "unanswerable": Check(title="answers that say there is none", of="pairs", limit=0.05),
    "cut": Check(title="pairs cut at the cut-off", of="pairs", limit=0.05),
    "answers_gone": Check(title="answers of which the cut-off leaves nothing", of="pairs", limit=0),
    "no_token": Check(title="answers that are no token", of="pairs", limit=0),
    "unknown_tags": Check(title="tags outside tag_labels.json", of="clips", limit=0),
    "no_licence": Check(title="licence unknown", of="clips", limit=1),
}


class Findings:
    """Counts and first examples of each check."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(CHECKS, 0)
        self.examples: dict[str, list[dict[str, str]]] = {name: [] for name in CHECKS}

    def add(self, check: str, *, where: str, detail: str) -> None:
        """Count one; `detail` is said about `where`."""
        self.counts[check] += 1
        if len(self.examples[check]) < _EXAMPLES:
            self.examples[check].append({"where": where, "what": detail})


def verdicts(
    findings: Findings, *, totals: Mapping[str, int], limits: Mapping[str, float]
) -> list[dict]:
    """List every check with its count, share and limit, and whether it is within the limit."""
    rows = []
    for name, check in CHECKS.items():
        count, limit = findings.counts[name], limits.get(name, check.limit)
        of = max(totals.get(check.of, 0), count)
        share = count / of if of else 0.0
        rows.append(
            {
                "name": name,
                "title": check.title,
                "found": count,
                "of": of,
                "unit": check.of,
                "share": share,
                "limit": limit,
                "ok": share <= limit,
                "examples": findings.examples[name],
            }
        )
    return rows


def read_limits(given: list[str]) -> dict[str, float]:
    """Read `NAME=SHARE` of the command line; `UserError` for an unknown name or no share."""
    limits = {}
    for text in given:
        name, _, share = text.partition("=")
        if name not in CHECKS:
            raise UserError(f"--limit {text}: no check {name!r}; there are {', '.join(CHECKS)}")
        try:
            limits[name] = float(share)
        except ValueError:
            raise UserError(f"--limit {text}: give {name}=SHARE, a share from 0 to 1") from None
        if not 0 <= limits[name] <= 1:
            raise UserError(f"--limit {text}: a share lies between 0 and 1")
    return limits
