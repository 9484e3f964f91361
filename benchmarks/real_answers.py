"""What a model answers about held-out recordings and voices, beside its own tag head.

    python -m benchmarks.real_answers [--run runs/real] [--corpus data/real] [--records DIR]

The answers are those of `python -m ltu_jax.evaluate --benchmarks real`, which
`ltu_jax.make_pretrained` has run (RUN/eval, RUN/summary.json). The tag head of RUN/tagging hears
the same recordings, each alone in a window: the group of its highest label counts, once as it is
and once with half the log-odds of the training side taken off (as in `benchmarks.real_tags`). The
bars were fixed before anything was measured.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import alternate
from benchmarks.real_tags import FREQUENT, best_groups, head, log_odds
from data_pipelines.real import window_corpus
from data_pipelines.records.record_files import RecordStore
from ltu_jax.core import errors, provenance
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.core.jsonl import read_jsonl
from ltu_jax.evaluation.datasets.item import EvaluationMode
from ltu_jax.evaluation.metrics import bootstrap
from ltu_jax.evaluation.run.samples import GREEDY, SampleKey, read_samples
from ltu_jax.evaluation.scoring import sound_groups

OUT = Path("benchmarks/results/real_answers.json")
BELOW = 0.05  # that the model's own answers may be below its tag head
# row, sense, value: what the joint input must reach
BARS = (
    ("presence_affirmed", ">=", 0.75),
    ("presence_denied", ">=", 0.80),
    ("gender", ">=", 0.95),
    ("joint_questions", ">=", 0.60),
)
_JOINT, _CONTROLS = "joint", ("text", "shuffled", "silence")


def heard_alone(evaluated: Path) -> list[dict[str, Any]]:
    """Return the held-out recordings that were asked about, with the group of each answer.

    Raises:
        UserError: no such run, or answers are missing.
    """
    samples = read_samples(evaluated)
    rows = []
    for _, item in read_jsonl(evaluated / "items.jsonl"):
        if item["row"] != "sound":
            continue
        row = {name: item[name] for name in ("item_id", "clip_id", "cluster")}
        row |= {"group": item["references"][0]}
        for mode in (_JOINT, *_CONTROLS):
            key = SampleKey(
                item_id=item["item_id"], mode=EvaluationMode(mode), decoding=GREEDY, draw=0
            )
            if key not in samples:
                raise UserError(
                    f"{evaluated}: {item['item_id']} has no answer of mode {mode}: let evaluate "
                    "go on with all modes"
                )
            row[mode] = sound_groups.named_group(samples[key]["output"])
        rows.append(row)
    if not rows:
        raise UserError(f"{evaluated} is no run of `evaluate --benchmarks real`")
    return rows


def add_head(
    rows: Sequence[dict[str, Any]], *, tagging: Path, corpus: Path, records: Path
) -> Counter[str]:
    """Add what the tag head hears to each row; return the windows of each group of training."""
    labels, logits = head(tagging)
    clips = {line["clip_id"]: line for _, line in read_jsonl(corpus / window_corpus.CLIPS)}
    learnt = [clip for clip in clips.values() if clip["split"] == "train"]
    usual = FREQUENT * log_odds(learnt, folder=corpus, labels=labels)
    store = RecordStore(records, split="val")
    features = np.stack([store.read(store.find(row["clip_id"])).features for row in rows])
    found = logits(features)
    for way, values in (("head", found - usual), ("head, plain", found)):
        for row, group in zip(rows, best_groups(values, labels), strict=True):
            row[way] = group
    return Counter(group for clip in learnt for group in clip["labels"]["groups"])


def share(rows: Sequence[Mapping[str, Any]], way: str, *, less: str = "") -> dict[str, float]:
    """Return how often `way` names the group, or how much oftener than `less`, over recordings."""
    right = np.asarray([float(row[way] == row["group"]) for row in rows])
    if less:
        right -= [float(row[less] == row["group"]) for row in rows]
    files = Counter(row["cluster"] for row in rows)
    weight = np.asarray([1 / files[row["cluster"]] for row in rows])
    found = bootstrap.bootstrap(
        np.stack([right * weight, weight], axis=1),
        clusters=[row["cluster"] for row in rows],
        statistic=bootstrap.ratio,
        resamples=2_000,
    )
    return {name: round(float(getattr(found, name)), 4) for name in ("value", "low", "high")}


def groups(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, of each group, its recordings, how many are right by answer and by head."""
    found = {}
    for group in sound_groups.words().groups:
        own = [row for row in rows if row["group"] == group]
        if own:
            found[group] = {"recordings": len(own)} | {
                way: sum(row[way] == group for row in own) for way in (_JOINT, "head")
            }
    return found


def bars(tasks: Mapping[str, Any], figures: Mapping[str, Mapping[str, float]]) -> list[dict]:
    """Hold the figures against what was fixed before."""
    rows = [
        {"row": row, "value": round(tasks[row][_JOINT]["value"], 4), "bar": f"{sense} {bar}",
         "holds": tasks[row][_JOINT]["value"] >= bar}
        for row, sense, bar in BARS
    ]  # fmt: skip
    value = figures["answers less head"]["value"]
    return [
        *rows,
        {"row": "answers less head", "value": value, "bar": f">= -{BELOW}",
         "holds": value >= -BELOW},
    ]  # fmt: skip


def main() -> None:
    """Run the command line; see the module's docstring."""
    arguments = _arguments()
    evaluated = arguments.run / "eval"
    tasks = read_json(arguments.run / "summary.json")["tasks"]
    rows = heard_alone(evaluated)
    learnt = add_head(
        rows, tagging=arguments.run / "tagging", corpus=arguments.corpus, records=arguments.records
    )
    unlearnt = sorted({row["group"] for row in rows} - learnt.keys())
    rows = [row for row in rows if row["group"] in learnt]
    for row in rows:
        row["most frequent"] = learnt.most_common(1)[0][0]
    ways = {"answers": _JOINT, "head": "head", "head, plain": "head, plain",
            "most frequent": "most frequent"} | {name: name for name in _CONTROLS}  # fmt: skip
    figures = {name: share(rows, way) for name, way in ways.items()}
    figures["answers less head"] = share(rows, _JOINT, less="head")
    made = read_json(arguments.corpus / window_corpus.MANIFEST)
    content = {
        "commit": provenance.git_state(),
        "corpus": {"options": made["options"], "plan": made["plan"]},
        "recordings": len({row["cluster"] for row in rows}),
        "unlearnt": unlearnt,
        "figures": figures,
        "groups": groups(rows),
        "tasks": tasks,
        "bars": bars(tasks, figures),
    }
    write_json(arguments.out, alternate.header() | content)
    print(alternate.table([{"hearing": name, **figure} for name, figure in figures.items()]))
    print(alternate.table(content["bars"]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_answers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", type=Path, default=Path("runs/real"), help="of make_pretrained")
    parser.add_argument("--corpus", type=Path, default=Path("data/real"))
    parser.add_argument("--records", type=Path, default=Path("data/real_records"))
    parser.add_argument("--out", type=Path, default=OUT, help="file of the result")
    return parser.parse_args()


if __name__ == "__main__":
    errors.main(main)
