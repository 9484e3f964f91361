"""The rows of the results page about the server: what was measured, what came, is the bar held?"""

from collections.abc import Callable
from typing import Any

# What was measured, what came, its bar, and whether that is held (None: there is no bar).
Row = tuple[str, Any, str, bool | None]
COLUMNS = ("part", "what", "found", "bar", "held")
_HELD = {True: "yes", False: "**no**", None: ""}


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the rows of benchmarks/results/serving.json, in `COLUMNS`."""
    made = []
    for name, write in _PARTS.items():
        for ending, model in (("", ""), (", toy", "toy, ")):
            part = result["parts"].get(name + ending)
            if part is not None:
                about = f"{name.replace('_', ' ')} ({model}{_when(part, result)})"
                made += [[about, *map(str, row[:-1]), _HELD[row[-1]]] for row in write(part)]
    return made


def _when(part: dict[str, Any], result: dict[str, Any]) -> str:
    """Return date and load of a part, and its processor where that is not the page's."""
    processor = part["hardware"]["processor"]
    other = "" if processor == result["hardware"]["processor"] else f", {processor}"
    return f"{part['date']}, load {part['load_average'][0]:.0f}{other}"


def _none(what: str, count: int, *, found: str | None = None) -> Row:
    """Return the row of something that must not occur."""
    return what, count if found is None else found, "0", count == 0


def _at_least(what: str, value: float, bar: float, *, digits: int) -> Row:
    return what, f"{value:.{digits}f}", f"{bar:g}", value >= bar


def _equality(part: dict[str, Any]) -> list[Row]:
    what = (
        f"{part['requests']:,} requests of {part['clients']} clients about {part['clips']} clips, "
        f"{part['drawn']} drawn, {part['cancelled']} cancelled: "
    )
    wrong = part["differences"] + sum(part["failed"].values())
    compared = f"{wrong} ({part['tokens_compared']:,} tokens compared)"
    return [
        _none(f"{what}answers that are not `Model.answer`'s", wrong, found=compared),
        _none("answers of somebody else", part["cross_talk"]),
    ]


def _behind_long(part: dict[str, Any]) -> list[Row]:
    ms, other, ended = part["short_ms"], part["first_long_ended_ms"], part["ended_before_the_short"]
    what = (
        f"of those {part['long_requests']} of 8 long requests that write all their "
        f"{part['tokens_of_a_long']} tokens end before a short one that is sent later"
    )
    found = f"{ended}; it takes {ms:,.0f} ms, the first ends at {other:,.0f}"
    return [_none(what, ended, found=found)]


def _throughput(part: dict[str, Any]) -> list[Row]:
    rate, times, rates = (
        part[name] for name in ("server_tokens_per_second", "times", "tokens_per_second")
    )
    many = f"tokens/s at {part['users']} users, rounds: {part['rounds']}"
    bars = {"answer_batch": 0.75, "batch 1": 2.5}
    made: list[Row] = [(f"{many}, clips that nobody has heard", f"{rate:.1f}", "", None)]
    for name, bar in bars.items():
        for alone in (f"{name}, hearing too", f"{name}, answers"):
            what = f"times {alone} ({rates[alone]:.1f} tokens/s)"
            made.append(_at_least(what, times[alone], bar, digits=2))
    cached = part["cached_tokens_per_second"]
    what = "tokens/s of the same users about clips that were heard before"
    made.append((what, f"{cached:.1f}", "", None))
    for name, bar in bars.items():
        what = f"that, times {name}, answers ({rates[f'{name}, answers']:.1f})"
        made.append(_at_least(what, part["cached_times"][name], bar, digits=2))
    return [*made, _none("answers that are not the library's", part["unequal_answers"])]


def _lone(part: dict[str, Any]) -> list[Row]:
    times, spent, allowed = part["times"], part["overhead_ms"], part["overhead_allowed_ms"]
    return [
        (f"a request alone, times `Model.answer` ({part['answer_ms']:,.0f} ms)",
         f"{times:.2f}", "1.3", times <= 1.3),
        ("HTTP, audio decoding, queue and the rest, ms", f"{spent:.1f}", f"{allowed:.1f}",
         spent <= allowed),
        _none("answers that are not the library's", part["unequal_answers"]),
    ]  # fmt: skip


def _follow_up(part: dict[str, Any]) -> list[Row]:
    first = f"the first question's {part['first_question_ms']:,.0f} ms"
    what = f"another question about a clip begins sooner than {first}, times"
    return [
        _at_least(what, part["times_sooner"], 5, digits=1),
        _at_least("the next turn, times", part["times_sooner_next_turn"], 5, digits=1),
    ]


def _livez(part: dict[str, Any]) -> list[Row]:
    return [
        (f"/livez, {name}: p99, ms", f"{one['p99_ms']:.1f} of {one['count']}", "50",
         one["p99_ms"] <= 50)
        for name, one in part["loads"].items()
    ]  # fmt: skip


def _disconnects(part: dict[str, Any]) -> list[Row]:
    after = part["occupied_after"]
    what = f"slots and queue after {part['disconnects']} disconnects"
    found = f"{after['slots']}, {after['queue']} after {part['seconds_until_free']:.2f} s"
    return [
        (what, found, "0, 0", not any(after.values())),
        _none("the request after them fails", int(not part["answers_after"])),
    ]


def _soak(part: dict[str, Any]) -> list[Row]:
    count, begun, grown = part["requests"], part["settled_at"], part["memory_growth_percent"]
    memory, files = part["memory_mb"], part["descriptors"]
    unexpected = sum(part["unexpected"].values())
    return [
        ("requests", f"{count:,}, {part['about_cached_clips']:,} of them about cached clips",
         "10,000", count >= 10_000),
        _none("crashes and unexpected replies", unexpected),
        _none("answers that are not those to the same question before", part["unequal_answers"]),
        (f"memory from request {begun:,} to the end, MB",
         f"{memory[0]:,.0f} to {memory[1]:,.0f}: {grown:+.1f} %", "+3 %", grown < 3),
        ("descriptors, the same", f"{files[0]} to {files[1]}", "flat", files[1] <= files[0]),
    ]  # fmt: skip


_PARTS: dict[str, Callable[[dict[str, Any]], list[Row]]] = {
    "equality": _equality,
    "behind_long": _behind_long,
    "throughput": _throughput,
    "lone": _lone,
    "follow_up": _follow_up,
    "livez": _livez,
    "disconnects": _disconnects,
    "soak": _soak,
}
