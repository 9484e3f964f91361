"""Make the model of the package again, from nothing: `python -m ltu_jax.make_pretrained`.

Base weights -> recordings -> voices -> windows -> questions and spoken text -> TFRecords -> tagging
and stages 1 to 3 -> evaluation on held-out packages and voices -> the model and its card. Each step
is a command that a user would type (docs/pretrained.md). About 6 GB are fetched, and two cores take
some hours. Run again, a step that is done is skipped, and one that was stopped goes on.
"""

import argparse
import dataclasses
from pathlib import Path

from ltu_jax.core import errors
from ltu_jax.core.files import read_json
from ltu_jax.core.job_steps import Step, run
from ltu_jax.core.paths import local_arguments
from ltu_jax.weights import adapter_folder

SENTENCES = 500
OF_CLASS, QUIET = 48, 60  # windows of each class; of silence, and of noise
MORE = 0.2  # of the windows have a second sound
COMMAND = "python -m ltu_jax.make_pretrained"
_LIMITS = Path(__file__).parent / "shipping" / "limits.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobFolders:
    """Where the job keeps its things.

    Attributes:
        assets: what is fetched, and the rendered voices.
        data: windows, their questions and records.
        run: checkpoints and results.
        out: the model of the package.
    """

    assets: Path
    data: Path
    run: Path
    out: Path

    @property
    def sources(self) -> Path:
        """The list of sources that questions are made of: the windows."""
        return self.data / "real_sources.toml"


def steps(folders: JobFolders, *, sentences: int) -> tuple[Step, ...]:
    """List the steps in order.

    Args:
        folders: folders.
        sentences: how many voices say.
    """
    whisper = folders.assets / "weights" / "whisper-base"
    llama = folders.assets / "weights" / "smollm2-135m"
    recordings, speech = folders.assets / "recordings", folders.assets / "speech"
    corpus, records = folders.data / "real", folders.data / "real_records"
    asqa, rows = folders.data / "real_asqa", folders.data / "real_rows.jsonl"
    checkpoint, summary = folders.run / "stage3", folders.run / "summary.json"
    commands = {
        "weights": (("ltu_jax.fetch", whisper.name, llama.name, "--assets", folders.assets),),
        "recordings": (("data_pipelines.real.fetch_recordings", "--out", recordings),),
        "voices": (
            (
                *("data_pipelines.speech.render_speech", "--out", speech),
                *("--sentences", sentences, "--cache", folders.assets / "packages"),
            ),
        ),
        "windows": (
            (
                *("data_pipelines.real.build_windows", "--out", corpus, "--ships-only"),
                *("--recordings", recordings, "--speech", speech, "--of-class", OF_CLASS),
                *("--more", MORE, "--quiet", QUIET, "--cache", folders.assets / "packages"),
            ),
        ),
        "questions": (
            ("data_pipelines.open_asqa", "build", "--sources", folders.sources, "--out", asqa),
            (
                *("data_pipelines.open_asqa", "transcribe", asqa),
                *("--model", whisper, "--skip-silence", "--unspoken", 0.1),
            ),
            ("data_pipelines.open_asqa", "style", asqa),
            ("data_pipelines.open_asqa", "merge", asqa, "--out", rows),
        ),
        "records": (
            (
                *("data_pipelines.write_records", "--corpus", corpus, "--questions", rows),
                *("--out", records, "--features", whisper, "--tokenizer", llama),
            ),
        ),
        "train": (
            (
                *("ltu_jax.train", "--config=configs/curriculum.py:real"),
                f"--config.run_dir={folders.run}",
                f"--config.records={records}",
                f"--config.weights.llama={llama}",
                f"--config.weights.whisper={whisper}",
                f"--config.tagging.data.teacher={corpus / 'teacher_scores.jsonl'}",
            ),
        ),
        "evaluate": (
            (
                *("ltu_jax.evaluate", "--checkpoint", checkpoint, "--benchmarks", "real"),
                *("--data", corpus, "--out", folders.run / "eval", "--decodings", "greedy"),
                *("--summary", summary),
            ),
        ),
        "ship": (
            (
                *("ltu_jax.ship", "--run", checkpoint, "--out", folders.out, "--corpus", corpus),
                *("--recordings", recordings, "--command", COMMAND, "--limits", _LIMITS),
                *("--scores", f"held-out packages and voices={summary}"),
            ),
        ),
    }
    return tuple(
        Step(name=name, commands=tuple(tuple(map(str, command)) for command in own))
        for name, own in commands.items()
    )


def write_sources(folders: JobFolders) -> None:
    """Write the list of sources that `open_asqa build` reads."""
    folders.data.mkdir(parents=True, exist_ok=True)
    folder = str((folders.data / "real").absolute()).replace("\\", "\\\\").replace('"', '\\"')
    text = f'[real_windows]\nmetadata = "{folder}"\naudio = "{folder}"\n'
    folders.sources.write_text(text, encoding="utf-8")


def main() -> None:
    """Parse the command line and run every step."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("assets"), help="what is fetched")
    parser.add_argument("--data", type=Path, default=Path("data"), help="windows and records")
    parser.add_argument("--run", type=Path, default=Path("runs/real"), help="checkpoints, results")
    parser.add_argument(
        "--out",
        type=Path,
        default=adapter_folder.SHIPPED,
        help="the model (default: of the package)",
    )
    parser.add_argument("--sentences", type=int, default=SENTENCES, help="that voices say")
    parser.add_argument("--until", metavar="STEP", help="stop behind this step")
    given = local_arguments(parser.parse_args())
    folders = JobFolders(assets=given.assets, data=given.data, run=given.run, out=given.out)
    listed = steps(folders, sentences=given.sentences)
    names = [step.name for step in listed]
    if given.until is not None and given.until not in names:
        raise errors.UserError(f"--until {given.until}: give one of {', '.join(names)}")
    write_sources(folders)
    log = folders.run / "steps.json"
    log.parent.mkdir(parents=True, exist_ok=True)
    for step in listed:
        run(step, log)
        if step.name == given.until:
            break
    for name, done in read_json(log).items():
        print(f"{name:<12}{done['seconds'] / 60:>8.1f} min")


if __name__ == "__main__":
    errors.main(main)
