"""Find out what a Whisper writes over silence and noise, for `transcribe --phrases`.

    python -m data_pipelines.open_asqa harvest --model weights/whisper-large-v2 --out phrases.json

Nobody speaks there, so whatever it writes is invented. `transcribe` does this by itself for a model
of which it knows no list. What was heard is kept in OUT.work until the list is whole.
"""

import argparse
import shutil
from pathlib import Path

from data_pipelines.open_asqa import invented_phrases
from data_pipelines.open_asqa.clip_whisper import ClipWhisper
from data_pipelines.open_asqa.text_tables import table
from ltu_jax.core import outputs
from ltu_jax.core.files import write_json
from ltu_jax.core.lock import RunLock
from ltu_jax.core.paths import argument
from ltu_jax.core.values import whole

MAKER = outputs.Maker(
    name="`python -m data_pipelines.open_asqa harvest`",
    folder=False,
    before=outputs.json_with("model", "sha256", "phrases"),
)
_SHOWN, _WIDE = 20, 60  # phrases in the table, and characters of each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument("--model", type=argument, required=True, help="Whisper: folder or hf:NAME")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--clips", type=int, default=invented_phrases.CLIPS, help="of noise")
    parser.add_argument("--seed", type=int, default=0, help="of the noises")
    parser.add_argument("--batch", type=int, default=16, help="windows decoded together")
    parser.add_argument("--workers", type=int, default=2, help="threads that make noises")


def run(arguments: argparse.Namespace) -> None:
    """Run the step; see the module's docstring."""
    for name in ("clips", "batch", "workers"):
        whole(name, getattr(arguments, name))
    out = outputs.claim(arguments.out, MAKER)
    work = out.with_name(f"{out.name}.work")
    whisper = ClipWhisper(arguments.model, batch=arguments.batch, silence_above=None)
    with RunLock(work, job="hearing noises").hold(), whisper.journal(work) as journal:
        found = invented_phrases.harvest(
            whisper, journal, workers=arguments.workers, clips=arguments.clips, seed=arguments.seed
        )
        write_json(out, found, MAKER)
    shutil.rmtree(work)
    phrases = list(found["phrases"].items())
    rows = [
        (text[:_WIDE], about["clips"], about["no_speech_prob"]) for text, about in phrases[:_SHOWN]
    ]
    print(table(("phrase", "clips", "least no-speech probability"), rows))
    print(f"{out}: {len(phrases)} phrases of {arguments.clips} clips without speech")
