"""The whole job at laptop size: `python -m ltu_jax.demo` (what `make demo` runs).

Weights -> mini corpus -> TFRecords -> tagging and stages 1 to 3 -> evaluation -> PyTorch export
-> three answers. Each step is the same command a user would type. Run again, a step whose command
is unchanged and whose product is there is skipped, or its command looks at every file it made and
does only what is missing; an interrupted step goes on where it stopped.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import inside, read_json, write_json
from ltu_jax.core.job_steps import Step, run
from ltu_jax.core.paths import local_arguments

QUESTIONS = (
    "Can you identify the spoken text?",
    "What sound is in the background?",
    "What can be inferred from the audio?",
)

# What the mini model must reach, fixed before any run: task, mode, sense and value.
BARS = (
    ("sound", "joint", ">=", 0.75),
    ("background", "joint", ">=", 0.55),
    ("music", "joint", ">=", 0.85),
    ("gender", "joint", ">=", 0.85),
    ("style", "joint", ">=", 0.80),
    ("joint_questions", "joint", ">=", 0.50),
    ("sound", "text", "<=", 0.15),
    ("sound", "shuffled", "<=", 0.15),
    ("sound", "silence", "<=", 0.15),
    ("spoken_text_vs_whisper", "joint", "<=", 0.05),  # word error rates, these two
    ("spoken_text", "audio", ">=", 0.80),
)
MINUTES = 35  # on two cores, with nothing else running


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folders:
    """Where the demo keeps its things."""

    assets: Path
    corpus: Path
    records: Path
    run: Path


def steps(folders: Folders) -> tuple[Step, ...]:
    """List the demo's steps in order."""
    whisper = folders.assets / "weights" / "whisper-tiny.en"
    llama = folders.assets / "weights" / "smollm2-135m"
    embedder = folders.assets / "weights" / "all-minilm-l6-v2"
    checkpoint = folders.run / "stage3"
    export = folders.run / "export"
    return (
        Step(
            name="weights",
            commands=(
                (
                    *("ltu_jax.fetch", whisper.name, llama.name, embedder.name),
                    *("--assets", str(folders.assets)),
                ),
            ),
            product=embedder / "config.json",
        ),
        Step(
            name="corpus",
            commands=(
                (
                    *("data_pipelines.build_mini", "--out", str(folders.corpus)),
                    *("--packages", str(folders.assets / "packages"), "--whisper", str(whisper)),
                ),
            ),
        ),
        Step(
            name="records",
            commands=(
                (
                    *("data_pipelines.write_records", "--corpus", str(folders.corpus)),
                    *("--out", str(folders.records), "--features", str(whisper)),
                ),
            ),
        ),
        Step(
            name="train",
            commands=(
                (
                    *("ltu_jax.train", "--config=configs/curriculum.py:mini"),
                    f"--config.run_dir={folders.run}",
                    f"--config.records={folders.records}",
                    f"--config.weights.llama={llama}",
                    f"--config.weights.whisper={whisper}",
                ),
            ),
        ),
        Step(
            name="evaluate",
            commands=(
                (
                    *("ltu_jax.evaluate", "--checkpoint", str(checkpoint), "--benchmarks", "mini"),
                    *("--data", str(folders.corpus), "--out", str(folders.run / "eval")),
                    *("--embedder", str(embedder), "--decodings", "greedy"),
                    *("--summary", str(folders.run / "summary.json")),
                ),
            ),
        ),
        Step(
            name="export",
            commands=(
                (
                    *("ltu_jax.convert", "--to", "ltu-as", "--checkpoint", str(checkpoint)),
                    *("--out", str(export / "ltu_as.safetensors")),
                ),
                (
                    *("ltu_jax.convert", "--to", "hf", "--checkpoint", str(checkpoint)),
                    *("--out", str(export / "hf")),
                ),
            ),
            product=export / "hf" / "config.json",
        ),
    )


def held_out_clip(corpus: Path) -> Path:
    """Find the first test clip with speech over a sound, whose transcript is not empty."""
    with open(corpus / "clips.jsonl") as lines:
        for line in lines:
            clip = json.loads(line)
            if clip["split"] == "test" and clip["kind"] == "joint" and clip["spoken_text"]:
                return inside(corpus, clip["audio"], where=corpus / "clips.jsonl")
    raise UserError(f"{corpus}/clips.jsonl has no test clip of speech over a sound; rebuild it")


def judge(tasks: Mapping[str, Any]) -> tuple[list[str], int]:
    """Hold the results against `BARS`.

    Args:
        tasks: `{task: {mode: {"value": ...}}}`, as summary.json has it.

    Returns:
        a line for each bar, and how many bars do not hold.
    """
    lines, failed = [], 0
    for task, mode, sense, bar in BARS:
        value = tasks[task][mode]["value"]
        holds = value >= bar if sense == ">=" else value <= bar
        failed += not holds
        lines.append(
            f"{task:<24}{mode:<10}{value:>6.2f} {sense} {bar:.2f}  {'holds' if holds else 'FAILED'}"
        )
    return lines, failed


def main() -> None:
    """Parse the command line, run every step, and end with 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(prog="python -m ltu_jax.demo", description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="fetched weights")
    parser.add_argument("--corpus", type=Path, default=Path("data/mini"), help="audio and pairs")
    parser.add_argument("--records", type=Path, default=Path("data/mini_records"), help="TFRecords")
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="checkpoints, results")
    folders = Folders(**vars(local_arguments(parser.parse_args())))

    log = folders.run / "steps.json"
    seconds = {step.name: run(step, log) for step in steps(folders)}
    clip = held_out_clip(folders.corpus)
    checkpoint = folders.run / "stage3"
    print(f"\n{(folders.run / 'eval' / 'results.txt').read_text()}")
    question = Step(
        name="ask",
        commands=(("ltu_jax.ask", "--checkpoint", str(checkpoint), str(clip), *QUESTIONS),),
    )
    seconds["ask"] = run(question, log)
    summary = read_json(folders.run / "summary.json")
    summary["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    write_json(folders.run / "summary.json", summary)
    minutes = sum(summary["seconds"].values()) / 60
    lines, failed = judge(summary["tasks"])
    print("\n" + "\n".join(lines))
    print(f"\nseconds     {summary['seconds']}")
    print(f"minutes     {minutes:.1f}, at most {MINUTES} with nothing else running")
    print(f"checkpoint  {checkpoint}")
    print(f"PyTorch     {folders.run / 'export'}")
    print(f"table       {folders.run / 'summary.json'}, {folders.run / 'eval' / 'results.png'}")
    print(f"ask more    python -m ltu_jax.ask --checkpoint {checkpoint} CLIP.wav 'QUESTION'")
    print(f"bars        {len(BARS) - failed} of {len(BARS)} hold")
    sys.exit(failed > 0)


if __name__ == "__main__":
    errors.main(main)
