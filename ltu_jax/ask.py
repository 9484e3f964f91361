"""Ask a trained model about an audio file.

    python -m ltu_jax.ask clip.wav "What do you hear?"
    python -m ltu_jax.ask --checkpoint runs/demo/stage3 clip.wav "What is the sound?"

The first asks the model that comes with the package, whose base weights are fetched once. The clip
is transcribed and encoded once; each question is then answered on its own, and the answer is shown
as it is made. Decoding is greedy unless --temperature says otherwise.
"""

import argparse
import sys
import time
from pathlib import Path

from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.paths import argument, local_arguments

EXAMPLES = """
examples:
  several questions about one clip:
    python -m ltu_jax.ask --checkpoint runs/demo/stage3 clip.wav "What is the sound?" \\
        "Is the speaker male or female?"
  with the sampling of the published evaluation:
    python -m ltu_jax.ask --checkpoint runs/demo/stage3 --temperature 0.1 --top-p 0.95 \\
        --top-k 500 --repetition-penalty 1.1 clip.wav "Describe the music."
  one Whisper hears, a larger one writes what is said:
    python -m ltu_jax.ask --checkpoint runs/demo/stage3 --transcriber weights/whisper-large-v2 \\
        clip.wav "What is the speaker talking about?"
  imported official weights, which come without Whisper:
    python -m ltu_jax.ask --checkpoint assets/ltu-as --whisper assets/whisper-large \\
        --dtype bfloat16 clip.wav "What can be inferred from the audio?"
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    it = argparse.ArgumentParser(
        prog="python -m ltu_jax.ask",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("audio", type=Path, metavar="AUDIO", help="wav, flac, mp3, ogg, ...; any rate")
    it.add_argument("questions", nargs="+", metavar="QUESTION", help="one or more, in quotes")
    it.add_argument(
        "--checkpoint",
        type=argument,
        metavar="DIR",
        help="a training run (its newest checkpoint), one checkpoint, or a weights directory; "
        "default: the model of this version, if it comes with one",
    )
    it.add_argument(
        "--whisper",
        type=argument,
        metavar="DIR",
        help="the Whisper that hears, if not where it says",
    )
    it.add_argument(
        "--transcriber",
        type=argument,
        metavar="DIR",
        help="the Whisper that writes what is said, of any size (default: as in training, else the "
        "one that hears)",
    )
    it.add_argument(
        "--llama", type=argument, metavar="DIR", help="language model weights, if not where it says"
    )
    it.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "int8"),
        default="float32",
        help="of the language model; int8: its kernels, the rest bfloat16 (default: float32)",
    )
    it.add_argument(
        "--mesh",
        metavar="AXIS=N,...",
        help="lay the language model over N devices, such as tensor=4, where one is too small",
    )
    given = it.add_argument_group("what the model is given")
    given.add_argument(
        "--mode",
        choices=("joint", "audio", "text"),
        default="joint",
        help="joint: audio and transcript (default); audio: no transcript; text: transcript only",
    )
    given.add_argument(
        "--spoken-text", metavar="TEXT", help="what is said in the clip, instead of transcribing it"
    )
    given.add_argument(
        "--transcription",
        choices=("quiet", "openai"),
        help="quiet: no words where nobody speaks; openai: by OpenAI's thresholds (default: as the "
        "training data were made, else quiet)",
    )
    how = it.add_argument_group("how it answers")
    how.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="default: 400, or what the base model's positions leave",
    )
    how.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="0 is greedy (default)"
    )
    how.add_argument(
        "--top-p", type=float, metavar="P", help="draw from the likeliest tokens of this mass"
    )
    how.add_argument("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    how.add_argument(
        "--repetition-penalty",
        type=float,
        default=1.0,
        metavar="R",
        help="above 1 makes tokens of the prompt and the answer less likely; default: 1 (off)",
    )
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw; default: 0")
    return it


def sampling(options: argparse.Namespace):
    """Return the sampling config of the command line, None for plain greedy decoding.

    Raises:
        UserError: a value out of range, or --top-p or --top-k without a temperature.
    """
    from ltu_jax.generation.sampling import SamplingConfig

    if options.temperature == 0:
        for name in ("top_p", "top_k"):
            if getattr(options, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                raise UserError(
                    f"{flag} needs --temperature above 0; greedy decoding does not draw"
                )
        if options.repetition_penalty == 1:
            return None
    return SamplingConfig(
        temperature=options.temperature or 1.0,
        top_p=1.0 if options.top_p is None else options.top_p,
        top_k=0 if options.top_k is None else options.top_k,
        repetition_penalty=options.repetition_penalty,
        seed=options.seed,
        pick="draw" if options.temperature else "argmax",
    )


def run(options: argparse.Namespace) -> None:
    """Answer every question of the command line on stdout; remarks go to stderr.

    Raises:
        UserError: bad audio, checkpoint or option.
    """
    from ltu_jax.core.values import text, whole
    from ltu_jax.preprocessing.audio import load_audio
    from ltu_jax.weights.adapter_folder import shipped

    # Cheap mistakes are told before seconds are spent on loading a model.
    checkpoint = shipped(options.checkpoint)
    clip = load_audio(options.audio)
    config = sampling(options)
    if options.max_new_tokens is not None:
        whole("max_new_tokens", options.max_new_tokens)
    if options.mode == "audio" and options.spoken_text is not None:
        raise UserError("--spoken-text is not used in --mode audio; leave one of them out")
    for number, question in enumerate(options.questions, start=1):
        if not text(f"question {number}", question).strip():
            raise UserError(f"question {number} is empty; ask something about the clip")

    from ltu_jax.core.compilation import keep_compiled
    from ltu_jax.core.sharding import mesh_config
    from ltu_jax.generation.request import drain
    from ltu_jax.inference import load

    keep_compiled()
    model = load(
        checkpoint,
        whisper=options.whisper,
        llama=options.llama,
        transcriber=options.transcriber,
        transcription=options.transcription,
        dtype=options.dtype,
        mesh=None if options.mesh is None else mesh_config(options.mesh),
    )
    # All of them before the clip is encoded for the first.
    for number, question in enumerate(options.questions, start=1):
        with errors.command_line(question=f"question {number}"):
            model.check_question(
                question,
                options.spoken_text or "",
                with_audio=options.mode != "text",
                max_new_tokens=options.max_new_tokens,
            )
    encoded = model.listen(clip, spoken_text=options.spoken_text, mode=options.mode)
    note = f"{options.audio}: {encoded.seconds:.1f} s"
    if encoded.seconds_dropped:
        kept = encoded.seconds - encoded.seconds_dropped
        note += (
            f"; the model hears the first {kept:.1f} s, {encoded.seconds_dropped:.1f} s are dropped"
        )
    _remark(note)
    if options.mode != "audio":
        source = "given" if options.spoken_text is not None else "by Whisper"
        _remark(f"spoken text ({source}): {encoded.spoken_text or '(none)'}")
    for question in options.questions:
        print(f"\n> {question}", flush=True)
        start = time.perf_counter()
        pieces = model.stream(
            encoded, question, max_new_tokens=options.max_new_tokens, sampling=config
        )
        answer = drain(pieces, show=lambda piece: print(piece, end="", flush=True))
        print(flush=True)
        seconds = time.perf_counter() - start
        cut = ", cut off by --max-new-tokens" if answer.finish_reason == "length" else ""
        _remark(f"{len(answer.tokens)} tokens in {seconds:.1f} s{cut}")


def _remark(text: str) -> None:
    print(f"[{text}]", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; bad input is one line on stderr and exit status 2."""
    given = sys.argv[1:] if arguments is None else arguments
    errors.main(lambda: run(local_arguments(parser().parse_args(errors.arguments(given)))))


if __name__ == "__main__":
    main()
