"""Baselines, which need no model of ours: constants, Whisper alone, CLAP, other systems.

Each but the blind guess is a list of answers, graded by the same rules as the model's.
"""

import statistics
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_pipelines.metadata.table_files import field, json_lines
from ltu_jax.clients.clap import LABEL_MATCH, ZERO_SHOT, Clap
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.benchmarks import BenchmarkRow
from ltu_jax.evaluation.datasets.item import AudioClip, Item, Task
from ltu_jax.evaluation.metrics import closed, words
from ltu_jax.evaluation.run.clips import decode

CHANCE, MAJORITY, WHISPER = "chance", "majority class", "Whisper transcript"
_CLOSED = (Task.CLASSIFICATION, Task.GENDER, Task.CLASS_AND_WORDS)
_CLIPS_AT_ONCE = 8


def majority(items: Sequence[Item], row: BenchmarkRow) -> dict[str, str] | None:
    """Answer each item with the commonest class of its kind of question; ages with the median."""
    if row.task is Task.AGE:
        age = statistics.median(float(item.label) for item in items)
        return {item.item_id: f"{age:g}" for item in items}
    if row.task not in (Task.CLASSIFICATION, Task.GENDER):
        return None
    tallies: dict[frozenset[str], Counter[str]] = {}
    for item in items:
        tallies.setdefault(frozenset(item.choices), Counter())[item.label] += 1
    best = {
        kind: row.label_answer.format(min(tally, key=lambda label: (-tally[label], label)))
        for kind, tally in tallies.items()
    }
    return {item.item_id: best[frozenset(item.choices)] for item in items}


def whisper_alone(
    items: Sequence[Item], task: Task, spoken_texts: Mapping[str, str]
) -> dict[str, str] | None:
    """Answer with Whisper's transcript: the floor of a model that copies what it reads."""
    if task is not Task.SPOKEN_TEXT:
        return None
    return {item.item_id: f"Spoken text: {spoken_texts.get(item.clip_id, '')}" for item in items}


def chance(
    items: Sequence[Item], task: Task, metric: str, spoken_texts: Mapping[str, str]
) -> float | None:
    """Return the level of the best guess without hearing, where it is known in closed form.

    Closed answers: the best constant class, never below a uniform guess (a joint answer may copy
    its words from the Input block, so those are taken as right). Words: the best constant words.
    """
    truth = [item.label for item in items]
    if task is Task.GENDER:
        classes = sorted({choice for item in items for choice in item.choices})
        return closed.chance_macro_f1(truth, classes=classes)
    if task is Task.CHOICE:  # each item has its own options: no constant answer beats a guess
        return float(np.mean([1 / len(item.choices) for item in items]))
    if task in _CLOSED:
        return closed.chance_accuracy(truth, [item.choices for item in items])
    if task is Task.SPOKEN_TEXT:
        if metric != "WER":
            truth = [spoken_texts.get(item.clip_id, "") for item in items]
        if not any(words.words(text) or words.words(text, english=False) for text in truth):
            return None
        return words.chance_word_error_rate(truth)
    return None


def clap_labels(
    items: Sequence[Item], row: BenchmarkRow, clips: Mapping[str, AudioClip], clap: Clap
) -> dict[str, dict[str, str]]:
    """Return CLAP's answers: system -> item id -> the choice whose text is nearest to the clip.

    Two systems: zero-shot with the text of LAION's own evaluation, and matching of plain labels as
    it is done with AudioCLIP.
    """
    if row.task is not Task.CLASSIFICATION:
        return {}
    systems = {f"{clap.name}, zero-shot": ZERO_SHOT, f"{clap.name}, label matching": LABEL_MATCH}
    result: dict[str, dict[str, str]] = {system: {} for system in systems}
    kinds: dict[tuple[str, ...], list[Item]] = {}
    for item in items:
        kinds.setdefault(item.choices, []).append(item)
    with tqdm(total=len(items), desc="CLAP", unit="clip") as bar:
        for choices, members in kinds.items():
            texts = [text.format(label=entry) for text in systems.values() for entry in choices]
            for first in range(0, len(members), _CLIPS_AT_ONCE):
                part = members[first : first + _CLIPS_AT_ONCE]
                samples = [decode(clips[entry.clip_id]).samples for entry in part]
                scores = clap.scores(samples, texts).reshape(len(part), len(systems), -1)
                for place, system in enumerate(systems):
                    for item, best in zip(part, scores[:, place].argmax(axis=1), strict=True):
                        result[system][item.item_id] = row.label_answer.format(choices[best])
                bar.update(len(part))
    return result


def read_predictions(path: Path, known: Collection[str]) -> dict[str, str]:
    """Read another system's answers by item id from JSON lines {"item_id", "output"}.

    Items without a line count as missing.

    Args:
        path: the file.
        known: ids of all items of the benchmark, whatever part of it is asked.

    Raises:
        UserError: no such file, a broken line, an item that the benchmark does not have or that
            has two lines.
    """
    predictions = {}
    for where, record in json_lines(path, expected="predictions, one JSON object a line"):
        item_id = field(record, "item_id", where)
        if item_id not in known:
            raise UserError(f"{where}: the benchmark has no item {item_id!r}")
        if item_id in predictions:
            raise UserError(f"{where}: item {item_id!r} has a prediction already")
        predictions[item_id] = field(record, "output", where)
    return predictions
