"""The folder of a build: what each step leaves there for the next ones.

    DIR/build.json                    seed, sources, hashes of their metadata; written by `build`
    DIR/leakage.json                  clips of benchmarks that were left out, by rule
    DIR/replies.sqlite                every call to a language model, its reply and its price, kept
                                      for good (ltu_jax/clients/call_ledger.py)
    DIR/batches/                      requests-NNNN.jsonl by `generate --batch-files`; results/
    DIR/scores.sqlite                 scores of open-ended pairs, by `score`
    DIR/merged.json                   which file the last `merge` wrote, of which sources
    DIR/SOURCE/clips.jsonl            a `SourceClip` a line, sorted by clip_id
    DIR/SOURCE/quarantine.jsonl       {"where", "reason"} of each row that was left out
    DIR/SOURCE/leaked.jsonl           {"clip_id", "rule", "as"} of each clip of a benchmark
    DIR/SOURCE/related_classes.json   class -> classes that it says something about, by `build`
    DIR/SOURCE/audio/CLIP.flac        the seconds of clips that are parts of longer files
    DIR/SOURCE/spoken_text.jsonl      {"clip_id", "text", "raw", "reason", "language",
                                      "no_speech_prob", "avg_logprob"}, by `transcribe`; reason ""
                                      where text is kept
    DIR/SOURCE/spoken_text_filter.json    model, limits and counts of that
    DIR/SOURCE/style.jsonl            {"clip_id", "pitch", "speed", "volume", "f0_hz",
                                      "syllables_per_second", "dbfs", "pitch_among_all",
                                      "pitch_hz": [from, to] of the class, "gender", "gender_by",
                                      "without": {axis: reason}}, by `style`; what is not known is
                                      left out, gender is of clips whose source tells none
    DIR/SOURCE/style_bounds.json      the bounds of these classes
    DIR/transcripts-*.jsonl, voices-*.jsonl    what was heard and measured of each file, for good
    DIR/SOURCE/closed_ended.jsonl     {"clip_id", "task", "question", "answer", "wording"} a line;
                                      "text_by" people or whisper of the task ASR
    DIR/SOURCE/open_ended.jsonl       {"clip_id", "question", "answer", "prompt", "model",
                                      "request"}, by `generate`: prompt and its version; key of the
                                      request in replies.sqlite; "wording" where the question is
                                      one of ours
    DIR/SOURCE/open_ended.json        counts of replies and pairs, by `generate`
    DIR/SOURCE/accepted.jsonl         lines of open_ended.jsonl, those that `filter` accepts, with
                                      "scores": {gate: score} where `score` made any
    DIR/SOURCE/refused.jsonl          the others, with "reason"
    DIR/SOURCE/filter.json            settings of `filter`, and counts by reason

A file that is there is whole: each is written beside its place and renamed at its end. Lines of a
source stand in the order of its clips, so that files are joined while they are read (`joined`).
`merge` passes over lines about clips that are gone from clips.jsonl. What a line of a pair has
besides becomes part of the provenance of its row.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_pipelines.open_asqa.lines_by_clip import ClipLines
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json

BUILD = "build.json"
MERGED = "merged.json"
LEAKAGE = "leakage.json"
REPLIES = "replies.sqlite"
CLIPS = "clips.jsonl"
QUARANTINE = "quarantine.jsonl"
LEAKED = "leaked.jsonl"
RELATED_CLASSES = "related_classes.json"
AUDIO = "audio"
SPOKEN_TEXT = "spoken_text.jsonl"
STYLE = "style.jsonl"
CLOSED_ENDED = "closed_ended.jsonl"
OPEN_ENDED = "open_ended.jsonl"
ACCEPTED = "accepted.jsonl"
REFUSED = "refused.jsonl"
FILTER = "filter.json"
MADE_BY = {
    name: f"python -m data_pipelines.open_asqa {step}"
    for name, step in (
        (CLIPS, "build"), (SPOKEN_TEXT, "transcribe"), (STYLE, "style"), (CLOSED_ENDED, "build"),
        (OPEN_ENDED, "generate"), (ACCEPTED, "filter"), (REFUSED, "filter"),
    )
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BuildFolder:
    """A folder that `build` has made, or is making."""

    root: Path

    def sources(self) -> list[str]:
        """Return the sources whose clips are there, in the order of the registry.

        Raises:
            UserError: there are none.
        """
        built = [name for name in SOURCES if self.file(name, CLIPS).is_file()]
        if not built:
            raise UserError(
                f"{self.root} holds no clips: make them with `python -m data_pipelines.open_asqa "
                f"build --sources sources.toml --out {self.root}`"
            )
        return built

    def chosen(self, only: str, *, speech: bool = False) -> list[str]:
        """Return the sources named in "NAME,NAME", all for "".

        Args:
            only: the names.
            speech: those alone in which somebody speaks.

        Raises:
            UserError: there is none, or none of such a name.
        """
        there = [name for name in self.sources() if SOURCES[name].speech or not speech]
        what = "clips of speech" if speech else "clips"
        names = [name.strip() for name in only.split(",") if name.strip()]
        for name in names:
            if name not in there:
                raise UserError(
                    f"--only {name}: {self.root} has no {what} of it; it has "
                    f"{', '.join(there) or 'none of any source'}"
                )
        if not there:
            raise UserError(f"{self.root} has no {what}, so there is nothing to do")
        return [name for name in there if not names or name in names]

    def about(self) -> dict[str, Any]:
        """Return what build.json says: "seed" and "sources".

        Raises:
            UserError: `build` was not run.
        """
        path = self.root / BUILD
        if not path.is_file():
            raise UserError(
                f"{self.root} has no {BUILD}: make it with `python -m data_pipelines.open_asqa "
                f"build --sources sources.toml --out {self.root}`"
            )
        return read_json(path)

    def file(self, source: str, name: str) -> Path:
        """Return where a file of a source is."""
        return self.root / source / name

    def clips(self, source: str) -> Iterator[SourceClip]:
        """Yield the clips of a source, in the order of their ids; `audio` is an absolute path."""
        yield from map(self.clip, self.lines(source, CLIPS))

    def clip(self, record: Mapping[str, Any]) -> SourceClip:
        """Return the clip of a line of clips.jsonl; `audio` is an absolute path."""
        clip = SourceClip.from_json(record)
        if not clip.audio:
            return clip
        return dataclasses.replace(clip, audio=str(self.root.absolute() / clip.audio))

    def joined(
        self, source: str, *names: str
    ) -> Iterator[tuple[SourceClip, tuple[list[dict[str, Any]], ...]]]:
        """Yield each clip with its lines of these files; those of clips that are gone are left out.

        Raises:
            UserError: a line is out of the order of the clips.
        """
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(ClipLines(self.file(source, name), remake=MADE_BY[name]))
                for name in names
            ]
            for clip in self.clips(source):
                yield clip, tuple(file.of(clip.clip_id) for file in files)

    def lines(self, source: str, name: str) -> Iterator[dict[str, Any]]:
        """Yield the lines of a file of a source; none where it is not there."""
        path = self.file(source, name)
        if not path.is_file():
            return
        with path.open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)
