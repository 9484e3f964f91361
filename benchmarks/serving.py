"""A server as a process, asked from the same machine: is it right under load, and how fast?

    python -m benchmarks.serving --checkpoint RUN --audio DIR [--parts NAME ...]
    python -m benchmarks.serving --toy --parts soak [--requests N]

    equality      mixed requests of many clients against Model.answer, token for token
    behind_long   a short request behind eight long ones
    throughput    tokens/s at 16 users with new clips, beside answer_batch and batch 1
    lone          one request beside Model.answer, and what HTTP, queue and decoding take of it
    follow_up     how much sooner the next question about a clip is answered
    livez         /livez while users ask, and while they send large files
    disconnects   clients that leave, then what slots and queue read
    soak          many requests, half about cached clips: memory, descriptors

The parts run in this order; what is finished is kept in OUT, and a part that is there is left out
unless `--parts` names it. Equality goes on where it was: the library's answers are kept in
`--folder`. `--toy` serves random numbers in the shape of a tiny model, whose hearing takes no
time: for the long soak. The soak has a server of its own, with a small clip cache that is full by
the time memory is first looked at.
"""

import argparse
import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

import ltu_jax
from benchmarks import alternate, serving_speed, serving_truths
from benchmarks.served_process import ServedProcess, served
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import atomic_file, read_json, write_json
from ltu_jax.serving.server_load import LoadClip

OUT = Path("benchmarks/results/serving.json")
PARTS = ("equality", "behind_long", "throughput", "lone", "follow_up", "livez", "disconnects",
         "soak")  # fmt: skip
_CACHE_MB = {False: 64, True: 2}  # of the soak's server; of the toy's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is served, and how much is asked of it.

    Attributes:
        options: of the server: what it serves.
        checkpoint, whisper: the same for the library.
        clips: all that there are.
        folder: for logs and the library's answers.
        requests: of the mixed requests, of the soak.
    """

    options: tuple[str, ...]
    checkpoint: Path
    whisper: Path | None
    clips: list[LoadClip]
    folder: Path
    toy: bool
    given: argparse.Namespace

    def run(self, name: str, server: ServedProcess, model: Any) -> dict[str, Any]:
        """Run a part, and return what it found."""
        given, clips, show = self.given, self.clips, alternate.show
        if name == "equality":
            return self.equality(server, model)
        if name == "behind_long":
            return serving_speed.behind_long(server, longs=8, limit=given.tokens)
        if name == "throughput":
            return serving_speed.throughput(
                server, model, clips[: given.throughput_requests], users=given.users,
                limit=given.tokens, rounds=given.rounds, show=show,
            )  # fmt: skip
        if name == "lone":
            return serving_speed.lone(
                server, model, clips[: given.clips_alone], limit=given.tokens, show=show
            )
        if name == "follow_up":
            return serving_speed.follow_up(server, clips[: given.clips_alone], show=show)
        if name == "livez":
            return serving_speed.livez(
                server,
                clips,
                users=given.users,
                large=_large_mp3(self.folder / "large.mp3"),
                show=show,
            )
        if name == "disconnects":
            return serving_truths.disconnects(
                server, clips, count=given.disconnects, clients=given.users
            )
        return serving_truths.soak(
            server, clips, requests=given.soak_requests, clients=given.users,
            settled=min(1_000, given.soak_requests // 2), show=show,
        )  # fmt: skip

    def equality(self, server: ServedProcess, model: Any) -> dict[str, Any]:
        """Make the library's answers, or read them, and compare the server's."""
        given = self.given
        cases = serving_truths.make_cases(
            clips=min(given.clips, len(self.clips)), count=given.questions, limit=given.limit
        )
        known = serving_truths.KnownAnswers(
            model, self.clips, file=self.folder / "known_answers.jsonl"
        )
        wanted = []
        for number, case in enumerate(cases, start=1):
            wanted.append(known.of(case))
            if number % 50 == 0:
                alternate.show(f"equality: {number} of {len(cases)} answers of the library")
        return serving_truths.equality(
            server, self.clips, wanted, cases, requests=given.requests, clients=given.clients,
            show=alternate.show,
        )  # fmt: skip

    def serve(self, name: str, *options: str) -> Any:
        """Return a server as a context."""
        return served(*self.options, *options, log=self.folder / f"{name}.log")


def _large_mp3(file: Path) -> bytes:
    """Return an MP3 of 10 MB, 320 kbit/s: four minutes of noise; it is made once."""
    if not file.exists():
        noise = np.random.default_rng(0).normal(scale=0.1, size=44_100 * 250).astype(np.float32)
        with atomic_file(file) as new:
            soundfile.write(
                new, noise, 44_100, format="MP3", bitrate_mode="CONSTANT", compression_level=0.0
            )
    return file.read_bytes()


def setting_of(given: argparse.Namespace) -> Setting:
    """Return the setting of a command line.

    Raises:
        UserError: no model, or too little audio.
    """
    whisper = None
    if given.toy:
        weights = make_toy(given.folder / "toy")
        checkpoint, whisper = weights["ltu-as"], weights["whisper"]
        clips = serving_truths.noises(given.clips)
    else:
        checkpoint = given.checkpoint
        files = sorted(path for path in given.audio.glob("*") if path.is_file())[: given.clips]
        if len(files) < 40:
            raise UserError(f"--audio {given.audio} has {len(files)} files; give 40 clips or more")
        clips = [LoadClip.of(path) for path in files]
    options = ("--checkpoint", str(checkpoint), *(("--whisper", str(whisper)) if whisper else ()))
    if given.slot_tokens:
        options += ("--slot-tokens", str(given.slot_tokens))
    return Setting(
        options=options, checkpoint=checkpoint, whisper=whisper, clips=clips,
        folder=given.folder, toy=given.toy, given=given,
    )  # fmt: skip


def make_toy(folder: Path) -> dict[str, Path]:
    """Write the weights of the toy that the tests serve."""
    from ltu_jax.fetch import fetch_weights
    from tests.support import toy_server

    golden = Path("tests/golden/text_cases/spm320.model")
    tokenizer = fetch_weights("whisper-base", Path("assets")) / "tokenizer.json"
    folder.mkdir(parents=True, exist_ok=True)
    return toy_server.save(folder, tokenizer=golden, whisper_tokenizer=tokenizer)


def measure(setting: Setting, names: list[str], *, keep: Callable[[str, dict], None]) -> None:
    """Run parts in their order, and keep the result of each when it is there."""
    shared = [name for name in names if name != "soak"]
    if shared:
        with setting.serve("server") as server:
            model = ltu_jax.load(setting.checkpoint, whisper=setting.whisper)
            for name in shared:
                keep(name, setting.run(name, server, model))
            del model
    if "soak" in names:
        cache = ("--cache-mb", str(_CACHE_MB[setting.toy]))
        with setting.serve("soak", *cache) as server:
            keep("soak", setting.run("soak", server, None))


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    it = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    it.add_argument("--checkpoint", type=Path, default=Path("runs/demo/stage3"), metavar="DIR",
                    help="default: runs/demo/stage3, of `make demo`")  # fmt: skip
    it.add_argument("--audio", type=Path, default=Path("data/mini/audio/test"), metavar="DIR",
                    help="clips; default: data/mini/audio/test")  # fmt: skip
    it.add_argument("--toy", action="store_true", help="random numbers in place of a model")
    it.add_argument("--parts", nargs="+", choices=PARTS, metavar="NAME",
                    help="measured anew; default: those that OUT has not")  # fmt: skip
    it.add_argument("--slot-tokens", type=int, metavar="N", help="default: the server's own")
    count = it.add_argument_group("how much")
    for name, default, what in (
        ("requests", 1_000, "mixed requests of `equality`"),
        ("clients", 32, "who send them"),
        ("clips", 200, "that they are about"),
        ("questions", 400, "different ones among them"),
        ("limit", 24, "tokens of their answers at most"),
        ("users", 16, "of the other parts"),
        ("tokens", 48, "of an answer, where speed is measured"),
        ("rounds", 3, "of `throughput`"),
        ("throughput-requests", 32, "of one of its rounds"),
        ("clips-alone", 8, "of `lone` and `follow_up`"),
        ("disconnects", 200, "of `disconnects`"),
        ("soak-requests", 10_000, "of `soak`"),
    ):
        count.add_argument(f"--{name}", type=int, default=default, metavar="N",
                           help=f"{what}; default: {default:,}")  # fmt: skip
    it.add_argument("--folder", type=Path, default=Path("build/serving"), metavar="DIR",
                    help="logs, the toy, answers of the library")  # fmt: skip
    it.add_argument("--out", type=Path, default=OUT, metavar="FILE")
    return it


def main() -> None:
    """Run the command line."""
    given = command_line().parse_args()
    found = read_json(given.out) if given.out.exists() else {"parts": {}}
    ending = ", toy" if given.toy else ""
    names = given.parts or [name for name in PARTS if name + ending not in found["parts"]]

    def keep(name: str, result: dict[str, Any]) -> None:
        about = alternate.header()
        shown = {key: value for key, value in result.items() if not isinstance(value, dict | list)}
        alternate.show(f"{name}: {shown}")
        found["parts"][name + ending] = about | result
        found["hardware"], found["date"] = about["hardware"], datetime.date.today().isoformat()
        write_json(given.out, found)

    measure(setting_of(given), [name for name in PARTS if name in names], keep=keep)


if __name__ == "__main__":
    errors.main(main)
