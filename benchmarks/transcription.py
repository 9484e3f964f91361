"""Whisper on real speech, by our transcriber and by `transformers.generate`: same weights.

    python -m benchmarks.transcription [--models tiny.en base] [--batches 1 6] [--out DIR]

The twelve utterances of `benchmarks.recordings`, each way from samples to text: log-mel, greedy
decoding and tokenizer are each side's own. The weights are exported to Hugging Face's format, so
PyTorch reads the same numbers; float32 on the CPU. Texts are compared with the references after
Whisper's English normaliser, in two settings: "plain" is greedy decoding without timestamps, which
`generate` does by default; "timestamps" is our default, with its other temperatures and its rule
for silence, beside greedy `generate(return_timestamps=True)`. Both find the language themselves.
Word error rates must agree within 1 % absolute before anything is timed; only "plain" is. A round
is all utterances once, in batches; contenders take turns, medians are compared. On a busy machine
start it as `taskset -c 0 python -m ...`: PyTorch's threads lose most of a shared CPU waiting for
each other, and with one core both sides have one thread.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import transformers

from benchmarks import alternate
from benchmarks.recordings import RATE, Recording, recordings
from ltu_jax.convert import export_weights
from ltu_jax.core import errors
from ltu_jax.evaluation.metrics.words import word_error_counts
from ltu_jax.fetch import fetch_weights
from ltu_jax.generation.loading import load_transcriber
from ltu_jax.generation.transcribe import OPENAI

TOLERANCE = 0.01  # of the word error rate, absolute
MODELS = ("tiny.en", "base")
SETTINGS = {
    # No window is taken for silence and none is tried again: `generate` does neither.
    "plain": dataclasses.replace(
        OPENAI, timestamps=False, temperatures=(0.0,), no_speech_limit=1.0
    ),
    "timestamps": OPENAI,
}


class Theirs:
    """`transformers`' feature extractor, model and tokenizer, from a weights directory of ours."""

    def __init__(self, weights: Path):
        with tempfile.TemporaryDirectory(prefix="hf-whisper-") as folder:
            exported = Path(folder) / "hf"
            export_weights("hf", checkpoint=weights, out=exported)
            model = transformers.WhisperForConditionalGeneration.from_pretrained(
                exported, dtype=torch.float32
            )
            self._processor = transformers.WhisperProcessor.from_pretrained(exported)
        self._model = model.eval()

    def run(self, clips: Sequence[np.ndarray], *, setting: str, batch: int) -> list[str]:
        """Return greedy texts of clips of at most 30 s."""
        texts: list[str] = []
        for first in range(0, len(clips), batch):
            heard = self._processor(
                list(clips[first : first + batch]), sampling_rate=RATE, return_tensors="pt"
            )
            with torch.inference_mode():
                ids = self._model.generate(
                    heard.input_features,
                    do_sample=False,
                    num_beams=1,
                    return_timestamps=SETTINGS[setting].timestamps,
                )
            texts += self._processor.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]


class Ours:
    """The transcriber as the corpus, the evaluation and `ask` use it."""

    def __init__(self, weights: Path):
        self._transcriber = load_transcriber(weights)

    def run(self, clips: Sequence[np.ndarray], *, setting: str, batch: int) -> list[str]:
        """Return texts of clips."""
        heard = self._transcriber.transcribe(clips, batch_size=batch, options=SETTINGS[setting])
        return [transcript.text for transcript in heard]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """What both wrote of each recording."""

    spoken: tuple[Recording, ...]
    theirs: tuple[str, ...]
    ours: tuple[str, ...]

    def rates(self) -> tuple[float, float]:
        """Return word error rates over all recordings, `transformers` and ours."""
        theirs, ours = (self._counts(texts) for texts in (self.theirs, self.ours))
        return theirs[0] / theirs[1], ours[0] / ours[1]

    def _counts(self, texts: Sequence[str]) -> tuple[int, int]:
        pairs = zip(self.spoken, texts, strict=True)
        counts = [word_error_counts(one.reference, text) for one, text in pairs]
        return sum(errors for errors, _ in counts), sum(words for _, words in counts)

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each utterance: word error rates, the reference, both texts."""
        rows = []
        for one, theirs, ours in zip(self.spoken, self.theirs, self.ours, strict=True):
            (wrong, words), (mine, _) = (
                word_error_counts(one.reference, text) for text in (theirs, ours)
            )
            rows.append(
                {
                    "recording": one.name,
                    "words": words,
                    "WER transformers": wrong / words,
                    "WER ltu_jax": mine / words,
                    "reference": one.reference,
                    "transformers heard": theirs,
                    "ltu_jax heard": "the same" if ours == theirs else ours,
                }
            )
        return rows


def compare(
    theirs: Theirs, ours: Ours, spoken: Sequence[Recording], *, setting: str, batch: int
) -> Compared:
    """Let both transcribe all recordings."""
    clips = [one.samples for one in spoken]
    return Compared(
        spoken=tuple(spoken),
        theirs=tuple(theirs.run(clips, setting=setting, batch=batch)),
        ours=tuple(ours.run(clips, setting=setting, batch=batch)),
    )


def measure(
    model: str,
    spoken: Sequence[Recording],
    *,
    batches: Sequence[int],
    rounds: int,
    assets: Path,
) -> tuple[list[dict], list[dict]]:
    """Check and time one Whisper; rows of error rates and speed, and rows of utterances."""
    weights = fetch_weights(f"whisper-{model}", assets)
    theirs, ours = Theirs(weights), Ours(weights)
    clips, seconds = [one.samples for one in spoken], sum(one.seconds for one in spoken)
    rows, utterances = [], []
    for setting, batch in [*(("plain", batch) for batch in batches), ("timestamps", batches[0])]:
        alternate.show(f"{model}, {setting}, batch {batch}")
        both = compare(theirs, ours, spoken, setting=setting, batch=batch)
        their_rate, our_rate = both.rates()
        print(f"\nwhisper-{model}, {setting}, batch {batch}\n{alternate.table(both.rows())}\n")
        if abs(our_rate - their_rate) > TOLERANCE:
            raise errors.UserError(
                f"{model}, {setting}, batch {batch}: word error rate {our_rate:.4f}, transformers "
                f"{their_rate:.4f}, tolerance {TOLERANCE}; nothing was timed"
            )
        about = {"model": model, "setting": setting, "batch": batch}
        utterances += [about | row for row in both.rows()]
        row = about | {
            "WER transformers": their_rate,
            "WER ltu_jax": our_rate,
            "difference": our_rate - their_rate,
            "same texts": f"{sum(map(str.__eq__, both.theirs, both.ours))} of {len(spoken)}",
            "x real time transformers": None,
            "x real time ltu_jax": None,
            "x transformers": None,
            "x transformers, CPU": None,
        }
        if setting == "plain":
            timed = _time(theirs, ours, clips, setting=setting, batch=batch, rounds=rounds)
            row |= {
                "x real time transformers": seconds / timed["transformers"].median,
                "x real time ltu_jax": seconds / timed["ltu_jax"].median,
                "x transformers": timed["transformers"].median / timed["ltu_jax"].median,
                "x transformers, CPU": timed["transformers"].cpu_median
                / timed["ltu_jax"].cpu_median,
                "timing": {name: timing.to_json() for name, timing in timed.items()},
            }
        rows.append(row)
    return rows, utterances


def _time(
    theirs: Theirs,
    ours: Ours,
    clips: Sequence[np.ndarray],
    *,
    setting: str,
    batch: int,
    rounds: int,
) -> dict[str, alternate.Timing]:
    def contender(name: str, side: Theirs | Ours) -> alternate.Contender:
        return alternate.Contender(
            name=name, run=lambda: side.run(clips, setting=setting, batch=batch)
        )

    return alternate.alternate(
        [contender("transformers", theirs), contender("ltu_jax", ours)], rounds=rounds
    )


def main() -> None:
    """Run the command line."""
    jax.config.update("jax_platforms", "cpu")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transcription",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="default both")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 6], help="default 1 6")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds (default 3)")
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="fetched packages")
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    spoken = recordings(given.assets)
    rows, utterances = [], []
    for model in given.models:
        made = measure(
            model, spoken, batches=given.batches, rounds=given.rounds, assets=given.assets
        )
        rows += made[0]
        utterances += made[1]
    print(alternate.table([{k: v for k, v in row.items() if k != "timing"} for row in rows]))
    about = {
        "what": "word error rate of real speech after Whisper's English normaliser; from samples "
        "to text, greedy",
        "dtype": "float32",
        "torch_threads": torch.get_num_threads(),
        "audio_seconds": round(sum(one.seconds for one in spoken), 2),
        "recordings": [
            {"name": one.name, "source": one.source, "seconds": round(one.seconds, 2)}
            for one in spoken
        ],
        "rows": rows,
        "utterances": utterances,
    }
    alternate.write("transcription", about, out=given.out)


if __name__ == "__main__":
    errors.main(main)
