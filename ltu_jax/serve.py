"""Serve a trained model over HTTP, by OpenAI's protocol; or measure a server that runs.

    python -m ltu_jax.serve                           # the model of the package, if it has one
    python -m ltu_jax.serve --checkpoint runs/demo/stage3
    python -m ltu_jax.serve bench --url http://127.0.0.1:8000

The unmodified `openai` client talks to it: chat with audio, transcriptions, translations. It is
ready when it says so; nothing compiles afterwards. SIGTERM or Ctrl-C lets running answers end.
docs/serving.md has every field and limit.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

from ltu_jax.core import errors
from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.paths import absolute, argument, local_arguments
from ltu_jax.serving import bench_options

EXAMPLES = """
examples:
  on another port, for whoever has a key of the file:
    python -m ltu_jax.serve --checkpoint runs/demo/stage3 --port 9000 --api-key-file keys.txt
  a large model, with int8 kernels, 32 answers at once:
    python -m ltu_jax.serve --checkpoint runs/stage3 --dtype int8 --max-batch 32
  how fast a server is, with options of its own:
    python -m ltu_jax.serve bench --help
  a language model alone, of the Hub:
    python -m ltu_jax.serve --checkpoint hf:HuggingFaceTB/SmolLM2-135M-Instruct

compiled programs are kept in ~/.cache/ltu_jax (or $XDG_CACHE_HOME/ltu_jax), for the next start
"""


_SLOT_TOKENS = 2048
# Option -> the least and most that it may be; of those that no dataclass checks by this name.
_RANGES = {
    "port": (0, 65_535), "max_batch": (1, 4_096), "queue": (1, None), "max_body_mb": (1, None),
    "cache_mb": (0, None), "slot_tokens": (2, None), "drafts": (0, 64),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.serve",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument(
        "--checkpoint", type=argument, metavar="DIR",
        help="a training run (its newest checkpoint), one checkpoint, or a weights directory; a "
        "language model alone is asked by its own chat template; of this machine, "
        "hf:OWNER/NAME[@REVISION] or gs://BUCKET/NAME; default: the model of this version",
    )  # fmt: skip
    for name, what in (
        ("whisper", "the Whisper that hears, if not where it says"),
        ("transcriber", "the Whisper that writes what is said"),
        ("llama", "language model weights, if not where it says"),
    ):
        it.add_argument(f"--{name}", type=argument, metavar="DIR", help=what)
    it.add_argument(
        "--transcription", choices=("quiet", "openai"),
        help="of clips in a chat, as with `ltu_jax.ask`; files are transcribed by OpenAI's rules",
    )  # fmt: skip
    it.add_argument(
        "--dtype", choices=("float32", "bfloat16", "int8"), default="float32",
        help="of the language model; int8: its kernels, the rest bfloat16 (default: float32)",
    )  # fmt: skip
    it.add_argument("--model-name", metavar="NAME", help="default: the folder's, or OWNER/NAME")
    at = it.add_argument_group("where, and for whom")
    at.add_argument("--host", default="127.0.0.1", help="default: this machine only, 127.0.0.1")
    at.add_argument(
        "--port", type=int, default=8000, metavar="N", help="default: 8000; 0: a free one"
    )
    at.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help="keys that are let in, one a line"
    )
    most = it.add_argument_group("limits")
    most.add_argument(
        "--max-batch", type=int, default=16, metavar="N", help="answers at once; default: 16"
    )
    most.add_argument(
        "--slot-tokens", type=int, metavar="N",
        help=f"of audio, prompt and answer together; default: {_SLOT_TOKENS}, or the model's "
        "positions",
    )  # fmt: skip
    most.add_argument(
        "--drafts", type=int, default=0, metavar="N",
        help="tokens guessed at once for requests that ask for prompt_lookup; default: 0, none",
    )  # fmt: skip
    most.add_argument(
        "--queue", type=int, default=64, metavar="N", help="requests that may wait; default: 64"
    )
    most.add_argument("--deadline", type=float, default=600, metavar="S",
                      help="for an answer, from its request on; default: 600 s")  # fmt: skip
    most.add_argument(
        "--max-body-mb", type=int, default=36, metavar="N", help="of a request; default: 36"
    )
    most.add_argument("--cache-mb", type=int, default=256, metavar="N",
                      help="memory for what was heard of clips; default: 256")  # fmt: skip
    most.add_argument("--drain", type=float, default=30, metavar="S",
                      help="for running answers after SIGTERM; default: 30 s")  # fmt: skip
    most.add_argument("--decode-workers", type=int, metavar="N",
                      help="processes that decode audio; default: by cores, 1 to 8")  # fmt: skip
    return it


def run(options: argparse.Namespace) -> None:
    """Serve until a signal.

    Raises:
        UserError: an option or a checkpoint that cannot be used; a port that is taken.
    """
    from ltu_jax.weights.adapter_folder import shipped

    try:
        from ltu_jax.serving import http_server
    except ImportError as error:
        raise UserError(f"serving needs {error.name}: pip install 'ltu_jax[serve]'") from None

    options.checkpoint = shipped(options.checkpoint)
    settings = _settings(options)
    listener = http_server.listen(options.host, options.port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("ltu_jax.serving").setLevel(logging.INFO)

    from ltu_jax.core.compilation import keep_compiled
    from ltu_jax.serving.assembly import app_of, store_of
    from ltu_jax.serving.engine import Engine, EngineSettings
    from ltu_jax.serving.slot_sizes import SlotSizes

    keep_compiled()
    model = _load(options)
    sizes = SlotSizes(
        tiers=_tiers(options.max_batch),
        slot_tokens=_slot_tokens(options.slot_tokens, model),
        clips=settings.most_clips,
        drafts=options.drafts,
    )
    programs = store_of(model, dtype=options.dtype)
    with programs.used():
        engine = Engine(model, EngineSettings(sizes=sizes, queue=options.queue))
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if not settings.keys and host not in ("127.0.0.1", "::1"):
        print("warning: everybody who reaches this address may ask; see --api-key-file",
              file=sys.stderr)  # fmt: skip
    app = app_of(
        model, engine, settings, dtype=options.dtype, programs=programs,
        on_ready=lambda: print(
            f"ready: {address}/v1 (model {settings.model_name}); the page: {address}/", flush=True
        ),
    )  # fmt: skip
    print(f"getting ready at {address} (a few minutes the first time)", flush=True)
    http_server.run(app, listener=listener)


def _settings(options: argparse.Namespace):
    """Return the limits of the command line, checked before a model is loaded."""
    from ltu_jax.core.hardware import cores
    from ltu_jax.core.values import whole
    from ltu_jax.serving.server_settings import MEGABYTE, ServerSettings, read_keys

    for name, (least, most) in _RANGES.items():
        if getattr(options, name) is not None:
            whole(name, getattr(options, name), least=least, most=most)
    workers = options.decode_workers
    return ServerSettings(
        model_name=(
            _name(options.checkpoint) if options.model_name is None else options.model_name
        ),
        keys=frozenset() if options.api_key_file is None else read_keys(options.api_key_file),
        most_body=options.max_body_mb * MEGABYTE,
        most_requests=options.max_batch + options.queue,
        deadline=options.deadline,
        decode_workers=min(max(cores() // 2, 1), 8) if workers is None else workers,
        cache_bytes=options.cache_mb * MEGABYTE,
        drain=options.drain,
    )


def _name(checkpoint: Path) -> str:
    from ltu_jax.weights import hub

    text = os.fspath(checkpoint)
    if hub.is_name(text):
        return hub.parse(text, option=spell("checkpoint")).repo
    return absolute(checkpoint).name


def _slot_tokens(given: int | None, model) -> int:
    positions = model.positions
    if given is None:
        return min(_SLOT_TOKENS, positions or _SLOT_TOKENS)
    if positions is not None and given > positions:
        raise UserError(
            f"{spell('slot_tokens', given)}: {model.path} was made for {positions:,} positions; "
            "give at most that"
        )
    return given


def _load(options: argparse.Namespace):
    """Load an LTU-AS, or a language model alone."""
    from ltu_jax.generation.text_loading import load_language_model
    from ltu_jax.inference import load
    from ltu_jax.weights import places, store
    from ltu_jax.weights.open import is_hf_llama

    place = places.find(options.checkpoint, option=spell("checkpoint"), runs=True)
    folder = place.path
    ours = store.is_weights_dir(folder) and store.read_header(folder)["kind"]
    if ours == "llama" or is_hf_llama(folder):
        for name in ("whisper", "transcriber", "llama", "transcription"):
            if getattr(options, name) is not None:
                what = f"{place.named} is a language model alone"
                raise UserError(f"--{name} is for an LTU-AS; {what}")
        return load_language_model(folder, dtype=options.dtype)
    return load(
        options.checkpoint,
        whisper=options.whisper,
        llama=options.llama,
        transcriber=options.transcriber,
        transcription=options.transcription,
        dtype=options.dtype,
    )


def _tiers(most: int) -> tuple[int, ...]:
    """Rows that are computed together: 1, 4, 8, 16, ... up to the number of slots."""
    powers = [2**n for n in range(15) if n != 1]
    return (*(n for n in powers if n < most), most)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments

    def command() -> int | None:
        words = errors.arguments(given)
        if words[:1] == ["bench"]:
            return bench_options.run(local_arguments(bench_options.parser().parse_args(words[1:])))
        return run(local_arguments(parser().parse_args(words)))

    errors.main(command)


if __name__ == "__main__":
    main()
