"""Serve a trained model over HTTP, by OpenAI's protocol.

    python -m ltu_jax.serve --checkpoint runs/demo/stage3

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
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import local_arguments

EXAMPLES = """
examples:
  on another port, for whoever has a key of the file:
    python -m ltu_jax.serve --checkpoint runs/demo/stage3 --port 9000 --api-key-file keys.txt
  a large model, with int8 kernels, 32 answers at once:
    python -m ltu_jax.serve --checkpoint runs/stage3 --dtype int8 --max-batch 32
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.serve",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument(
        "--checkpoint", type=Path, required=True, metavar="DIR",
        help="a training run (its newest checkpoint), one checkpoint, or a weights directory; a "
        "language model alone is asked by its own chat template",
    )  # fmt: skip
    for name, what in (
        ("whisper", "the Whisper that hears, if not where it says"),
        ("transcriber", "the Whisper that writes what is said"),
        ("llama", "language model weights, if not where it says"),
    ):
        it.add_argument(f"--{name}", type=Path, metavar="DIR", help=what)
    it.add_argument("--transcription", choices=("quiet", "openai"), help="as with `ltu_jax.ask`")
    it.add_argument(
        "--dtype", choices=("float32", "bfloat16", "int8"), default="float32",
        help="of the language model; int8: its kernels, the rest bfloat16 (default: float32)",
    )  # fmt: skip
    it.add_argument("--model-name", metavar="NAME", help="default: the folder's name")
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
        "--slot-tokens", type=int, default=2048, metavar="N",
        help="of audio, prompt and answer together; default: 2048, or the model's positions",
    )  # fmt: skip
    most.add_argument(
        "--drafts", type=int, default=0, metavar="N",
        help="tokens guessed at once for requests that ask for prompt_lookup; default: 0, none",
    )  # fmt: skip
    most.add_argument(
        "--queue", type=int, default=64, metavar="N", help="requests that may wait; default: 64"
    )
    most.add_argument("--deadline", type=float, default=600, metavar="S", help="default: 600 s")
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
    try:
        from ltu_jax.serving import http_server
        from ltu_jax.serving.server_settings import MEGABYTE, ServerSettings, read_keys
    except ImportError as error:
        raise UserError(f"serving needs {error.name}: pip install 'ltu_jax[serve]'") from None

    keys = frozenset() if options.api_key_file is None else read_keys(options.api_key_file)
    settings = ServerSettings(
        model_name=options.model_name or options.checkpoint.resolve().name,
        keys=keys,
        most_body=options.max_body_mb * MEGABYTE,
        most_requests=options.max_batch + options.queue,
        deadline=options.deadline,
        decode_workers=options.decode_workers or min(max(len(os.sched_getaffinity(0)) // 2, 1), 8),
        cache_bytes=options.cache_mb * MEGABYTE,
        drain=options.drain,
    )
    listener = http_server.listen(options.host, options.port)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("ltu_jax.serving").setLevel(logging.INFO)

    from ltu_jax.core.compilation import keep_compiled
    from ltu_jax.serving.assembly import app_of
    from ltu_jax.serving.engine import Engine, EngineSettings
    from ltu_jax.serving.slot_programs import SlotSizes

    keep_compiled()
    model = _load(options)
    slot_tokens = min(options.slot_tokens, model.positions or options.slot_tokens)
    sizes = SlotSizes(
        tiers=_tiers(options.max_batch),
        slot_tokens=slot_tokens,
        clips=settings.most_clips,
        drafts=options.drafts,
    )
    engine = Engine(model, EngineSettings(sizes=sizes, queue=options.queue))
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    if not keys and host not in ("127.0.0.1", "::1"):
        print("warning: everybody who reaches this address may ask; see --api-key-file",
              file=sys.stderr)  # fmt: skip
    app = app_of(
        model, engine, settings, dtype=options.dtype,
        on_ready=lambda: print(
            f"ready: {address}/v1 (model {settings.model_name}); the page: {address}/", flush=True
        ),
    )  # fmt: skip
    print(f"getting ready at {address} (a few minutes the first time)", flush=True)
    http_server.run(app, listener=listener)


def _load(options: argparse.Namespace):
    """Load an LTU-AS, or a language model alone."""
    from ltu_jax.generation.text_loading import load_language_model
    from ltu_jax.inference import load
    from ltu_jax.weights.open import is_hf_llama
    from ltu_jax.weights.store import is_weights_dir, load_weights

    folder = options.checkpoint
    plain = is_weights_dir(folder) and load_weights(folder).kind == "llama"
    if plain or is_hf_llama(folder):
        for name in ("whisper", "transcriber", "llama", "transcription"):
            if getattr(options, name) is not None:
                raise UserError(f"--{name} is for an LTU-AS; {folder} is a language model alone")
        return load_language_model(folder, dtype=options.dtype)
    return load(
        folder,
        whisper=options.whisper,
        llama=options.llama,
        transcriber=options.transcriber,
        transcription=options.transcription,
        dtype=options.dtype,
    )


def _tiers(most: int) -> tuple[int, ...]:
    """Rows that are computed together: 1, 4, 16, ... up to the number of slots."""
    powers = [4**n for n in range(8)]
    return (*(n for n in powers if n < most), most)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    errors.main(lambda: run(local_arguments(parser().parse_args(errors.arguments(given)))))


if __name__ == "__main__":
    main()
