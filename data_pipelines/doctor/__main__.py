"""Examine data before training on it: what is there, what is broken, what leaks, what is cut.

    python -m data_pipelines.doctor data/mini --tokenizer weights/vicuna-7b-v1.1
    python -m data_pipelines.doctor data/open_asqa_records --html report.html --json report.json
    python -m data_pipelines.doctor mine.json --audio-root clips --limit silent=0.01

DATA is a corpus folder, a records directory, or a JSON or JSONL file of Open-ASQA rows. Every clip
is decoded. The terminal shows a summary, the HTML file everything with plots, the JSON file all
numbers and up to 50 examples of each check. Exit status: 0 healthy, 1 some check is above its
limit (--limit NAME=SHARE changes one; the summary names them), 2 there is no data to examine.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from configs import common
from data_pipelines.doctor import checks, page
from data_pipelines.doctor.examination import Orders, examine
from ltu_jax.core import errors, outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, write_json
from ltu_jax.core.paths import argument, local_arguments
from ltu_jax.preprocessing.text import Tokenizer, load_tokenizer
from ltu_jax.weights import places

_NAME = "`python -m data_pipelines.doctor`"
PAGE = outputs.Maker(
    name=_NAME, folder=False, before=outputs.text_with("<!doctype html>", "<title>doctor: ")
)
NUMBERS = outputs.Maker(
    name=_NAME, folder=False, before=outputs.json_with("data", "kind", "heard", "ok", "checks")
)
CUTOFF = common.base("stage1", recipe="").data.cutoff


def command(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; see the module's docstring."""
    flags = _flags(arguments)
    for name, least in (("cutoff", 2), ("every", 1), ("workers", 1)):
        if getattr(flags, name) < least:
            raise UserError(f"--{name} is {getattr(flags, name)}; it must be at least {least}")
    reads = [flags.data, flags.audio_root, flags.tokenizer]
    for given, maker, option in ((flags.html, PAGE, "--html"), (flags.json, NUMBERS, "--json")):
        if given is not None:
            outputs.claim(given, maker, inputs=reads, option=option)
    orders = Orders(
        data=flags.data,
        audio_root=flags.audio_root,
        tokenizer=None if flags.tokenizer is None else _tokenizer(flags.tokenizer),
        cutoff=flags.cutoff,
        every=flags.every,
        limits=checks.read_limits(flags.limit),
        workers=flags.workers,
    )
    with tqdm(desc="examining", unit="clip", disable=None) as bar:
        report = examine(orders, progress=bar)
    print(page.summary(report))
    if flags.html is not None:
        with atomic_file(flags.html, PAGE) as out:
            out.write_text(page.html(report), encoding="utf-8")
        print(f"report: {flags.html}")
    if flags.json is not None:
        write_json(flags.json, json.loads(json.dumps(report)), NUMBERS)
    return 0 if report["ok"] else 1


def _tokenizer(given: Path) -> Tokenizer:
    return load_tokenizer(places.find(given, option="--tokenizer", numbers=False).path)


def _flags(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m data_pipelines.doctor",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("data", type=Path, help="corpus, records directory, JSON or JSONL file")
    parser.add_argument("--audio-root", type=Path, help="audio of a JSON file (default: its own)")
    parser.add_argument("--tokenizer", type=argument, help="folder with a tokenizer: count tokens")
    parser.add_argument(
        "--cutoff", type=int, default=CUTOFF, help=f"text tokens of a pair (default: {CUTOFF})"
    )
    parser.add_argument("--html", type=Path, help="write the page there")
    parser.add_argument("--json", type=Path, help="write all numbers there")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="NAME=SHARE", help="change a check's limit"
    )
    parser.add_argument("--every", type=int, default=1, help="decode each n-th clip only")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode (default: 2)")
    return local_arguments(parser.parse_args(arguments))


if __name__ == "__main__":
    errors.main(command)
