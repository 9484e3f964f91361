"""Transcripts as subtitles: SubRip (srt) and WebVTT."""

from collections.abc import Iterable

from ltu_jax.generation.whisper_rules import Segment


def srt(segments: Iterable[Segment]) -> str:
    """Return SubRip text."""
    return "".join(
        f"{number}\n{_time(one.start, ',')} --> {_time(one.end, ',')}\n{_line(one.text)}\n\n"
        for number, one in enumerate(segments, start=1)
    )


def vtt(segments: Iterable[Segment]) -> str:
    """Return WebVTT text."""
    return "WEBVTT\n\n" + "".join(
        f"{_time(one.start, '.')} --> {_time(one.end, '.')}\n{_escaped(_line(one.text))}\n\n"
        for one in segments
    )


def _time(seconds: float, point: str) -> str:
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{point}{rest % 1000:03}"


def _line(text: str) -> str:
    return " ".join(text.split()).replace("-->", "->")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
