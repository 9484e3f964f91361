"""How long a server takes until it is ready: its first start, and the second.

    python -m benchmarks.server_start [--checkpoint DIR --whisper DIR] [--rounds 3] [--options ...]

Without `--checkpoint` it serves random weights: the sizes of SmolLM2-135M, heard and written by
Whisper base. Each round begins with empty caches, twice: with programs kept as they are (the
server's own way), and with JAX's compilation cache alone. Times are from the start of the process
to its `ready`, in a process of its own. The result names the checkpoint by the end of its path.
"""

import argparse
import dataclasses
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import alternate, random_weights
from benchmarks.served_process import served
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.fetch import fetch_weights
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.sizes import LLAMA_SIZES
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.weights.store import save_weights

WAYS = ("programs kept", "jax's cache alone")
_ASSETS = Path("assets")
_LOG = Path("build/serving/server_start.log")


def make_weights(folder: Path) -> list[str]:
    """Write random weights; return the options that serve them."""
    config = LTUASConfig(
        tltr=TLTRConfig(d_model=512, time_heads=1, layer_heads=8),
        llama=LLAMA_SIZES["smollm2-135m"],
        lora=LoRAConfig(rank=8, alpha=16.0, dropout=0.0, targets=("q_proj", "v_proj")),
        audio_layers=6,
        audio_tokens=25,
    )
    params = random_weights.draw(LTUAS.functional(config).shapes, dtype="float32", seed=0)
    tokenizer = fetch_weights("smollm2-135m", _ASSETS)
    save_weights(
        folder / "ltu-as",
        kind="ltu-as",
        config=dataclasses.asdict(config),
        params={path: np.asarray(leaf) for path, leaf in params.items()},
        source={"benchmark": "random"},
        files=[tokenizer / "tokenizer.json", tokenizer / "tokenizer_config.json"],
    )
    whisper = fetch_weights("whisper-base", _ASSETS)
    return ["--checkpoint", str(folder / "ltu-as"), "--whisper", str(whisper)]


def start(options: Sequence[str], *, caches: Path) -> dict[str, Any]:
    """Start a server, wait until it is ready, end it; return what that took."""
    environment = os.environ | {"XDG_CACHE_HOME": str(caches)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    before, begun = _children(), time.perf_counter()
    with served(*options, log=_LOG, environment=environment) as server:
        seconds = time.perf_counter() - begun
        programs = {
            source: int(server.count("ltu:start_programs", source=source))
            for source in ("kept", "compiled")
        }
    return {
        "seconds": round(seconds, 2),
        "cpu_seconds": round(_children() - before, 2),
        "programs": programs,
    }


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(options: Sequence[str], *, way: str) -> dict[str, Any]:
    """Start twice over empty caches."""
    with tempfile.TemporaryDirectory() as folder:
        caches, own = Path(folder), Path(folder, "ltu_jax", "programs")
        if way != WAYS[0]:
            own.parent.mkdir()
            own.touch()  # no folder: none can be kept there
        first, second = (start(options, caches=caches) for _ in range(2))
        size = sum(file.stat().st_size for file in own.rglob("*") if file.is_file())
    ratio = round(first["seconds"] / second["seconds"], 2)
    return {"first": first, "second": second, "ratio": ratio, "kept_bytes": size}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.server_start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", type=Path, help="what is served; default: random weights")
    parser.add_argument("--whisper", type=Path, help="the Whisper that hears, if not where it says")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], metavar="OPTION",
                        help="further ones of `ltu_jax.serve`; last on the line")  # fmt: skip
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.rounds < 1:
        raise UserError(f"--rounds is {given.rounds}; use at least 1")
    with tempfile.TemporaryDirectory() as folder:
        if given.checkpoint is None:
            model, options = "random, SmolLM2-135M and Whisper base", make_weights(Path(folder))
        else:
            model = "/".join(given.checkpoint.absolute().parts[-3:])
            options = ["--checkpoint", str(given.checkpoint)]
            options += [] if given.whisper is None else ["--whisper", str(given.whisper)]
        rounds = [
            {way: measure([*options, *given.options], way=way) for way in WAYS}
            for _ in range(given.rounds)
        ]
    summary = {
        way: {
            **{
                f"{start}_seconds": statistics.median(one[way][start]["seconds"] for one in rounds)
                for start in ("first", "second")
            },
            "ratio": statistics.median(one[way]["ratio"] for one in rounds),
        }
        for way in WAYS
    }
    print(alternate.table([{"way": way, **row} for way, row in summary.items()]))
    out = given.out or Path(f"benchmarks/results/server_start_{alternate.machine()}.json")
    write_json(
        out,
        alternate.header()
        | {"model": model, "options": given.options, "summary": summary, "rounds": rounds},
    )
    print(out)


if __name__ == "__main__":
    errors.main(main)
