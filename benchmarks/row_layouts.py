"""How well rows are filled: pairs and clips per row, and padding, for each way to lay out a corpus.

    python -m benchmarks.row_layouts --records data/mini_records \
        --tokenizer assets/weights/smollm2-135m [--tasks classification] [--json FILE]
    python -m benchmarks.row_layouts --modelled [--tasks classification] [--json FILE]

No audio is read and nothing is trained: tokens are counted and rows are planned. "TF/pair" is the
matrix FLOPs of LTU-AS 7B with the encoder on the fly, for padding and empty places too; "gain" is
relative to the best single-pair rows. `--modelled` stands for Open-ASQA where it is not at hand: a
fortieth of its clips and pairs per dataset (poster), lengths drawn around the mean of 78 tokens
that follows from the authors' logs.
"""

import argparse
import dataclasses
import platform
from datetime import date
from pathlib import Path

import numpy as np

from data_pipelines.data_config import DataConfig
from data_pipelines.input_pipeline import InputPipeline
from data_pipelines.order import RowOrder
from data_pipelines.row_report import RowReport, row_report
from ltu_jax.core.files import write_json
from ltu_jax.preprocessing.text import load_tokenizer

# Per clip: encoder over 10 s and trained TLTR; per position: frozen 7B forward and backward (4N).
CLIP_TFLOP, POSITION_TFLOP, AUDIO_TOKENS = 0.676 + 0.189, 25.9e-3, 25

SINGLE = dict(layout="single", rows_per_batch=256, group_by_length=50)
LAYOUTS: dict[str, dict] = {
    "official collator": dict(layout="reference", rows_per_batch=256, group_by_length=50),
    "single, sorted, multiples of 8": SINGLE,
    "single, sorted, 6 lengths": {**SINGLE, "lengths": (32, 48, 64, 80, 96, 108)},
}
for _cap, _clips, _room, _rows in (
    (1, 1, 108, 256), (2, 1, 216, 128), (4, 1, 432, 64), (8, 1, 864, 32),
    (4, 2, 334, 64), (8, 2, 334, 64), (8, 2, 512, 40), (8, 2, 622, 32), (16, 2, 622, 32),
    (8, 3, 622, 32), (8, 5, 659, 32), (16, 3, 1280, 16),
):  # fmt: skip
    LAYOUTS[f"grouped, {_cap} a clip, {_clips} clips, {_room} tokens"] = dict(
        layout="grouped",
        pairs_per_clip=_cap,
        clips_per_row=_clips,
        row_tokens=_room,
        rows_per_batch=_rows,
    )


# Thousands of clips, closed-ended and open-ended pairs of each dataset (poster).
OPEN_ASQA = (
    (102, 683, 901), (500, 538, 184), (184, 367, 907), (41, 82, 403), (46, 97, 478), (91, 91, 791),
    (5, 48, 89), (1.2, 12, 10), (4.3, 26, 83), (22, 167, 418), (107, 194, 926), (18, 554, 355),
    (82, 0, 747), (93, 93, 396),
)  # fmt: skip


def modelled(tasks: str) -> tuple[np.ndarray, np.ndarray]:
    """The clip and the uncut tokens of each pair of a corpus like Open-ASQA."""
    rng, counts = np.random.default_rng(0), []
    for clips, closed, opened in OPEN_ASQA:
        mean = (closed + (0 if tasks == "closed" else opened)) / clips
        drawn = int(mean) + (rng.random(int(25 * clips)) < mean % 1)
        if mean > 4:  # datasets of many pairs a clip vary; their spread is not published
            spread = 1 + 0.25 * rng.standard_normal(len(drawn))
            drawn = np.maximum(1, np.round(drawn * spread)).astype(int)
        counts.append(drawn)
    counts = np.concatenate(counts)
    clips = np.repeat(np.arange(len(counts)), counts)
    return clips, np.maximum(30, np.round(rng.gamma(9, 78 / 9, len(clips)))).astype(int)


def planned(config: DataConfig, clips: np.ndarray, whole: np.ndarray) -> RowReport:
    """The report of rows of given pairs."""
    order = RowOrder(
        records=clips,
        pairs=np.arange(len(clips)),
        tokens=np.minimum(whole, config.cutoff),
        pairs_per_clip=config.pairs_per_clip,
        clips_per_row=config.clips_per_row,
        row_tokens=config.room,
        rows_per_batch=config.rows_per_batch,
        seed=config.seed,
        shuffle=True,
        group_batches=0 if config.one_length else config.group_by_length,
    )
    return row_report(order, config, whole=whole)


def cost(report: RowReport, *, clips: int) -> float:
    """TFLOP per pair, empty places and padding included."""
    text = report.pairs * report.tokens_per_pair / (1 - report.padding)
    heard = report.rows * clips
    positions = text + heard * AUDIO_TOKENS
    return (heard * CLIP_TFLOP + positions * POSITION_TFLOP) / report.pairs


def main() -> None:
    """Print the table and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--records", type=Path, help="records directory, with --tokenizer")
    given.add_argument("--modelled", action="store_true", help="a model of Open-ASQA")
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer")
    parser.add_argument("--split", default="train")
    parser.add_argument("--tasks", default="*", help='"closed" or "*"')
    parser.add_argument("--cutoff", type=int, default=108)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    flags = parser.parse_args()
    if flags.records and not flags.tokenizer:
        parser.error("--records needs --tokenizer")
    found = {}
    for name, changes in LAYOUTS.items():
        values = dict(pairs_per_clip=1, clips_per_row=1) | changes
        config = DataConfig(
            records=str(flags.records),
            split=flags.split,
            cutoff=flags.cutoff,
            train_on="all",
            features="on_the_fly",
            seed=0,
            audio_tokens=AUDIO_TOKENS,
            n_mels=80,
            tasks=flags.tasks,
            **values,
        )
        if flags.modelled:
            report = planned(config, *modelled(flags.tasks))
        else:
            tokenizer = load_tokenizer(flags.tokenizer)
            report = InputPipeline(config, tokenizer=tokenizer).report()
        found[name] = {
            **dataclasses.asdict(report),
            "tflop_per_pair": cost(report, clips=config.clips_per_row),
        }
    best = min(f["tflop_per_pair"] for name, f in found.items() if name.startswith("single"))
    head = ("layout", "rows", "pairs/row", "clips/row", "pairs/step", "padding", "TF/pair", "gain")
    print(f"{head[0]:40}" + "".join(f"{cell:>11}" for cell in head[1:]))
    for name, f in found.items():
        f["gain"] = best / f["tflop_per_pair"]
        cells = (
            f["rows"], f"{f['pairs'] / f['rows']:.2f}", f"{f['clips_per_row']:.2f}",
            f"{f['pairs_per_step']:.0f}", f"{100 * f['padding']:.1f} %",
            f"{f['tflop_per_pair']:.2f}", f"{f['gain']:.2f}",
        )  # fmt: skip
        print(f"{name:40}" + "".join(f"{cell!s:>11}" for cell in cells))
    one = next(iter(found.values()))
    print(f"{one['pairs']} pairs of {one['tokens_per_pair']:.1f} tokens, {one['cut_pairs']} cut")
    if flags.json:
        about = {
            "what": __doc__.split("\n")[0],
            "records": "modelled on Open-ASQA" if flags.modelled else str(flags.records),
            "split": flags.split,
            "tasks": flags.tasks,
            "cutoff": flags.cutoff,
            "tokenizer": None if flags.modelled else flags.tokenizer.name,
            "date": date.today().isoformat(),
            "python": platform.python_version(),
        }
        write_json(flags.json, {**about, "layouts": found})


if __name__ == "__main__":
    main()
