"""The rows of the results page about real recordings: tag head over folds, answers beside it."""

from collections.abc import Mapping
from typing import Any

COLUMNS = ("licences", "hearing", "fold 0", "fold 1", "fold 2", "fold 3", "mean", "at least")
HEARING_COLUMNS = ("hearing", "of 18 groups, right")
BAR_COLUMNS = ("figure", "value", "bar", "")
GROUP_COLUMNS = ("group", "recordings", "right", "most often taken for")


def folds(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return top-1 of each fold and their mean with its interval, of every way of hearing."""
    rows = []
    for licences, found in result["licences"].items():
        for way, figure in found["figures"].items():
            of = {one["fold"]: f"{one['value']:.2f} of {one['recordings']}"
                  for one in figure["folds"]}  # fmt: skip
            mean = figure["mean"]
            least = f"{found['at_least']:.2f}" if way == "heard" else ""
            rows.append(
                [licences, way, *(of.get(fold, "") for fold in range(4))]
                + [f"{mean['value']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]", least]
            )
    return rows


def groups(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return, of each group, how many recordings of all folds are right, with all licences."""
    return [
        [name, own["recordings"], own["right"], own["taken for"][0][0] if own["taken for"] else ""]
        for name, own in result["licences"]["all"]["groups"].items()
    ]


def unlearnt(result: Mapping[str, Any]) -> str:
    """Name the groups that were left out, as nothing was left to learn them from."""
    parts = [
        f"{', '.join(names)} (fold {fold}, {licences})"
        for licences, found in result["licences"].items()
        for fold, names in found["unlearnt"].items()
        if names
    ]
    return f"Left out, with nothing to learn from: {'; '.join(parts) or 'none'}."


def hearings(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return how often each way of hearing names the group of a held-out recording."""
    return [
        [name, f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"]
        for name, figure in result["figures"].items()
    ]


def held(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return the figures that were given a bar before they were measured."""
    return [
        [one["row"], f"{one['value']:.3f}", one["bar"], "holds" if one["holds"] else "**failed**"]
        for one in result["bars"]
    ]


def tasks(result: Mapping[str, Any]) -> list[list[Any]]:
    """Return the figures of each row in each input mode."""
    modes = ("joint", "audio", "text", "shuffled", "silence")
    return [
        [name, found["joint"]["n"]]
        + [f"{found[mode]['value']:.2f}" if mode in found else "" for mode in modes]
        for name, found in result["tasks"].items()
    ]
