"""From answers to figures: grade each output, then every row and mode with interval and chance."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltu_jax.evaluation.benchmarks import Benchmark, Clip, Item, Metric, Mode
from ltu_jax.evaluation.metrics import closed, words
from ltu_jax.evaluation.metrics.bootstrap import Interval, bootstrap, ratio

# The words of a joint question count as right up to this word error rate against Whisper's
# transcript: the model can copy no better than what it reads in the Input block.
QUOTE_TOLERANCE = 0.3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grade:
    """What one output is worth.

    Attributes:
        parsed: the class that it names (None: none or several, which counts as wrong), or the
            spoken text that it reports.
        right: whether it is right; None for spoken text, which is graded by counts.
        edits, words: word errors and reference words against the script; None outside spoken text.
        edits_vs_whisper, words_vs_whisper: the same against Whisper's transcript.
    """

    parsed: str | None
    right: bool | None
    edits: int | None = None
    words: int | None = None
    edits_vs_whisper: int | None = None
    words_vs_whisper: int | None = None


def grade(item: Item, clip: Clip, output: str, *, metric: Metric) -> Grade:
    """Grade one output of the model; `item`, `clip` and `metric` are of one row."""
    if metric is Metric.WORD_ERROR_RATE:
        said = words.spoken_words(output)
        edits, count = words.word_error_counts(clip.truth_text, said)
        edits_vs_whisper, count_vs_whisper = words.word_error_counts(clip.spoken_text, said)
        return Grade(
            parsed=said,
            right=None,
            edits=edits,
            words=count,
            edits_vs_whisper=edits_vs_whisper,
            words_vs_whisper=count_vs_whisper,
        )
    if metric is not Metric.CLASS_AND_WORDS:
        named = closed.named_class(output, item.choices)
        return Grade(parsed=named, right=named == item.label)
    named = closed.named_class(words.around_words(output), item.choices)
    edits, count = words.word_error_counts(clip.spoken_text, words.spoken_words(output))
    heard_words = edits <= QUOTE_TOLERANCE * count
    return Grade(
        parsed=named,
        right=named == item.label and heard_words,
        edits_vs_whisper=edits,
        words_vs_whisper=count,
    )


def figures(
    benchmark: Benchmark, outputs: Mapping[tuple[str, Mode], str], *, modes: Sequence[Mode]
) -> dict[str, dict[str, Any]]:
    """Every row's chance level and, for each mode, value, 95 % interval and counts.

    Rows without items are left out. A spoken-text row is reported twice: against the script, and as
    `<row>_vs_whisper` against Whisper's transcript. Word error rates are corpus-level.

    Args:
        benchmark: the items, all of which were asked.
        outputs: (item id, mode) -> the model's output.
        modes: those to report.

    Returns:
        row -> {"metric", "chance", mode: {"value", "low", "high", "n", "unparsed", ...}}.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, row in benchmark.rows.items():
        items = [item for item in benchmark.items if item.row == name]
        if not items:
            continue
        clips = [benchmark.clips[item.clip_id] for item in items]
        clusters = [item.clip_id for item in items]
        entries = [(name, False)]
        if row.metric is Metric.WORD_ERROR_RATE:
            entries.append((f"{name}_vs_whisper", True))
        for entry, versus_whisper in entries:
            result[entry] = {
                "metric": str(row.metric),
                "chance": _chance(items, clips, row.metric, versus_whisper=versus_whisper),
            }
        for mode in modes:
            grades = [
                grade(item, clip, outputs[item.item_id, mode], metric=row.metric)
                for item, clip in zip(items, clips, strict=True)
            ]
            for entry, versus_whisper in entries:
                result[entry][str(mode)] = _figure(
                    items, grades, clusters, row.metric, versus_whisper=versus_whisper
                )
    return result


def whisper_error_rate(benchmark: Benchmark) -> Interval | None:
    """Word error rate of Whisper's own transcript against the script, on the spoken-text items.

    The floor of the spoken-text row: the model reads this transcript. None without such items.
    """
    items = [
        item
        for item in benchmark.items
        if benchmark.rows[item.row].metric is Metric.WORD_ERROR_RATE
    ]
    if not items:
        return None
    clips = [benchmark.clips[item.clip_id] for item in items]
    return bootstrap(
        np.array([words.word_error_counts(clip.truth_text, clip.spoken_text) for clip in clips]),
        clusters=[clip.clip_id for clip in clips],
        statistic=ratio,
    )


def _figure(
    items: Sequence[Item],
    grades: Sequence[Grade],
    clusters: Sequence[str],
    metric: Metric,
    *,
    versus_whisper: bool,
) -> dict[str, Any]:
    statistic = ratio
    extra: dict[str, Any] = {"unparsed": sum(not one.parsed for one in grades)}
    if metric is Metric.WORD_ERROR_RATE:
        counts = np.array(
            [
                (one.edits_vs_whisper, one.words_vs_whisper)
                if versus_whisper
                else (one.edits, one.words)
                for one in grades
            ]
        )
    elif metric is Metric.MACRO_F1:
        classes = sorted({choice for item in items for choice in item.choices})
        statistic = closed.macro_f1
        counts = closed.confusion_counts(
            [item.label for item in items], [one.parsed for one in grades], classes=classes
        )
    else:
        counts = np.array([(one.right, 1) for one in grades])
    if metric is not Metric.WORD_ERROR_RATE:
        table: dict[str, Counter[str]] = {}
        for item, one in zip(items, grades, strict=True):
            table.setdefault(item.label, Counter())[one.parsed or "(unparsed)"] += 1
        extra["confusion"] = {
            true: dict(sorted(row.items())) for true, row in sorted(table.items())
        }
    if metric is Metric.CLASS_AND_WORDS:
        extra["class_right"] = sum(
            one.parsed == item.label for item, one in zip(items, grades, strict=True)
        )
        extra["words_right"] = sum(
            one.edits_vs_whisper <= QUOTE_TOLERANCE * one.words_vs_whisper for one in grades
        )
    interval = bootstrap(counts, clusters=clusters, statistic=statistic)
    return {**dataclasses.asdict(interval), **extra}


def _chance(
    items: Sequence[Item], clips: Sequence[Clip], metric: Metric, *, versus_whisper: bool
) -> float:
    """The level that answers without hearing anything reach.

    Closed rows and joint questions: the best constant class (a joint answer may copy the words from
    the Input block, so its words are taken as right). Word error rate: the best constant words.
    """
    if metric is Metric.WORD_ERROR_RATE:
        return words.chance_word_error_rate(
            [clip.spoken_text if versus_whisper else clip.truth_text for clip in clips]
        )
    truth = [item.label for item in items]
    if metric is Metric.MACRO_F1:
        classes = sorted({choice for item in items for choice in item.choices})
        return closed.chance_macro_f1(truth, classes=classes)
    return closed.chance_accuracy(truth, [item.choices for item in items])
