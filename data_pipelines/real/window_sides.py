"""Which windows a corpus holds: sides of a split, each planned from its own recordings alone."""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence

from data_pipelines.real import recording_table, window_plan
from data_pipelines.real.recording_table import FOLDS, Recording, Sides
from data_pipelines.real.window_manifest import SOUNDS
from data_pipelines.real.window_plan import PlannedWindow
from ltu_jax.core.errors import UserError

DATASET = "real"
VAL, NONE, EACH_FOLD = "val", "none", "folds"
_FOLD = "fold:"
CHOICES = (VAL, *(f"{_FOLD}{number}" for number in range(FOLDS)), NONE, EACH_FOLD)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowOptions:
    """How windows are drawn; see `window_plan.plan`.

    Attributes:
        of_class: windows whose first sound is of a class, in each part that is planned.
        more: share of windows with a second sound.
        speech: share of windows in which somebody speaks.
        quiet: windows of silence, and of noise, that are learnt from; a sixth of it is held out.
        seed: of all draws.
    """

    of_class: int
    more: float
    speech: float
    quiet: int
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlacedWindow:
    """A window, its unique id, its kind, and the split and dataset of the records it is for."""

    clip_id: str
    kind: str
    split: str
    dataset: str
    window: PlannedWindow


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedSides:
    """The windows of a corpus.

    Attributes:
        windows: of all sides.
        unlearnt: groups that are held out and that nothing is left to learn from.
    """

    windows: tuple[PlacedWindow, ...]
    unlearnt: tuple[str, ...] = ()


def plan_sides(
    given: Sequence[Recording],
    *,
    hold_out: str,
    options: WindowOptions,
    voices: Mapping[str, float],
    held_voices: Mapping[str, float] | None = None,
) -> PlannedSides:
    """Plan the windows of a corpus.

    Args:
        given: recordings.
        hold_out: of `CHOICES`: the packages of `split` val, one of four folds, nothing, or each
            fold in turn. Held-out recordings are heard alone, each once; the others alone or
            together, see `window_plan.plan`. For each fold in turn there is one split, whose
            datasets `fold_dataset` names: every part has windows of either kind, of no
            recording of another part.
        options: of the training side.
        voices: name -> seconds of what may be said on the training side.
        held_voices: the same of what is said, once each, over held-out recordings; with one split.

    Raises:
        UserError: `hold_out` is none of these, or a side is left without windows.
    """
    if hold_out == EACH_FOLD:
        return PlannedSides(windows=tuple(_each_fold(given, options=options, voices=voices)))
    sides = split_sides(given, hold_out)
    train = _plan(sides.train, options=options, voices=voices)
    held = window_plan.alone(sides.held_out, seed=options.seed)
    if held:
        held += window_plan.spoken(sides.held_out, voices=held_voices or {}, seed=options.seed)
    for side, windows in (("learn from", train), ("hold out", held)):
        if not windows and not (hold_out == NONE and side == "hold out"):
            raise UserError(
                f"--hold-out {hold_out}: no recording is left to {side}; fetch more packages, or "
                f"choose another of {', '.join(CHOICES)}"
            )
    windows = [*_placed(train, DATASET, split="train"), *_placed(held, DATASET, split="val")]
    windows += _quiet(options.quiet, "train", options=options, voices=voices)
    if hold_out != NONE:
        windows += _quiet(-(-options.quiet // 6), "val", options=options, voices={})
    return PlannedSides(windows=tuple(windows), unlearnt=sides.unlearnt)


def split_sides(given: Sequence[Recording], hold_out: str) -> Sides:
    """Return the two sides of a split; see `plan_sides`.

    Raises:
        UserError: `hold_out` is none of `CHOICES` with one split.
    """
    if hold_out == VAL:
        return recording_table.validation_sides(given)
    if hold_out == NONE:
        return Sides(train=tuple(given), held_out=(), unlearnt=())
    if hold_out in CHOICES and hold_out.startswith(_FOLD):
        return recording_table.fold_sides(given, int(hold_out.removeprefix(_FOLD)))
    raise UserError(f"--hold-out {hold_out!r}: give one of {', '.join(CHOICES)}")


def fold_dataset(fold: int, *, ships: bool) -> str:
    """Return the name of the dataset of a fold's windows that may be given away, or of the others.

    A rotation trains on those of the other folds; weights that ship, on `ships` alone.
    """
    return f"{DATASET}_fold{fold}_{'ships' if ships else 'other'}"


def fold_parts(given: Sequence[Recording]) -> dict[tuple[int, bool], list[Recording]]:
    """Return (fold, ships) -> its recordings, without those of a cluster that folds share."""
    folds = defaultdict(set)
    for one in given:
        folds[one.cluster].add(one.fold)
    parts: dict[tuple[int, bool], list[Recording]] = {}
    for one in given:
        if len(folds[one.cluster]) == 1:
            parts.setdefault((one.fold, one.ships), []).append(one)
    return dict(sorted(parts.items()))


def is_alone(clip_id: str) -> bool:
    """Return whether a window of `folds` is of one recording and nothing else."""
    return "_alone_" in clip_id


def _each_fold(
    given: Sequence[Recording], *, options: WindowOptions, voices: Mapping[str, float]
) -> list[PlacedWindow]:
    windows = []
    for (fold, ships), own in fold_parts(given).items():
        grouped = [one for one in own if one.group]  # what a rotation is scored on
        planned = [
            *window_plan.alone(grouped, seed=options.seed),
            *_plan(own, options=options, voices=voices),
        ]
        windows += _placed(planned, fold_dataset(fold, ships=ships), split="train")
    return windows


def _plan(
    given: Sequence[Recording], *, options: WindowOptions, voices: Mapping[str, float]
) -> list[PlannedWindow]:
    return window_plan.plan(
        given,
        of_class=options.of_class,
        voices=voices,
        speech=options.speech,
        more=options.more,
        seed=options.seed,
    )


def _quiet(
    count: int, split: str, *, options: WindowOptions, voices: Mapping[str, float]
) -> list[PlacedWindow]:
    made = window_plan.quiet(
        count,
        voices=voices,
        speech=options.speech if voices else 0.0,
        seed=options.seed + (split == "val"),
    )
    return [
        one
        for kind, windows in made.items()
        for one in _placed(windows, DATASET, split=split, kind=kind)
    ]


def _placed(
    windows: Sequence[PlannedWindow], dataset: str, *, split: str, kind: str = SOUNDS
) -> list[PlacedWindow]:
    return [
        PlacedWindow(
            clip_id=f"{dataset}_{split}_{one.window_id}",
            kind=kind,
            split=split,
            dataset=dataset,
            window=one,
        )
        for one in windows
    ]
