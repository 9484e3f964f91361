"""Check rendered speech by ear: `python -m data_pipelines.speech.hear_speech DIR --model WHISPER`.

Whisper writes down every file of speech.jsonl; a table tells, for each voice, the word error rate
against what it read and how many of its files have a pitch that its gender does not let expect.
What Whisper wrote is kept in DIR/heard: a run that was stopped goes on, and files that are added
later are the only ones heard.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from data_pipelines.open_asqa.clip_blocks import Clip
from data_pipelines.open_asqa.clip_journal import audio_name
from data_pipelines.open_asqa.clip_whisper import ClipWhisper
from data_pipelines.open_asqa.style_classes import gender_of_pitch
from data_pipelines.open_asqa.text_tables import table
from data_pipelines.real import speech_lines
from data_pipelines.real.speech_lines import SpokenClip
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.lock import RunLock
from ltu_jax.core.paths import argument, local_arguments
from ltu_jax.core.values import whole
from ltu_jax.evaluation.metrics.words import word_error_counts
from ltu_jax.preprocessing.audio import load_audio

HEARD = "heard"


def hear(folder: Path, clips: Sequence[SpokenClip], *, model: Path, batch: int) -> dict[str, str]:
    """Return name -> what Whisper writes, of all clips.

    Raises:
        UserError: no Whisper there, or a file that is gone or cannot be decoded.
    """

    def sounds() -> Iterator[Clip]:
        for clip in clips:
            path = folder / clip.file
            if not path.is_file():
                raise UserError(f"{path} is not there: render the speech again")
            yield audio_name(path), lambda path=path: load_audio(path).samples

    whisper, found = ClipWhisper(model, batch=batch, silence_above=None), {}
    place = folder / HEARD
    place.mkdir(exist_ok=True)
    with RunLock(place, job="hearing speech").hold(), whisper.journal(place) as journal:
        heard = whisper.hear(sounds(), journal, workers=1)
        bar = tqdm(heard, desc="hearing", unit="clip", total=len(clips))
        for clip, result in zip(clips, bar, strict=True):
            if "error" in result:
                raise UserError(f"{result['error']}: render the speech again")
            found[clip.name] = result["text"]
    return found


def voice_table(clips: Sequence[SpokenClip], heard: Mapping[str, str]) -> str:
    """Write the word error rate of each voice, in rising order, and that of each split."""
    of_voice: dict[tuple[str, ...], list[SpokenClip]] = {}
    for clip in clips:
        key = (clip.voice, clip.gender, clip.accent, clip.split)
        of_voice.setdefault(key, []).append(clip)
    rows = [(*key, *_figures(own, heard)) for key, own in of_voice.items()]
    rows.sort(key=lambda row: (float(row[5]), row[0]))
    for split in sorted({clip.split for clip in clips}):
        own = [clip for clip in clips if clip.split == split]
        rows.append(("all", "", "", split, *_figures(own, heard)))
    heads = ("voice", "gender", "accent", "split", "clips", "word error rate", "other pitch")
    return table(heads, rows)


def _figures(own: Sequence[SpokenClip], heard: Mapping[str, str]) -> tuple[int, str, int]:
    counts = [word_error_counts(clip.text, heard[clip.name]) for clip in own]
    rate = sum(edits for edits, _ in counts) / sum(words for _, words in counts)
    others = [
        clip
        for clip in own
        if clip.f0_hz is not None and gender_of_pitch(clip.f0_hz) not in ("", clip.gender)
    ]
    return len(own), f"{rate:.3f}", len(others)


def run(argv: list[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.speech.hear_speech", description=__doc__.split("\n")[0]
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="of rendered speech")
    parser.add_argument("--model", type=argument, required=True, help="Whisper: folder or hf:NAME")
    parser.add_argument("--batch", type=int, default=16, help="files decoded together")
    arguments = local_arguments(parser.parse_args(argv))
    whole("batch", arguments.batch)
    clips = list(speech_lines.read_speech(arguments.folder))
    if not clips:
        raise UserError(f"{arguments.folder} has no speech yet: render some first")
    heard = hear(arguments.folder, clips, model=arguments.model, batch=arguments.batch)
    print(voice_table(clips, heard))


if __name__ == "__main__":
    errors.main(run)
