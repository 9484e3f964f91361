"""Memory and speed of converting checkpoints of 7B tensor shapes, beside `transformers`.

    python -m benchmarks.convert_memory [--layers 4 8] [--scratch DIR] [--json FILE]

Every conversion runs in a process of its own; its peak resident memory is what the operating
system reports for it (ru_maxrss). The checkpoints are synthetic: random float16 numbers in the
shapes of LLaMA-7B with LTU-AS's adapter, cut to a few layers. Two layer counts show whether the
peak grows with depth. The alternative, in the same run: load with `transformers` in float16 and
save again.
"""

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks import alternate, model_sizes
from ltu_jax.core.files import write_json
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.weights import name_tables
from ltu_jax.weights.files import shards, torch_file
from ltu_jax.weights.formats import hf_llama, official_ltu_as
from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.tensors import Tensor

FULL_DEPTH = 32
DTYPE = np.dtype(np.float16)
TRANSFORMERS = """
import sys, torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float16)
model.save_pretrained(sys.argv[2])
"""
START = "import ltu_jax.convert, jax; jax.devices()"


def config(layers: int) -> LTUASConfig:
    """Return LTU-AS 7B as published, with fewer layers."""
    whole = model_sizes.ltu_as("7b")
    return dataclasses.replace(
        whole, llama=dataclasses.replace(whole.llama, num_hidden_layers=layers)
    )


def random_tensor(shape: tuple[int, ...], *, seed: int) -> Tensor:
    """Return a tensor of random float16 numbers, made when it is read."""

    def read() -> np.ndarray:
        made = np.random.default_rng(seed).integers(0, 1 << 16, shape, np.uint16)
        return (made & 0xBBFF).view(DTYPE)  # exponents below all ones: no infinities or NaN

    return Tensor(shape=shape, dtype=DTYPE, read=read)


def make_sources(folder: Path, *, layers: int) -> dict[str, Path]:
    """Write a Hugging Face directory and an official `.bin` with all tensors, both synthetic."""
    whole = config(layers)
    shapes = {path: leaf.shape for path, leaf in LTUAS.functional(whole).shapes.items()}
    params = {path: random_tensor(s, seed=i) for i, (path, s) in enumerate(shapes.items())}
    params = {
        path: dataclasses.replace(
            random_tensor(tensor.shape[1:], seed=0),
            shape=tensor.shape,
            rows=_same_rows(tensor.shape),
        )
        if path.startswith("llama.layers.")
        else tensor
        for path, tensor in params.items()
    }
    plain = {path: t for path, t in params.items() if not is_adapter(path)}
    hf = folder / "hf"
    hf.mkdir(parents=True)
    placed, _ = shards.write_shards(
        hf, name_tables.export(hf_llama.HF_RULES, plain), stem="model", metadata={"format": "pt"},
        max_bytes=2 << 30, desc="synthetic hf",
    )  # fmt: skip
    shards.write_index(hf, placed, stem="model")
    settings = hf_llama.hf_config(dataclasses.asdict(whole.llama), dtype="float16", tokens={})
    write_json(hf / "config.json", settings)
    official = official_ltu_as.to_official(dataclasses.asdict(whole), params)
    torch_file.write_torch(folder / "official.bin", official, desc="synthetic official")
    return {"hf": hf, "official": folder / "official.bin"}


def _same_rows(shape: tuple[int, ...]):
    """Return a reader of a stacked tensor's rows; every layer has numbers of its own."""

    def rows(start: int, stop: int) -> np.ndarray:
        made = [random_tensor(shape[1:], seed=i).read() for i in range(start, stop)]
        return np.stack(made)

    return rows


def measure(command: list[str]) -> tuple[int, float]:
    """Return peak resident bytes and seconds of a command in a process of its own."""
    # the peak of all children so far would hide a smaller later one: a child of a child each time
    code = (
        "import resource, subprocess, sys, time, json; t = time.perf_counter();"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(json.dumps([resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,"
        "time.perf_counter() - t]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    peak, seconds = json.loads(done.stdout)
    return int(peak), float(seconds)


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of the files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def run(scratch: Path, *, layers: int) -> list[dict]:
    """Convert the synthetic checkpoints of one depth both ways; one row for each conversion."""
    folder = scratch / f"{layers}-layers"
    shutil.rmtree(folder, ignore_errors=True)
    sources = make_sources(folder, layers=layers)
    convert = [sys.executable, "-m", "ltu_jax.convert"]
    ours, whole = folder / "ours", folder / "ours-ltu-as"
    config_file = sources["hf"] / "config.json"
    steps = [
        ("hf in", [*convert, "--from", "hf-llama", "--weights", sources["hf"]], ours),
        ("hf out", [*convert, "--to", "hf", "--checkpoint", ours], folder / "hf-out"),
        (
            "official .bin in",
            [
                *convert,
                "--from",
                "ltu-as",
                "--weights",
                sources["official"],
                "--llama",
                config_file,
            ],
            whole,
        ),
        (
            "official .bin out",
            [*convert, "--to", "ltu-as", "--checkpoint", whole],
            folder / "out.bin",
        ),
        (
            "official .safetensors out",
            [*convert, "--to", "ltu-as", "--checkpoint", whole],
            folder / "out.safetensors",
        ),
        ("merged hf out", [*convert, "--to", "hf", "--checkpoint", whole], folder / "merged"),
    ]
    rows = []
    for name, command, out in steps:
        peak, seconds = measure([str(part) for part in (*command, "--out", out)])
        rows.append(_row(name, layers, peak, seconds, size_of(out)))
        if out not in (ours, whole):
            _remove(out)
    out = folder / "transformers"
    peak, seconds = measure([sys.executable, "-c", TRANSFORMERS, str(sources["hf"]), str(out)])
    rows.append(_row("transformers load + save", layers, peak, seconds, size_of(out)))
    shutil.rmtree(folder)
    return rows


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _row(name: str, layers: int, peak: int, seconds: float, size: int) -> dict:
    row = {
        "conversion": name,
        "layers": layers,
        "peak_bytes": peak,
        "seconds": round(seconds, 2),
        "bytes_written": size,
        "mb_per_second": round(size / 1e6 / seconds, 1),
    }
    print(
        f"{name:<28} {layers:>3} layers  peak {peak / 1e9:6.2f} GB  {seconds:7.1f} s  "
        f"{row['mb_per_second']:7.1f} MB/s",
        flush=True,
    )
    return row


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 8], help="two depths or more")
    parser.add_argument("--scratch", type=Path, default=Path("build/convert_memory"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/convert_memory.json"))
    asked = parser.parse_args()
    start, _ = measure([sys.executable, "-c", START])
    rows = [row for layers in sorted(asked.layers) for row in run(asked.scratch, layers=layers)]
    first, last = min(asked.layers), max(asked.layers)
    largest = (
        max(leaf.size for path, leaf in LTUAS.functional(config(1)).shapes.items()) * DTYPE.itemsize
    )
    peaks = {(row["conversion"], row["layers"]): row["peak_bytes"] for row in rows}
    names = list(dict.fromkeys(row["conversion"] for row in rows))
    print(f"\nprogram and JAX alone: {start / 1e9:.2f} GB; largest tensor {largest / 1e9:.2f} GB")
    summary = {}
    for name in names:
        low, high = peaks[name, first], peaks[name, last]
        per_layer = (high - low) / max(1, last - first)
        summary[name] = {
            "beyond_one_tensor_bytes": high - largest,
            "growth_bytes_per_layer": round(per_layer),
            "projected_peak_bytes_at_32_layers": round(low + per_layer * (FULL_DEPTH - first)),
            "ratio_to_transformers": round(high / peaks["transformers load + save", last], 3),
        }
        print(
            f"{name:<28} beyond one tensor {(high - largest) / 1e9:6.2f} GB, "
            f"{per_layer / 1e6:+8.1f} MB per layer, projected at {FULL_DEPTH} layers "
            f"{summary[name]['projected_peak_bytes_at_32_layers'] / 1e9:6.2f} GB, "
            f"{summary[name]['ratio_to_transformers']:.2f} x transformers"
        )
    print("(the figures at 32 layers are projections from the two depths, not measurements)")
    write_json(
        asked.json,
        alternate.header()
        | {
            "what": "synthetic checkpoints, true 7B tensor shapes, float16; 32 layers projected",
            "rows": rows,
            "summary": summary,
            "largest_tensor_bytes": int(largest),
            "start_bytes": start,
        },
    )
    print(f"written to {asked.json}")


if __name__ == "__main__":
    main()
