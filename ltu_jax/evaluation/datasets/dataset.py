"""The items that a run asks: those of a benchmark, limited, and paired for the shuffled mode."""

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.metadata.table_files import UnusableRecords
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import inside
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS, Benchmark, BenchmarkRow
from ltu_jax.evaluation.datasets.item import HEARD, AudioClip, EvaluationMode, Item
from ltu_jax.preprocessing.names import ENDINGS, find_audio


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The items of a benchmark's split that a run asks, and their clips.

    Attributes:
        name, split, benchmark: which benchmark, and which part of it.
        items, clips: what is asked, after the limit.
        partner: item id -> the clip heard instead in shuffled mode; empty where there is none.
        ids: of all items of the split, whatever the limit.
        manifest: hash of all questions, references and clips of the split, without paths.
        bad_records: what is wrong with records that were left out.
    """

    name: str
    split: str
    benchmark: Benchmark
    items: tuple[Item, ...]
    clips: Mapping[str, AudioClip]
    partner: Mapping[str, str]
    ids: frozenset[str]
    manifest: str
    bad_records: tuple[str, ...] = ()

    @property
    def rows(self) -> Mapping[str, BenchmarkRow]:
        """The rows that have items, in the benchmark's order."""
        present = {item.row for item in self.items}
        return {name: row for name, row in self.benchmark.rows.items() if name in present}

    def answered_within(self, max_new_tokens: int) -> "Dataset":
        """Return the data set with answers of at most so many tokens, in every row."""
        rows = {
            name: dataclasses.replace(row, max_new_tokens=max_new_tokens)
            for name, row in self.benchmark.rows.items()
        }
        return dataclasses.replace(self, benchmark=dataclasses.replace(self.benchmark, rows=rows))


_OWN_PATHS = ("jsonl", "open_asqa")  # lists of audio that a person has; their readers check them


def _check_places(clips: Mapping[str, AudioClip], *, root: Path) -> None:
    """Require that what a table calls a clip lies in the data's folder, perhaps as a link."""
    for clip in clips.values():
        below = clip.audio.is_relative_to(root)
        name = str(clip.audio.relative_to(root) if below else clip.audio)
        inside(root, name, where=f"{root}: clip {clip.clip_id!r}", owned=below)


def read_dataset(
    data: Path,
    *,
    name: str,
    split: str | None,
    limit: int | None = None,
    seed: int = 0,
    skip_bad_records: bool = False,
) -> Dataset:
    """Read a benchmark from the folder (or file) that its data comes as.

    Args:
        data: where the data lie.
        name: key of `BENCHMARKS`.
        split: one that the benchmark has; None for its first.
        limit: at most this many items a row, drawn by a hash of the item id (a row may be sorted by
            class); None for all.
        seed: of the shuffled mode's pairing.
        skip_bad_records: leave out records that cannot be asked, instead of stopping.

    Raises:
        UserError: the benchmark or split is unknown, the data are missing or broken, ids repeat.
    """
    if name not in BENCHMARKS:
        raise UserError(f"unknown benchmark {name!r}; known: {', '.join(sorted(BENCHMARKS))}")
    benchmark = BENCHMARKS[name]
    split = benchmark.splits[0] if split is None else split
    if split not in benchmark.splits:
        raise UserError(f"{name} has no split {split!r}; it has {', '.join(benchmark.splits)}")
    bad: tuple[str, ...] = ()
    try:
        corpus = benchmark.read(data, split=split)
    except UnusableRecords as error:
        if error.rest is None:
            raise
        if not skip_bad_records:
            raise UserError(
                f"{error}\nCorrect the data or copy a newer release (--check lists all), or ask "
                "the rest with --skip-bad-records"
            ) from None
        corpus, bad = error.rest, error.problems
    if not corpus.items:
        raise UserError(f"{data} has no items of {name}, split {split}")
    if name not in _OWN_PATHS:
        _check_places(corpus.clips, root=data if data.is_dir() else data.parent)
    repeated = [
        item_id
        for item_id, count in Counter(item.item_id for item in corpus.items).items()
        if count > 1
    ]
    if repeated:
        raise UserError(
            f"{data}: {len(repeated)} item ids occur more than once, {repeated[0]!r} first; make "
            "ids unique"
        )
    items = [_with_question(item, benchmark.rows[item.row]) for item in corpus.items]
    return Dataset(
        name=name,
        split=split,
        benchmark=benchmark,
        items=tuple(item for row in benchmark.rows for item in _first(items, row, limit)),
        clips={clip_id: _located(clip) for clip_id, clip in corpus.clips.items()},
        partner=pairing(items, seed=seed) if len({item.clip_id for item in items}) > 1 else {},
        ids=frozenset(item.item_id for item in items),
        manifest=manifest(items, corpus.clips),
        bad_records=bad,
    )


def _located(clip: AudioClip) -> AudioClip:
    """Return the clip with its file as the disk spells it, unchanged where there is none."""
    return dataclasses.replace(clip, audio=find_audio(clip.audio, endings=ENDINGS) or clip.audio)


def manifest(items: Sequence[Item], clips: Mapping[str, AudioClip]) -> str:
    """Return the SHA-256 of all that is asked and expected: equal for equal datasets.

    Raises:
        UserError: a text that is no Unicode (half of a surrogate pair), which no file can hold.
    """
    digest = hashlib.sha256()
    clips_of_items = {item.clip_id: clips[item.clip_id] for item in items}
    lines = {f"item {one.item_id!r}": {**vars(one), "groups": dict(one.groups)} for one in items}
    lines |= {
        f"clip {name!r}": {**vars(one), "audio": None} for name, one in clips_of_items.items()
    }
    for name, fields in lines.items():
        line = json.dumps(fields, sort_keys=True, ensure_ascii=False)
        try:
            digest.update(line.encode() + b"\n")
        except UnicodeEncodeError as error:
            broken = line[max(error.start - 20, 0) : error.end + 20]
            raise UserError(
                f"{name} has text that is no Unicode, {broken!a}: mend it in the data"
            ) from None
    return digest.hexdigest()


def pairing(items: Sequence[Item], *, seed: int) -> dict[str, str]:
    """Pair each item with another clip of its row and choices, of another class if possible.

    Within a group the items are sorted by class, by `seed` within one, and turned by the size of
    the largest class, which parts all classes unless one has more than half of the items. Other
    turns are tried until no item meets its own clip; a row of one clip borrows from the rest.
    """
    partner = {}
    for row, members in itertools.groupby(sorted(items, key=lambda i: i.row), lambda i: i.row):
        for group in _groups(list(members)):
            ordered = sorted(group, key=lambda item: (_class(item), _rank(item.clip_id, seed)))
            borrowed = _turned(ordered)
            for item, clip in zip(ordered, borrowed, strict=True):
                if clip == item.clip_id:
                    clip = _any_other(item, items, row=row, seed=seed)
                partner[item.item_id] = clip
    return partner


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    """Group the items of a row by their choices; those without another clip form one more group."""
    shared: dict[Hashable, list[Item]] = {}
    for item in items:
        shared.setdefault(frozenset(item.choices), []).append(item)
    groups, alone = [], []
    for group in shared.values():
        if len({item.clip_id for item in group}) > 1:
            groups.append(group)
        else:
            alone += group
    return [*groups, alone] if alone else groups


def _turned(ordered: Sequence[Item]) -> list[str]:
    """Turn the clips of `ordered` so that as few as possible meet their own clip and class."""
    clips = [item.clip_id for item in ordered]
    classes = [_class(item) for item in ordered]
    largest = max(Counter(classes).values()) if len(set(classes)) > 1 else 1
    best = None
    for step in range(len(ordered)):
        turn = (largest + step) % len(ordered)
        same_clip = _equal(clips, clips[turn:] + clips[:turn])
        same_class = _equal(classes, classes[turn:] + classes[:turn]) if classes[0] else 0
        if best is None or (same_clip, same_class) < best[:2]:
            best = (same_clip, same_class, turn)
        if best[:2] == (0, 0) or (step >= _TURNS and best[0] == 0):
            break
    turn = best[2]
    return clips[turn:] + clips[:turn]


# Turns tried once every item has another clip: more would only part a few more classes.
_TURNS = 1_000


def _class(item: Item) -> str:
    return item.groups.get(HEARD, item.label) if item.choices else ""


def _any_other(item: Item, items: Sequence[Item], *, row: str, seed: int) -> str:
    """Return another clip, of the same row if it has one, and of another class if there is one."""
    others = [other for other in items if other.clip_id != item.clip_id]
    return min(
        others,
        key=lambda other: (
            other.row != row,
            bool(_class(item)) and _class(other) == _class(item),
            _rank(other.clip_id, seed),
        ),
    ).clip_id


def _with_question(item: Item, row: BenchmarkRow) -> Item:
    if item.question:
        return item
    if row.question is None:
        raise UserError(f"item {item.item_id!r} has no question, and its row has none for all")
    return dataclasses.replace(item, question=row.question)


def _first(items: Sequence[Item], row: str, limit: int | None) -> list[Item]:
    own = [item for item in items if item.row == row]
    if limit is None or len(own) <= limit:
        return own
    drawn = {item.item_id for item in sorted(own, key=lambda item: _rank(item.item_id, 0))[:limit]}
    return [item for item in own if item.item_id in drawn]


def _rank(name: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _equal(left: Sequence[Any], right: Sequence[Any]) -> int:
    return sum(a == b for a, b in zip(left, right, strict=True))


def need_partners(dataset: Dataset, modes: Sequence[EvaluationMode]) -> None:
    """Raise `UserError` when the shuffled mode is asked for and there is only one clip."""
    if EvaluationMode.SHUFFLED in modes and not dataset.partner:
        raise UserError(
            f"all items of {dataset.name} ask about one clip: the shuffled mode needs "
            "another; add clips, or leave 'shuffled' out of --modes"
        )
