"""How well rows are filled: pairs and clips per row, and padding, for each way to lay out a corpus.

    python -m benchmarks.row_layouts --records data/mini_records \
        --tokenizer assets/weights/smollm2-135m [--tasks classification] [--json FILE]
    python -m benchmarks.row_layouts --modelled [--tasks classification] [--json FILE]

No audio is read and nothing is trained: tokens are counted and rows are planned. "TF/pair" is the
matrix FLOPs of LTU-AS 7B with the encoder on the fly, for padding and empty places too; "gain" is
relative to the best single-pair rows. `--modelled` stands for Open-ASQA where it is not at hand: a
fortieth of `ltu_jax/planning/open_asqa_model.py`, by which plans are made too.
"""

import argparse
import dataclasses
from pathlib import Path

from benchmarks import alternate
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.input.row_report import RowReport
from ltu_jax.core.files import write_json
from ltu_jax.planning import open_asqa_model
from ltu_jax.preprocessing.text import load_tokenizer

# Per clip: encoder over 10 s and trained TLTR; per position: frozen 7B forward and backward (4N).
CLIP_TFLOP, POSITION_TFLOP, AUDIO_TOKENS = 0.676 + 0.189, 25.9e-3, 25
SHARE = 1 / 40  # of Open-ASQA that is modelled

SINGLE = dict(layout="single", rows_per_batch=256, group_by_length=50)
LAYOUTS: dict[str, dict] = {
    "official collator": dict(layout="reference", rows_per_batch=256, group_by_length=50),
    "single, sorted, multiples of 8": SINGLE,
    "single, sorted, 6 lengths": {**SINGLE, "lengths": (32, 48, 64, 80, 96, 108)},
}
for _cap, _clips, _room, _rows in (
    (1, 1, 108, 256), (2, 1, 216, 128), (4, 1, 432, 64), (8, 1, 864, 32),
    (4, 2, 334, 64), (8, 2, 334, 64), (8, 2, 512, 40), (8, 2, 622, 32), (16, 2, 622, 32),
    (8, 3, 622, 32), (8, 5, 659, 32), (8, 6, 634, 32), (16, 3, 1280, 16),
):  # fmt: skip
    LAYOUTS[f"grouped, {_cap} a clip, {_clips} clips, {_room} tokens"] = dict(
        layout="grouped",
        pairs_per_clip=_cap,
        clips_per_row=_clips,
        row_tokens=_room,
        rows_per_batch=_rows,
    )


def cost(report: RowReport, *, clips: int) -> float:
    """Return TFLOP per pair, empty places and padding included."""
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
    parser.add_argument("--tasks", nargs="+", default=["all"], help="as config.data.tasks")
    parser.add_argument("--cutoff", type=int, default=108)
    parser.add_argument("--json", type=Path, help="write the figures there too")
    flags = parser.parse_args()
    if flags.records and not flags.tokenizer:
        parser.error("--records needs --tokenizer")
    found = {}
    if flags.modelled:
        mean = open_asqa_model.MEAN_TEXT["stage3" if flags.tasks == ["all"] else "stage2"]
        pairs = open_asqa_model.corpus(
            tasks=flags.tasks, datasets=("all",), mean=mean, cutoff=flags.cutoff, share=SHARE
        )
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
            report = open_asqa_model.rows(config, *pairs)
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
        }
        write_json(flags.json, alternate.header() | about | {"layouts": found})


if __name__ == "__main__":
    main()
