"""Open-ended pairs by a real, small language model: how many of its replies and pairs can be used.

    python -m benchmarks.open_ended_mini [--clips 200] [--out FILE] [--keep DIR]
        [--pairs 3] [--temperature 0.7] [--extra '{"repetition_penalty": 1.05}']

Clips of the mini corpus' plan (sounds, music, speech, both) are made a build of Open-ASQA, without
audio. `python -m ltu_jax.serve` serves SmolLM2-135M-Instruct (assets/weights/smollm2-135m) with
answers by JSON schema; `generate` asks it for some pairs a clip, `filter` accepts or refuses them.
With --keep the same command goes on where it was stopped, and one with more --clips asks about the
new ones alone. The result counts replies that parse whole, pairs, and refusals by reason, and holds
20 accepted pairs, drawn by hash, for somebody to read: no rule knows whether an answer is right.
Fixed before: of at least 200 clips, 60 % of the replies parse whole, and 200 pairs are accepted.
"""

import argparse
import contextlib
import dataclasses
import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import alternate
from benchmarks.served_process import served
from data_pipelines.mini.clip_plan import SIZES, PlannedClip, make_plan
from data_pipelines.open_asqa import __main__ as open_asqa
from data_pipelines.open_asqa import draw
from data_pipelines.open_asqa.build_folder import (
    ACCEPTED,
    BUILD,
    CLIPS,
    FILTER,
    REPLIES,
    SPOKEN_TEXT,
    STYLE,
    BuildFolder,
)
from data_pipelines.open_asqa.open_ended.build_conversations import COUNTS
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.core.jsonl import write_jsonl

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "assets" / "weights" / "smollm2-135m"
OUT = ROOT / "benchmarks" / "results" / "open_ended_mini.json"
TOKENS_A_PAIR = 90
# This model repeats itself. Chosen on `--clips 12`, the first of those that the bar is about.
PENALTY = {"repetition_penalty": 1.05}
# To pass: clips, share of the replies that parse whole, accepted pairs.
LEAST = {"clips": 200, "whole": 0.6, "accepted": 200}
READ = 20  # accepted pairs that the result holds
_SLOT_TOKENS, _AT_ONCE = 1536, 8
_PATIENCE = 3600  # seconds for an answer, whatever else the machine does
_LOG = Path("build/serving/open_ended_mini.log")
# Kind of a planned clip -> the source whose prompt asks about it.
SOURCE_OF = {"sound": "fsd50k", "music": "fma", "speech": "libritts", "joint": "joint_audioset"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of the model, beside the prompts.

    Attributes:
        pairs: a clip.
        temperature: of the draw.
        extra: further fields of every request.
    """

    pairs: int = 3
    temperature: float = 0.7
    extra: Mapping[str, Any] = dataclasses.field(default_factory=lambda: PENALTY)


def main() -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.open_ended_mini",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clips", type=int, default=LEAST["clips"], help="default: %(default)s")
    parser.add_argument("--model", type=Path, default=MODEL, help="weights directory")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the result")
    parser.add_argument("--keep", type=Path, help="folder in which the build stays")
    parser.add_argument("--pairs", type=int, default=Asked.pairs, help="default: %(default)s")
    parser.add_argument("--temperature", type=float, default=Asked.temperature)
    parser.add_argument("--extra", type=json.loads, default=PENALTY, metavar="JSON",
                        help="further fields of every request (default: %(default)s)")  # fmt: skip
    given = parser.parse_args()
    asked = Asked(pairs=given.pairs, temperature=given.temperature, extra=given.extra)
    options = ("--checkpoint", str(given.model), "--max-batch", str(_AT_ONCE),
               "--slot-tokens", str(_SLOT_TOKENS), "--deadline", str(_PATIENCE))  # fmt: skip
    with contextlib.ExitStack() as stack:
        place = given.keep or stack.enter_context(tempfile.TemporaryDirectory())
        folder = make_build(Path(place), clips=given.clips)
        before = answered(folder)
        begun = time.monotonic()
        server = stack.enter_context(served(*options, log=_LOG))
        ready = time.monotonic()
        ask(folder, url=f"{server.url}/v1", model=server.model, asked=asked)
        result = measured(folder) | {
            "model": server.model,
            "asked": dataclasses.asdict(asked) | {"tokens_a_pair": TOKENS_A_PAIR},
            "answered in an earlier run": before,
            "seconds": {
                "until ready": round(ready - begun),
                "until filtered": round(time.monotonic() - ready),
            },
        }
    write_json(given.out, alternate.header() | result)
    print(f"{result['replies that parse whole']} of {result['all replies']} replies parse whole; "
          f"{result['accepted']} of {result['pairs']} pairs are accepted")  # fmt: skip


def make_build(place: Path, *, clips: int) -> BuildFolder:
    """Write a build of so many planned clips, of each kind equally many."""
    folder = BuildFolder(place)
    plan = [entry for entry in make_plan(SIZES["mini"], seed=0) if entry.split == "train"]
    for number, (kind, source) in enumerate(SOURCE_OF.items()):
        count = clips // len(SOURCE_OF) + (number < clips % len(SOURCE_OF))
        chosen = sorted(
            [entry for entry in plan if entry.kind == kind][:count],
            key=lambda entry: entry.clip_id,
        )
        if len(chosen) < count:
            raise UserError(f"--clips {clips}: the plan has {len(chosen)} clips of kind {kind}")
        write_jsonl(
            folder.file(source, CLIPS), [_clip(entry, source).to_json() for entry in chosen]
        )
        texts = [{"clip_id": entry.clip_id, "text": entry.sentence} for entry in chosen]
        write_jsonl(folder.file(source, SPOKEN_TEXT), texts)
        if source == "libritts":
            write_jsonl(folder.file(source, STYLE), [_style(entry) for entry in chosen])
    write_json(place / BUILD, {"seed": 0, "sources": list(SOURCE_OF.values())})
    return folder


def _clip(entry: PlannedClip, source: str) -> SourceClip:
    labels = (entry.sound,) if entry.sound else ()
    return SourceClip(
        source=source,
        clip_id=entry.clip_id,
        dataset=source,
        files=(entry.clip_id,),
        where="clip_plan.py",
        licence="made",
        labels=labels,
        gold_text=entry.sentence if source == "libritts" else "",
        gender=entry.gender,
        genres=(entry.music,) if entry.music else (),
    )


def _style(entry: PlannedClip) -> dict[str, Any]:
    named = {"slow": "slow", "fast": "fast", "quiet": "low", "loud": "high"}
    style = {"speed": named.get(entry.tempo), "volume": named.get(entry.level)}
    return {"clip_id": entry.clip_id} | {name: value for name, value in style.items() if value}


def answered(folder: BuildFolder) -> int:
    """Return how many requests the folder has an answer to."""
    path = folder.root / REPLIES
    if not path.is_file():
        return 0
    with open_ledger(path, send=False) as ledger:
        return ledger.calls_by_state().get("answered", 0)


def ask(folder: BuildFolder, *, url: str, model: str, asked: Asked) -> None:
    """Let the model write pairs, and filter them."""
    root = str(folder.root)
    open_asqa.command(
        [
            *("generate", root, "--endpoint", url, "--model", model, "--pairs", str(asked.pairs)),
            *("--tokens-a-pair", str(TOKENS_A_PAIR), "--temperature", str(asked.temperature)),
            *("--extra", json.dumps(dict(asked.extra))),
            *("--workers", str(_AT_ONCE), "--timeout", str(_PATIENCE), "--tries", "1"),
            "--patterns",
        ]
    )
    open_asqa.command(["filter", root])


def measured(folder: BuildFolder) -> dict[str, Any]:
    """Return the counts of all sources together, and those of each."""
    total: Counter[str] = Counter()
    given_up: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    sources = {}
    for source in folder.sources():
        asked = read_json(folder.file(source, COUNTS))
        found = read_json(folder.file(source, FILTER))
        sources[source] = {"generate": asked, "filter": found}
        total.update({name: value for name, value in asked.items() if isinstance(value, int)})
        total["accepted"] += found["accepted"]
        given_up.update(asked["given up"])
        refused.update(found["refused"])
    total["all replies"] = total["replies"] + given_up.total()  # those without any pair, too
    return {
        **total,
        "given up": dict(given_up.most_common()),
        "refused": dict(refused.most_common()),
        "least": LEAST,
        "passed": passed(total),
        "to read": to_read(folder),
        "sources": sources,
    }


def to_read(folder: BuildFolder) -> list[dict[str, Any]]:
    """Return accepted pairs with what their clips are, drawn by hash."""
    pairs = {}
    for source in folder.sources():
        clips = {clip.clip_id: clip for clip in folder.clips(source)}
        for number, line in enumerate(folder.lines(source, ACCEPTED)):
            clip = clips[line["clip_id"]]
            said = {"labels": clip.labels, "genres": clip.genres, "spoken text": clip.gold_text}
            pairs[f"{source} {number}"] = {name: value for name, value in said.items() if value} | {
                name: line[name] for name in ("clip_id", "question", "answer")
            }
    drawn = draw.lowest(list(pairs), READ, seed="to read")
    return [pairs[name] for name in sorted(drawn)]


def passed(total: Mapping[str, int]) -> bool | None:
    """Tell whether the counts reach what was fixed before; None of fewer clips."""
    if total["clips"] < LEAST["clips"]:
        return None
    whole = total["replies that parse whole"] >= LEAST["whole"] * total["all replies"]
    return whole and total["accepted"] >= LEAST["accepted"]


if __name__ == "__main__":
    errors.main(main)
