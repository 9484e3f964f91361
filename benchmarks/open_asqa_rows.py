"""The rows of the results page about Open-ASQA at its published size: time, memory, and counts."""

from typing import Any

from data_pipelines.open_asqa.published_counts import reason

RULES, LISTS = "published", "official"


def steps(result: dict[str, Any]) -> list[list[Any]]:
    """Return what each step took: step, clips, minutes, CPU minutes, GB of its largest process."""
    rows = []
    for name in (RULES, LISTS):
        clips = sum(own["clips"] for own in result[name]["counts"]["sources"].values())
        for step, took in result[name]["steps"].items():
            minutes, busy = took["seconds"] / 60, took["cpu_seconds"] / 60
            peak = f"{took['peak_bytes'] / 1e9:.2f}"
            load = f"{took['load_average']:.0f}"
            rows.append([step, f"{clips:,}", f"{minutes:.1f}", f"{busy:.1f}", peak, load])
    return rows


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
