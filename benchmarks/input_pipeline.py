"""Speed of the input pipeline: FLAC decode, log-mel, tokenise, lay out and batch; no model runs.

    python -m benchmarks.input_pipeline [--records DIR | --clips 200] [--threads 1 2] [--out DIR]

Records are made for the benchmark unless --records names some: 10 s clips of tones in noise with
nine pairs each, about what Open-ASQA has. Every row reads one epoch: rows grouped by clip, where a
clip is decoded once for all its pairs, and one pair a row, where it is decoded for each; with
log-mel made on the fly, and with stored Whisper features in its place. The settings take turns.
CPU seconds are those of all threads of the process.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import alternate
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.records import record_files
from data_pipelines.records.schema import AnnotatedClip, QAPair
from data_pipelines.records.whisper_features import FeatureExtractor
from data_pipelines.records.write import write_records
from ltu_jax.core import errors
from ltu_jax.core.files import read_json
from ltu_jax.preprocessing.audio import SAMPLE_RATE
from ltu_jax.preprocessing.text import load_tokenizer

SECONDS, PAIRS = 10, 9
WORDS = (
    "dog",
    "barking",
    "rain",
    "on",
    "a",
    "metal",
    "roof",
    "and",
    "somebody",
    "speaks",
    "loudly",
)
WHISPER, TOKENIZER = Path("assets/weights/whisper-tiny.en"), Path("assets/weights/smollm2-135m")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table."""

    layout: str
    features: str
    threads: int

    @property
    def name(self) -> str:
        return f"{self.layout}, {self.features}, {self.threads} thread(s)"


def require_tokenizer() -> None:
    """Raise a `UserError` where the tokenizer is not there yet."""
    if not TOKENIZER.is_dir():
        raise errors.UserError(
            f"no tokenizer in {TOKENIZER}; make it with `python -m ltu_jax.fetch smollm2-135m`"
        )


def make_clip(folder: Path, number: int) -> AnnotatedClip:
    """Make a clip of random tones in noise, and questions of random words."""
    rng = np.random.default_rng(number)
    time = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * f * time) for f in rng.uniform(80, 4000, 4))
    samples = 0.1 * tones * (1 + np.sin(2 * np.pi * time)) / 2 + 0.02 * rng.normal(size=time.size)
    path = folder / f"{number}.flac"
    soundfile.write(path, samples.astype(np.float32), SAMPLE_RATE, subtype="PCM_16")
    return AnnotatedClip(
        clip_id=f"clip{number}",
        audio=path,
        sample_rate=SAMPLE_RATE,
        seconds=float(SECONDS),
        spoken_text=" ".join(rng.choice(WORDS, 10)) if number % 2 else "",
        dataset="benchmark",
        split="train",
        synthetic=True,
        tags=(),
        pairs=tuple(
            QAPair(
                pair_id=f"p{place}",
                instruction=" ".join(rng.choice(WORDS, 12)) + "?",
                output=" ".join(rng.choice(WORDS, int(rng.integers(4, 40)))),
                task="open_describe",
                closed_ended=False,
            )
            for place in range(PAIRS)
        ),
    )


def make_records(scratch: Path, *, clips: int) -> Path:
    """Write records of `clips` clips, with features if Whisper's weights are there."""
    out, audio = scratch / f"records-{clips}", scratch / f"audio-{clips}"
    if not (out / record_files.MANIFEST).is_file():
        audio.mkdir(parents=True, exist_ok=True)
        there = (WHISPER / "config.json").is_file()
        extractor = FeatureExtractor(WHISPER) if there else None
        write_records([make_clip(audio, n) for n in range(clips)], out, extractor=extractor)
    return out


def open_pipeline(records: Path, setting: Setting, *, most_pairs: int, rows: int) -> InputPipeline:
    """Open the pipeline of a stage over these records."""
    config = DataConfig(
        records=str(records),
        split="train",
        layout=setting.layout,
        cutoff=108,
        pairs_per_clip=most_pairs if setting.layout == "grouped" else 1,
        clips_per_row=1,
        rows_per_batch=rows,
        train_on="all",
        features=setting.features,
        seed=0,
        audio_tokens=25,
        n_mels=80,
        workers=setting.threads,
    )
    return InputPipeline(config, tokenizer=load_tokenizer(TOKENIZER))


def measure(
    records: Path, *, threads: list[int], layouts: list[str], rows: int, rounds: int
) -> dict[str, Any]:
    """Time every setting over one epoch; return the rows of the table."""
    manifest = read_json(records / record_files.MANIFEST)
    split = manifest["splits"]["train"]
    clips, pairs = split["clips"], split["pairs"]
    kinds = ["on_the_fly"] + (["stored"] if manifest["features"] else [])
    settings = [
        Setting(layout=layout, features=kind, threads=count)
        for layout in layouts
        for kind in kinds
        for count in threads
    ]
    store = record_files.RecordStore(str(records), split="train")
    most = max(len(entry.pairs) for entry in store.entries)

    def contender(setting: Setting) -> alternate.Contender:
        pipeline = open_pipeline(records, setting, most_pairs=most, rows=rows)

        def epoch() -> None:
            for _ in pipeline.batches(steps=pipeline.steps_per_epoch):
                pass

        return alternate.Contender(name=setting.name, run=epoch)

    timed = alternate.alternate([contender(setting) for setting in settings], rounds=rounds)
    found = []
    for setting in settings:
        timing = timed[setting.name]
        heard = clips if setting.layout == "grouped" else pairs
        found.append(
            {
                **dataclasses.asdict(setting),
                "pairs_per_second": pairs / timing.median,
                "clips_per_second": heard / timing.median,
                "cpu_seconds_per_1000_clips": timing.cpu_median / heard * 1000,
                "x first": timed[settings[0].name].median / timing.median,
            }
        )
    return {
        "clips": clips,
        "pairs": pairs,
        "stored_features": manifest["features"] is not None,
        "rows": found,
        "timings": {name: timing.to_json() for name, timing in timed.items()},
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input_pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--records", type=Path, help="records directory (default: made here)")
    parser.add_argument("--clips", type=int, default=200, help="clips made (default 200)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default 1 2")
    parser.add_argument(
        "--layouts", nargs="+", choices=("grouped", "single"), default=["grouped", "single"]
    )
    parser.add_argument("--batch", type=int, default=8, help="rows of a batch (default 8)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--scratch", type=Path, default=Path("build/input_pipeline"))
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    require_tokenizer()
    records = given.records or make_records(given.scratch, clips=given.clips)
    found = measure(
        records,
        threads=given.threads,
        layouts=given.layouts,
        rows=given.batch,
        rounds=given.rounds,
    )
    print(alternate.table(found["rows"]))
    about = {"what": "one epoch of batches, no model", "records": records.name}
    alternate.write("input_pipeline", about | found, out=given.out)


if __name__ == "__main__":
    errors.main(main)
