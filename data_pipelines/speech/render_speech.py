"""Render speech: `python -m data_pipelines.speech.render_speech --out assets/speech`.

Sentences that many voices speak, 16 kHz, one FLAC file each, with a line of speech.jsonl for each:
who says what. Kokoro's speakers of nine accents and the neural voices of the mini corpus; no voice
and no sentence is on both sides of the split. A run that was stopped, even by kill -9, goes on, and
a run with more --sentences adds to what is there.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from data_pipelines.measures.voice_measures import measure_voice
from data_pipelines.mini.audio import voices
from data_pipelines.open_asqa.text_tables import table
from data_pipelines.real.speech_lines import SPEECH_FILE, SpokenClip
from data_pipelines.speech import kokoro
from data_pipelines.speech.kokoro import Kokoro
from data_pipelines.speech.speakers import KOKORO, PACKAGES, SPEAKER_TABLE, Speaker
from data_pipelines.speech.speech_plan import PlannedSpeech, speech_plan
from ltu_jax.core import errors, files, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.hardware import cores
from ltu_jax.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from ltu_jax.core.lock import RunLock
from ltu_jax.core.paths import local_arguments
from ltu_jax.core.processes import in_processes
from ltu_jax.core.values import whole
from ltu_jax.sources import packages

SAMPLE_RATE = 16_000
MAKER = outputs.Maker(name="`python -m data_pipelines.speech.render_speech`")
_SETTINGS = "settings.json"
_NAMES = (SPEECH_FILE, _SETTINGS, "audio")
_FORMAT = 2  # of what is rendered: raise with any change of sentences, plan or voices
_PEAK = 0.98  # above which samples are made smaller
_MOST_WORKERS = 4

Speak = Callable[[PlannedSpeech], np.ndarray]


def speak_planned(planned: PlannedSpeech, *, cache: Path) -> np.ndarray:
    """Return what is planned, 16 kHz; a process opens Kokoro once, with its first sentence."""
    name = planned.speaker.name
    if planned.speaker.engine != KOKORO:
        return voices.speak(planned.text, voice=name, tempo=planned.speed, cache=cache)
    samples = _kokoro(cache)(planned.text, speaker=name, speed=planned.speed)
    return soxr.resample(samples, kokoro.SAMPLE_RATE, SAMPLE_RATE)


@functools.cache
def _kokoro(cache: Path) -> Kokoro:
    return Kokoro(cache)


def render(
    out: Path, planned: Sequence[PlannedSpeech], *, speak: Speak, workers: int = 1
) -> list[SpokenClip]:
    """Render what is not there yet, and return the lines of all that is planned.

    Args:
        out: folder.
        planned: in the order of its lines.
        speak: makes the samples.
        workers: processes that do so; 1 is this one.

    Raises:
        UserError: a line of speech.jsonl is broken, or a process was killed.
    """
    path = out / SPEECH_FILE
    # Finished lines alone: the last one may be cut off.
    there = [SpokenClip.from_json(line, where=where) for where, line in read_jsonl(path)]
    done = {one.name: one for one in there if (out / one.file).is_file()}
    if len(done) < len(there):
        write_jsonl(path, map(dataclasses.asdict, done.values()))
    wanted = [one for one in planned if one.name not in done]
    work = functools.partial(_write, out, speak)
    bar = tqdm(
        in_processes(work, wanted, workers=workers),
        desc="speech",
        unit="clip",
        initial=len(planned) - len(wanted),
        total=len(planned),
    )
    with JsonlWriter(path) as writer:
        for clip in bar:
            writer.append(dataclasses.asdict(clip))
            done[clip.name] = clip
    in_order = {one.name: done[one.name] for one in planned} | done
    if list(in_order) != list(done):  # another process was ready first
        write_jsonl(path, map(dataclasses.asdict, in_order.values()))
    return [done[one.name] for one in planned]


def _write(out: Path, speak: Speak, planned: PlannedSpeech) -> SpokenClip:
    speaker = planned.speaker
    samples = np.asarray(speak(planned), np.float32)
    samples = samples * min(1.0, _PEAK / max(float(np.abs(samples).max(initial=0.0)), _PEAK))
    file = f"audio/{speaker.split}/{planned.name}.flac"
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(out / file) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    voice = measure_voice(samples)
    return SpokenClip(
        name=planned.name,
        file=file,
        seconds=round(len(samples) / SAMPLE_RATE, 3),
        text=planned.text,
        gender=speaker.gender,
        voice=speaker.name,
        accent=speaker.accent,
        speed=planned.speed,
        split=speaker.split,
        licence=speaker.licence,
        ships=speaker.ships,
        f0_hz=_rounded(voice.f0_hz, 1),
        speech_seconds=_rounded(voice.speech_seconds, 3),
        packages=PACKAGES[speaker.engine],
    )


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def summary(clips: Iterable[SpokenClip]) -> str:
    """Write who speaks how much, and how high, as a table."""
    of_voice: dict[str, list[SpokenClip]] = {}
    for clip in clips:
        of_voice.setdefault(clip.voice, []).append(clip)
    rows = []
    for name, own in sorted(of_voice.items(), key=lambda item: (item[1][0].split, item[0])):
        pitches = [clip.f0_hz for clip in own if clip.f0_hz is not None]
        pitch = f"{np.median(pitches):.0f}" if pitches else "-"
        minutes = f"{sum(clip.seconds for clip in own) / 60:.1f}"
        first = own[0]
        rows.append((first.split, name, first.gender, first.accent, len(own), minutes, pitch))
    everything = [clip for own in of_voice.values() for clip in own]
    minutes = f"{sum(clip.seconds for clip in everything) / 60:.1f}"
    heads = ("split", "voice", "gender", "accent", "clips", "minutes", "median Hz")
    return table(heads, [*rows, ("all", len(of_voice), "", "", len(everything), minutes, "")])


def chosen(names: Sequence[str] | None) -> list[Speaker]:
    """Return the speakers of these names, all for None.

    Raises:
        UserError: there is no speaker of a name.
    """
    for name in names or ():
        if name not in SPEAKER_TABLE:
            raise UserError(
                f"--voices {name}: there is no such voice; use some of {', '.join(SPEAKER_TABLE)}"
            )
    return [one for one in SPEAKER_TABLE.values() if not names or one.name in names]


def _same_settings(out: Path, settings: Mapping[str, object]) -> None:
    path = out / _SETTINGS
    if path.is_file() and (before := files.read_json(path)) != settings:
        apart = [name for name in settings if before.get(name) != settings[name]]
        raise UserError(
            f"{out} was made with another {apart[0]} ({before.get(apart[0])!r}): give another "
            "--out, or the options that it was made with"
        )
    files.write_json(path, settings)


def run(argv: list[str] | None = None) -> None:
    """Run the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.speech.render_speech", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("assets/speech"), help="a folder")
    parser.add_argument("--sentences", type=int, default=1_000, help="how many (default: 1,000)")
    parser.add_argument("--voices", nargs="+", metavar="NAME", help="speakers (default: all)")
    parser.add_argument("--cache", type=Path, default=packages.DEFAULT_CACHE, help="of packages")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(cores(), _MOST_WORKERS),
        help=f"processes, of 1 GB each (default: one a core, at most {_MOST_WORKERS})",
    )
    arguments = local_arguments(parser.parse_args(argv))
    whole("sentences", arguments.sentences)
    whole("workers", arguments.workers)
    speakers = chosen(arguments.voices)
    planned = speech_plan(arguments.sentences, speakers, seed=arguments.seed)
    out = outputs.join(arguments.out, MAKER, names=_NAMES, inputs=[arguments.cache])
    files.write_json(out / outputs.MARKER, outputs.signature(MAKER))
    with RunLock(out, job="rendering speech").hold():
        names = [one.name for one in speakers]
        _same_settings(out, {"format": _FORMAT, "seed": arguments.seed, "voices": names})
        wanted = (package for one in speakers for package in PACKAGES[one.engine])
        packages.fetch(dict.fromkeys(wanted), cache=arguments.cache)
        speak = functools.partial(speak_planned, cache=arguments.cache)
        clips = render(out, planned, speak=speak, workers=arguments.workers)
    print(summary(clips))


if __name__ == "__main__":
    errors.main(run)
