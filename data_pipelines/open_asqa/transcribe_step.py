"""Write down what is said in the clips, by Whisper, and keep what is surely spoken.

    python -m data_pipelines.open_asqa transcribe DIR --model assets/weights/whisper-tiny.en
    python -m data_pipelines.open_asqa transcribe DIR --model hf:openai/whisper-large-v2 --batch 64
    python -m data_pipelines.open_asqa transcribe DIR --model ... --filter compat

Writes spoken_text.jsonl of each source (the text, Whisper's own, why nothing was kept) and the
closed-ended questions anew. All that a model wrote is kept in DIR/transcripts-HASH.jsonl, so other
limits cost seconds, a file that several sources share is heard once, and a run that was stopped
goes on where it was. The rules and their order: docs/open_asqa_speech.md.
"""

import argparse
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.open_asqa import draw, invented_phrases, spoken_text_filter
from data_pipelines.open_asqa.build_folder import SPOKEN_TEXT, BuildFolder
from data_pipelines.open_asqa.clip_blocks import Clip
from data_pipelines.open_asqa.clip_journal import ClipJournal, name_of
from data_pipelines.open_asqa.clip_whisper import ClipWhisper
from data_pipelines.open_asqa.closed_file import write_closed_ended
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.singing_tagger import SingingTagger
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.open_asqa.spoken_text_filter import (
    FilterRules,
    HeardWindow,
    TranscribedClip,
    spoken_text,
)
from data_pipelines.open_asqa.text_tables import table
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.core.jsonl import write_jsonl
from ltu_jax.core.lock import RunLock
from ltu_jax.core.paths import argument
from ltu_jax.core.values import number, real_number, whole
from ltu_jax.generation.transcription import OPENAI, QUIET
from ltu_jax.preprocessing.audio import load_audio

FILTER = "spoken_text_filter.json"
_KEPT = "kept"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a build")
    parser.add_argument("--model", type=argument, required=True, help="Whisper: folder or hf:NAME")
    parser.add_argument("--only", default="", metavar="NAME,...", help="these sources alone")
    parser.add_argument("--batch", type=int, default=16, help="windows decoded together")
    parser.add_argument("--workers", type=int, default=2, help="threads that read audio")
    parser.add_argument(
        "--filter",
        choices=spoken_text_filter.MODES,
        default="ours",
        help="compat: cut 'Thanks for watching' and its like as LTU-AS did, and nothing else",
    )
    parser.add_argument(
        "--no-speech",
        type=real_number,
        default=QUIET.no_speech_limit,
        help=f"largest no-speech probability (default: {QUIET.no_speech_limit})",
    )
    parser.add_argument(
        "--logprob",
        type=real_number,
        default=OPENAI.logprob_limit,
        help=f"least mean log probability of a token (default: {OPENAI.logprob_limit})",
    )
    parser.add_argument(
        "--languages", default="en", help="kept ones, separated by commas, or any (default: en)"
    )
    parser.add_argument(
        "--phrases", type=Path, help="list of `harvest` (default: the package's, or made here)"
    )
    parser.add_argument(
        "--tagger",
        type=argument,
        help="AudioSet tagger whose word on singing decides which music has lyrics",
    )
    parser.add_argument(
        "--tagger-whisper", type=argument, help="Whisper that it hears with (default: --model)"
    )
    parser.add_argument(
        "--singing",
        type=real_number,
        default=0.5,
        help="least probability of singing (default: 0.5)",
    )
    parser.add_argument(
        "--skip-silence",
        action="store_true",
        help="do not decode windows above --no-speech: faster, but their raw text stays unknown",
    )
    parser.add_argument(
        "--unspoken",
        type=real_number,
        default=1.0,
        metavar="SHARE",
        help="of the clips of which it is known that nobody speaks (windows), those that are heard "
        "all the same, as a Whisper may write words there, too (default: 1)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the step; see the module's docstring."""
    for name in ("batch", "workers"):
        whole(name, getattr(arguments, name))
    for name in ("no_speech", "singing"):
        number(name, getattr(arguments, name), above=0, most=1, rule="must be above 0, at most 1")
    if not 0 <= arguments.unspoken <= 1:
        raise UserError(f"--unspoken {arguments.unspoken}: give a share from 0 to 1")
    folder = BuildFolder(arguments.folder)
    seed = str(folder.about()["seed"])
    sources = folder.chosen(arguments.only)
    whisper = ClipWhisper(
        arguments.model,
        batch=arguments.batch,
        silence_above=arguments.no_speech if arguments.skip_silence else None,
    )
    with (
        RunLock(folder.root, job="transcribing Open-ASQA").hold(),
        whisper.journal(folder.root) as journal,
    ):
        rules = _rules(arguments, whisper, journal)
        rows = []
        for source in sources:
            _hear(folder, source, whisper, journal, arguments)
            with _singing(folder, source, arguments) as singing:
                texts = SourceTexts(folder, source, rules, journal, singing, arguments.singing)
                counts = texts.write(whisper)
            write_closed_ended(folder, source, seed)
            rows += [(source, reason, count) for reason, count in counts.most_common()]
    print(table(("source", "text", "clips"), rows))


def _rules(
    arguments: argparse.Namespace, whisper: ClipWhisper, journal: ClipJournal
) -> FilterRules:
    phrases = {}
    if arguments.filter != "compat":
        entry = _phrases(arguments, whisper, journal)
        phrases = invented_phrases.by_probability(entry)
    return FilterRules(
        mode=arguments.filter,
        no_speech=arguments.no_speech,
        logprob=arguments.logprob,
        languages=tuple(name for name in arguments.languages.split(",") if name),
        phrases=phrases,
    )


def _phrases(
    arguments: argparse.Namespace, whisper: ClipWhisper, journal: ClipJournal
) -> Mapping[str, Any]:
    """Return what the model writes over noise: as given, of the package, or found out now."""
    if arguments.phrases is not None:
        return invented_phrases.read(arguments.phrases, sha256=whisper.sha256)
    known = invented_phrases.packaged(whisper.sha256)
    if known is not None:
        return known
    return invented_phrases.harvest(whisper, journal, workers=arguments.workers)


def _hear(
    folder: BuildFolder,
    source: str,
    model: ClipWhisper | SingingTagger,
    journal: ClipJournal,
    arguments: argparse.Namespace,
) -> None:
    """Let a model hear the clips of a source that it has not heard yet."""
    unspoken, workers = arguments.unspoken, arguments.workers
    total = sum(1 for clip in folder.clips(source) if clip.audio and _asked(clip, unspoken))
    with tqdm(desc=f"{source}: {model.finds}", total=total, unit="clip", disable=None) as bar:
        for result in model.hear(_clips(folder, source, unspoken), journal, workers=workers):
            if "error" in result:
                bar.write(result["error"])
            bar.update()


def _asked(clip: SourceClip, unspoken: float) -> bool:
    """Return whether a clip is heard; where nobody is known to speak, a share of them is."""
    return not clip.speechless or draw.fraction(clip.clip_id, "unspoken") < unspoken


def _clips(folder: BuildFolder, source: str, unspoken: float) -> Iterator[Clip]:
    before = None
    for clip in folder.clips(source):
        name = name_of(clip)
        if name is not None and name != before and _asked(clip, unspoken):
            yield name, lambda path=clip.audio: load_audio(path).samples
        before = name


@contextlib.contextmanager
def _singing(
    folder: BuildFolder, source: str, arguments: argparse.Namespace
) -> Iterator[ClipJournal | None]:
    """Yield what the tagger found in the clips of a source; None without it, or of no music."""
    if arguments.tagger is None or not _is_music(source):
        yield None
        return
    tagger = SingingTagger(
        arguments.tagger,
        whisper=arguments.tagger_whisper or arguments.model,
        batch=arguments.batch,
    )
    with tagger.journal(folder.root) as journal:
        _hear(folder, source, tagger, journal, arguments)
        yield journal


def _is_music(source: str) -> bool:
    return "genre_cla" in SOURCES[source].tasks


@dataclasses.dataclass(frozen=True)
class SourceTexts:
    """The spoken text of the clips of a source.

    Attributes:
        folder, source: whose clips.
        rules: what is asked of a text.
        heard: what Whisper wrote.
        singing: what a tagger found; None where none was asked.
        least_singing: probability from which a clip has vocals.
    """

    folder: BuildFolder
    source: str
    rules: FilterRules
    heard: ClipJournal
    singing: ClipJournal | None
    least_singing: float

    def write(self, whisper: ClipWhisper) -> Counter[str]:
        """Write the text of each clip and how it was chosen; return how many have which reason."""
        counts: Counter[str] = Counter()

        def rows() -> Iterator[Mapping[str, Any]]:
            for clip in self.folder.clips(self.source):
                row = self._row(name_of(clip), speechless=clip.speechless)
                counts[row["reason"] or _KEPT] += 1
                yield {"clip_id": clip.clip_id, **row}

        write_jsonl(self.folder.file(self.source, SPOKEN_TEXT), rows())
        about = {
            "model": whisper.named,
            "sha256": whisper.sha256,
            "filter": self.rules.mode,
            "no_speech": self.rules.no_speech,
            "logprob": self.rules.logprob,
            "languages": list(self.rules.languages),
            "phrases": len(self.rules.phrases),
            "singing": None if self.singing is None else self.least_singing,
            "clips": dict(sorted(counts.items())),
        }
        write_json(self.folder.file(self.source, FILTER), about)
        return counts

    def _row(self, name: str | None, *, speechless: bool) -> dict[str, Any]:
        """Return what spoken_text.jsonl says of the clip with this audio."""
        found = None if name is None else self.heard.find(name)
        if found is None or "error" in found:
            reason = "no audio" if found is None else "unreadable audio"
            if found is None and name is not None and speechless:
                reason = "nobody speaks"  # and the clip is none of the share that is heard
            return {"text": "", "raw": "", "reason": reason}
        windows = tuple(HeardWindow(**window) for window in found["windows"])
        heard = TranscribedClip(text=found["text"], language=found["language"], windows=windows)
        tagged = {} if self.singing is None else self.singing.find(name)
        kept = spoken_text(
            heard,
            self.rules,
            music=_is_music(self.source),
            vocals=tagged.get("singing", 0.0) >= self.least_singing,
        )
        row = {"text": kept.text, "raw": found["text"], "reason": kept.reason}
        if kept.text and kept.windows_left_out:
            row["windows_left_out"] = kept.windows_left_out
        row |= {key: found[key] for key in ("language", "no_speech_prob", "avg_logprob")}
        return row | {key: tagged[key] for key in ("singing",) if key in tagged}
