"""Measure a server of chat completions, this project's or another.

    python -m ltu_jax.serve bench --url http://127.0.0.1:8000

Users ask at once, each the next question when one is answered, and answers are streamed. A table
says how soon the first text comes (TTFT), what a token takes, and how many tokens, requests and
seconds of audio a second are done. Of a server of this project it also says where the time goes.
One request before the others is not counted: it shows that the server answers.
"""

import argparse
import dataclasses
import datetime
import sys
import uuid
from pathlib import Path

from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.files import write_json
from ltu_jax.core.paths import argument
from ltu_jax.core.provenance import processor
from ltu_jax.core.values import number
from ltu_jax.serving.server_load import (
    LoadClip,
    ServerLoad,
    figures,
    run_load,
    table,
    understood,
)
from ltu_jax.serving.timed_chat import ChatService

MAKER = outputs.Maker(
    name="`python -m ltu_jax.serve bench`",
    folder=False,
    before=outputs.json_with("first_text_ms", "tokens_per_second", "url"),
)
EXAMPLES = """
examples:
  32 users with clips that the server has never heard:
    python -m ltu_jax.serve bench --url http://127.0.0.1:8000 --users 32 --audio *.wav --uncached
  another server, by key, figures into a file:
    python -m ltu_jax.serve bench --url https://example.org/v1 --api-key-file key.txt \\
      --model NAME --json figures.json
"""
_QUESTION = "What can be inferred from the audio?"
_TEXT_QUESTION = "Tell a short story."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.serve bench",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument(
        "--url", required=True, metavar="URL",
        help="of the server, up to /v1, which may be left out where there is no other path",
    )  # fmt: skip
    it.add_argument("--model", metavar="NAME", help="default: the first that /v1/models lists")
    it.add_argument(
        "--api-key-file", type=Path, metavar="FILE",
        help="its first line is sent as the key, over https or to this machine only",
    )  # fmt: skip
    load = it.add_argument_group("what is asked")
    load.add_argument("--users", type=int, default=16, metavar="N", help="at once; default: 16")
    load.add_argument("--requests", type=int, metavar="N", help="in all; default: 4 a user")
    load.add_argument(
        "--audio", type=Path, nargs="+", default=[], metavar="FILE",
        help="clips, sent in turn as WAV of 16 kHz; default: none, text alone",
    )  # fmt: skip
    load.add_argument(
        "--uncached", action="store_true",
        help="every request sends its clip in bytes of its own (the same sound with another "
        "comment), so that a server which remembers clips hears each anew",
    )  # fmt: skip
    load.add_argument(
        "--question", nargs="+", metavar="TEXT",
        help=f"asked in turn; default: {_QUESTION!r}, without audio {_TEXT_QUESTION!r}",
    )  # fmt: skip
    load.add_argument(
        "--max-tokens", type=int, default=64, metavar="N", help="of an answer; default: 64"
    )
    load.add_argument(
        "--temperature", type=float, default=0.0, metavar="T",
        help="default: 0, greedy; above it request i draws with seed i",
    )  # fmt: skip
    it.add_argument(
        "--timeout", type=float, default=600.0, metavar="S",
        help="without a byte, then a request has failed; default: 600 s",
    )  # fmt: skip
    it.add_argument("--json", type=argument, metavar="FILE", help="write the figures there too")
    return it


def run(options: argparse.Namespace) -> int:
    """Measure, print the table; 0 if every request was answered, else 1.

    Raises:
        UserError: an option that cannot be used; a server that does not answer.
    """
    if options.json:
        outputs.claim(options.json, MAKER, option="--json")
    number("timeout", options.timeout, above=0, most=1e6, rule="must be above 0")
    service = ChatService(url=options.url, key=_key(options.api_key_file), timeout=options.timeout)
    questions = options.question or [_QUESTION if options.audio else _TEXT_QUESTION]
    load = ServerLoad(
        model=options.model or "",
        users=options.users,
        requests=4 * options.users if options.requests is None else options.requests,
        questions=tuple(questions),
        clips=tuple(LoadClip.of(path) for path in options.audio),
        uncached=options.uncached,
        mark=uuid.uuid4().hex[:8],
        max_tokens=options.max_tokens,
        temperature=options.temperature,
    )
    if not load.model:
        load = dataclasses.replace(load, model=service.models()[0])
    load = understood(service, load)
    found = figures(
        run_load(service, load, show=lambda line: print(line, file=sys.stderr, flush=True))
    )
    print(table(found))
    if options.json:
        about = {
            "url": options.url,
            "client": processor(),
            "date": datetime.date.today().isoformat(),
            "max_tokens": load.max_tokens,
            "temperature": load.temperature,
            "uncached": load.uncached,
            "audio_seconds": [round(clip.seconds, 3) for clip in load.clips],
        }
        write_json(options.json, about | found, MAKER)
    return 1 if found["failed"] else 0


def _key(path: Path | None) -> str | None:
    """Return the first key of a file.

    Raises:
        UserError: no such file, or none in it that a header can hold.
    """
    if path is None:
        return None
    try:
        lines = [line.strip() for line in path.read_bytes().splitlines()]
    except OSError as error:
        raise UserError(f"{spell('api_key_file')} {path}: {error.strerror}") from None
    key = next((line for line in lines if line), b"").decode(errors="replace")
    if not key or not key.isprintable() or "\ufffd" in key:
        raise UserError(f"{spell('api_key_file')} {path} holds no key; write one on its first line")
    return key
