"""The rows of the results page about Open-ASQA at its published size: time, memory, and counts."""

from typing import Any

from data_pipelines.open_asqa.published_counts import reason

RULES, LISTS = "published", "official"
# What a step may take: minutes of those that a user runs, all together, and GB of a process.
BOUND_STEPS, MOST_MINUTES, MOST_GB = ("build", "statistics", "merge"), 60, 2
_ORDER = ("build", "findings and questions", "statistics", "merge", "statistics of the rows")


def steps(result: dict[str, Any]) -> list[list[Any]]:
    """Return what each step took: by what, step, clips, minutes, CPU minutes, GB, load."""
    rows = []
    for name, by in ((RULES, "rules"), (LISTS, "lists")):
        clips = sum(own["clips"] for own in result[name]["counts"]["sources"].values())
        for step in _ORDER:
            took = result[name]["steps"][step]
            minutes, busy = took["seconds"] / 60, took["cpu_seconds"] / 60
            peak = f"{took['peak_bytes'] / 1e9:.2f}"
            load = f"{took['load_average']:.0f}"
            rows.append([by, step, f"{clips:,}", f"{minutes:.1f}", f"{busy:.1f}", peak, load])
    return rows


def bounds(result: dict[str, Any]) -> str:
    """Say whether the steps by the rules keep the bounds that were fixed before."""
    took = [result[RULES]["steps"][step] for step in BOUND_STEPS]
    minutes = sum(one["seconds"] for one in took) / 60
    busy = sum(one["cpu_seconds"] for one in took) / 60
    largest = max(one["peak_bytes"] for one in took) / 1e9
    kept = {True: "kept", False: "**NOT kept**"}
    return (
        f"Bounds fixed before, for {', '.join(BOUND_STEPS)} by the rules: {MOST_MINUTES} minutes "
        f"together are {kept[minutes <= MOST_MINUTES]} ({minutes:.0f}, and {busy:.0f} of CPU "
        f"time), {MOST_GB} GB a process are {kept[largest <= MOST_GB]} ({largest:.2f})."
    )


def sources(result: dict[str, Any]) -> list[list[Any]]:
    """Return clips and closed-ended questions of each source, ours beside what is published."""
    rules, lists = (result[name]["counts"]["sources"] for name in (RULES, LISTS))
    rows = []
    for name, own in rules.items():
        printed = own["printed_closed"]
        row = [name, own["clips"], own["closed"], lists[name]["clips"], lists[name]["closed"]]
        row += ["" if printed is None else printed, own["poster"][0], own["poster"][1]]
        rows.append([row[0], *(f"{n:,}" if n != "" else "not alone" for n in row[1:])])
    return rows


def totals(result: dict[str, Any]) -> list[list[Any]]:
    """Return the two sums that are known exactly, by rules and by lists."""
    rows = []
    for key, what in (
        ("classification", "classification"),
        ("speech_closed", "closed-ended questions about speech"),
    ):
        rules, lists = (result[name]["counts"][key] for name in (RULES, LISTS))
        rows.append([what, *(f"{n:,}" for n in (rules["ours"], lists["ours"], lists["printed"]))])
    return rows


def differences(result: dict[str, Any], which: str) -> list[list[Any]]:
    """Return the tasks whose count is not the printed one: source, task, ours, printed, why."""
    return [
        [
            name,
            f"`{task}`",
            f"{own['ours']:,}",
            f"{own['printed']:,}",
            reason(name, task, ours=own["ours"]),
        ]
        for name, source in result[which]["counts"]["sources"].items()
        for task, own in source["tasks"].items()
        if own["printed"] is not None and own["ours"] != own["printed"]
    ]
