"""The rows of the results page about the server: what was measured, what came, and the bar."""

from collections.abc import Callable
from typing import Any

Row = tuple[str, Any, str]


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the rows of benchmarks/results/serving.json: part, what, found, bar."""
    made = []
    for name, write in _PARTS.items():
        for ending, model in (("", ""), (", toy", "toy, ")):
            part = result["parts"].get(name + ending)
            if part is not None:
                load = f"load {part['load_average'][0]:.0f}"
                about = f"{name.replace('_', ' ')} ({model}{part['date']}, {load})"
                made += [[about, *map(str, row)] for row in write(part)]
    return made


def _equality(part: dict[str, Any]) -> list[Row]:
    what = (
        f"{part['requests']:,} requests of {part['clients']} clients about {part['clips']} clips, "
        f"{part['drawn']} drawn, {part['cancelled']} cancelled: "
    )
    wrong = part["differences"] + sum(part["failed"].values())
    compared = f"{wrong} ({part['tokens_compared']:,} tokens compared)"
    return [
        (f"{what}answers that are not `Model.answer`'s", compared, "0"),
        ("answers of somebody else", part["cross_talk"], "0"),
    ]


def _behind_long(part: dict[str, Any]) -> list[Row]:
    ms, other = part["short_ms"], part["first_long_ended_ms"]
    what = f"of {part['long_requests']} long requests end before a short one that is sent later"
    found = (
        f"{part['ended_before_the_short']}; it takes {ms:,.0f} ms, the first ends at {other:,.0f}"
    )
    return [(what, found, "0")]


def _throughput(part: dict[str, Any]) -> list[Row]:
    rate, times = part["server_tokens_per_second"], part["times"]
    rows = [(f"tokens/s at {part['users']} users, clips that nobody has heard", f"{rate:.1f}", "")]
    rates = part["tokens_per_second"]
    for name, bar in (
        ("answer_batch, hearing too", "0.75"),
        ("answer_batch, answers", "0.75"),
        ("batch 1, hearing too", "2.5"),
        ("batch 1, answers", "2.5"),
    ):
        rows.append((f"times {name} ({rates[name]:.1f} tokens/s)", f"{times[name]:.2f}", bar))
    cached = part["cached_tokens_per_second"]
    rows.append(
        ("tokens/s of the same users about clips that were heard before", f"{cached:.1f}", "")
    )
    for name, bar in (("answer_batch", "0.75"), ("batch 1", "2.5")):
        found = f"{part['cached_times'][name]:.2f}"
        rows.append((f"that, times {name}, answers ({rates[f'{name}, answers']:.1f})", found, bar))
    return [*rows, ("answers that are not the library's", part["unequal_answers"], "0")]


def _lone(part: dict[str, Any]) -> list[Row]:
    return [
        (f"a request alone, times `Model.answer` ({part['answer_ms']:,.0f} ms)",
         f"{part['times']:.2f}", "1.3"),
        ("HTTP, audio decoding, queue and the rest, ms", f"{part['overhead_ms']:.1f}",
         f"{part['overhead_allowed_ms']:.1f}"),
    ]  # fmt: skip


def _follow_up(part: dict[str, Any]) -> list[Row]:
    first = f"the first question's {part['first_question_ms']:,.0f} ms"
    return [
        (f"another question about a clip begins sooner than {first}, times",
         f"{part['times_sooner']:.1f}", "5"),
        ("the next turn, times", f"{part['times_sooner_next_turn']:.1f}", "5"),
    ]  # fmt: skip


def _livez(part: dict[str, Any]) -> list[Row]:
    return [
        (f"/livez, {name}: p99, ms", f"{one['p99_ms']:.1f} of {one['count']}", "50")
        for name, one in part["loads"].items()
    ]


def _disconnects(part: dict[str, Any]) -> list[Row]:
    after = part["occupied_after"]
    found = f"{after['slots']}, {after['queue']} after {part['seconds_until_free']:.2f} s"
    return [(f"slots and queue after {part['disconnects']} disconnects", found, "0, 0")]


def _soak(part: dict[str, Any]) -> list[Row]:
    begun = part["settled_at"]
    memory, files = part["memory_mb"], part["descriptors"]
    return [
        (f"{part['requests']:,} requests: crashes and unexpected replies",
         sum(part["unexpected"].values()), "0"),
        (f"memory from request {begun:,} to the end, MB",
         f"{memory[0]:,.0f} to {memory[1]:,.0f}: {part['memory_growth_percent']:+.1f} %", "+3 %"),
        ("descriptors, the same", f"{files[0]} to {files[1]}", "flat"),
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
