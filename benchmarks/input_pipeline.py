"""Speed of the input pipeline: FLAC decode, log-mel, tokenise, lay out and batch; no model runs.

    python -m benchmarks.input_pipeline [--records DIR | --clips 200] [--layouts grouped single]
                                        [--bucket 0 0.05] [--out DIR]

Records are made for the benchmark unless --records names some: 10 s clips of tones in noise with
nine pairs each, about what Open-ASQA has. Grouped rows hold a clip, decoded once for all its pairs;
single rows hold a pair, and a clip is decoded for each; log-mel is made on the fly, and where the
records hold Whisper features these are read in its place too.

Each setting is a process of its own, held to one core or to two by taskset, with a worker a core.
They take turns; one draws while the others stand still. The bucket is an emulator on loopback,
which answers at once or after so many seconds; it runs on the same cores and takes time of them.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import alternate
from data_pipelines.records import record_files
from data_pipelines.records.schema import AnnotatedClip, QAPair
from data_pipelines.records.whisper_features import FeatureExtractor
from data_pipelines.records.write import write_records
from ltu_jax.core import errors
from ltu_jax.core.files import read_json
from ltu_jax.core.hardware import cores
from ltu_jax.preprocessing.audio import SAMPLE_RATE

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
    """One row of the table; `delay` is how late a bucket answers, None for records on disk."""

    layout: str
    features: str
    cores: int
    delay: float | None = None

    @property
    def place(self) -> str:
        return "disk" if self.delay is None else f"bucket, {1000 * self.delay:g} ms away"

    @property
    def name(self) -> str:
        return f"{self.layout}, {self.features}, {self.place}, {self.cores} core(s)"


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
    """A process that draws batches of a setting when it is told to."""

    setting: Setting
    process: subprocess.Popen

    def draw(self, batches: int) -> dict[str, Any]:
        """Have batches drawn; return what `input_contender.times` counted of them."""
        print(batches, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())


@contextlib.contextmanager
def drawing(setting: Setting, *, records: str, rows: int, pairs_per_clip: int) -> Iterator[Drawn]:
    """Start the process of a setting on its cores, and wait until it has a batch."""
    given = {
        "records": records,
        "rows": rows,
        "pairs_per_clip": pairs_per_clip,
        "tokenizer": str(TOKENIZER),
        "workers": setting.cores,
        "layout": setting.layout,
        "features": setting.features,
    }
    chosen = ",".join(map(str, sorted(os.sched_getaffinity(0))[: setting.cores]))
    command = ["taskset", "-c", chosen, sys.executable, "-m", "benchmarks.input_contender"]
    with subprocess.Popen(
        [*command, json.dumps(given)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if not process.stdout.readline():
            raise RuntimeError(f"{setting.name}: its process ended; the reason stands above")
        yield Drawn(setting=setting, process=process)
        process.stdin.close()


def settings_of(
    *, layouts: list[str], kinds: list[str], delays: list[float]
) -> list[tuple[Setting, ...]]:
    """Return what is compared, the first of each group being what the others are set against."""
    counts = [count for count in (1, 2) if count <= cores()]
    groups = []
    for layout in layouts:
        for kind in kinds:
            group = [Setting(layout=layout, features=kind, cores=count) for count in counts]
            if kind == "on_the_fly":
                group += [
                    Setting(layout=layout, features=kind, cores=counts[-1], delay=delay)
                    for delay in delays
                ]
            groups.append(tuple(group))
    return groups


def measure(
    records: Path, *, layouts: list[str], delays: list[float], rows: int, rounds: int, batches: int
) -> dict[str, Any]:
    """Time every setting by turns; return the rows of the table."""
    manifest = read_json(records / record_files.MANIFEST)
    split = manifest["splits"]["train"]
    kinds = ["on_the_fly"] + (["stored"] if manifest["features"] else [])
    groups = settings_of(layouts=layouts, kinds=kinds, delays=delays)
    store = record_files.RecordStore(str(records), split="train")
    most = max(len(entry.pairs) for entry in store.entries)
    with contextlib.ExitStack() as open_:
        bucket = open_.enter_context(_bucket(records)) if delays else None

        def start(setting: Setting) -> Drawn:
            alternate.show(f"start of {setting.name}")
            place = str(records) if setting.delay is None else bucket.address
            return open_.enter_context(
                drawing(setting, records=place, rows=rows, pairs_per_clip=most)
            )

        drawn = [start(setting) for group in groups for setting in group]
        timed: dict[Setting, list[dict[str, Any]]] = {one.setting: [] for one in drawn}
        for number in range(rounds):
            alternate.show(f"round {number + 1} of {rounds}")
            for one in drawn if number % 2 == 0 else drawn[::-1]:
                if bucket is not None:
                    bucket.storage.delay = one.setting.delay or 0.0
                timed[one.setting].append(one.draw(batches))
    compared = []
    for group in groups:
        told = [_row(setting, timed[setting], clips=batches * rows) for setting in group]
        for row in told:
            for name in ("clips_per_second", "clips_per_second_alone"):
                row[f"x one core, {name}"] = row[name] / told[0][name]
        compared += told
    return {
        "clips": split["clips"],
        "pairs": split["pairs"],
        "stored_features": manifest["features"] is not None,
        "batches": batches,
        "rows_per_batch": rows,
        "rows": compared,
        "timings": {setting.name: found for setting, found in timed.items()},
    }


def _row(setting: Setting, timed: list[dict[str, Any]], *, clips: int) -> dict[str, Any]:
    """Return rates by the clock, and what they would be with the cores to itself.

    Other processes take their part of the cores. A worker that could run and had none waits, which
    the kernel counts; one without a row to make sleeps. So it is known how many cores the workers
    would have kept busy, and what a clip takes of one is measured.
    """
    walls = np.asarray([one["seconds"] for one in timed])
    workers = np.asarray([one["workers"] for one in timed])  # [rounds, workers, used and waited]
    used = workers[..., 0].sum(axis=1)
    whole = used + np.asarray([one["own"][0] for one in timed])
    busy = np.minimum(workers.sum(axis=2) / walls[:, None], 1).sum(axis=1)
    rates = np.minimum(busy / used, setting.cores / whole) * clips
    return {
        "layout": setting.layout,
        "features": setting.features,
        "from": setting.place,
        "cores": setting.cores,
        "clips_per_second": clips / float(np.median(walls)),
        "cpu_ms_a_clip": 1000 * float(np.median(whole)) / clips,
        "cores_had": float(np.median(whole / walls)),
        "workers_busy": float(np.median(busy)),
        "clips_per_second_alone": float(np.median(rates)),
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Bucket:
    address: str
    storage: Any


@contextlib.contextmanager
def _bucket(records: Path) -> Iterator[_Bucket]:
    from tests.support import bucket  # the emulator of the tests

    with bucket.served() as storage:
        yield _Bucket(address=storage.take(records, "records"), storage=storage)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.input_pipeline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--records", type=Path, help="records directory (default: made here)")
    parser.add_argument("--clips", type=int, default=200, help="clips made (default 200)")
    parser.add_argument("--layouts", nargs="+", choices=("grouped", "single"), default=["grouped"])
    parser.add_argument(
        "--bucket", type=float, nargs="*", default=[0.0, 0.05], metavar="SECONDS",
        help="how late it answers (default 0 0.05; none: no bucket)",
    )  # fmt: skip
    parser.add_argument("--batch", type=int, default=8, help="rows of a batch (default 8)")
    parser.add_argument("--batches", type=int, default=25, help="of a round (default 25)")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (default 5)")
    parser.add_argument("--scratch", type=Path, default=Path("build/input_pipeline"))
    parser.add_argument("--out", type=Path, default=alternate.RESULTS, help="folder of the JSON")
    given = parser.parse_args()
    require_tokenizer()
    records = given.records or make_records(given.scratch, clips=given.clips)
    found = measure(
        records,
        layouts=given.layouts,
        delays=given.bucket,
        rows=given.batch,
        rounds=given.rounds,
        batches=given.batches,
    )
    print(alternate.table(found["rows"]))
    about = {"what": "a steady stream of batches, no model", "records": records.name}
    alternate.write("input_pipeline", about | found, out=given.out)


if __name__ == "__main__":
    errors.main(main)
