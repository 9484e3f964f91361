"""Parity certificates on this machine's device, in float32 and bfloat16.

    python -m benchmarks.certificate [--weights DIR ...] [--dtypes float32 bfloat16] [--out DIR]
    python -m benchmarks.certificate --random 7b [--out DIR]

By default of the weights that `python -m ltu_jax.fetch` makes: SmolLM2-135M, Whisper tiny.en and
base. --random needs no file: LTU-AS and the tagger, whose certificates hold the authors' numbers
too, and Whisper, with random weights, beside PyTorch on the CPU; "7b" has the true widths and two
layers of each stack.
Writes OUT/certificate_DEVICE.json and fails if a module is outside its tolerance. The feature
fingerprints of the dtypes are compared with each other, as training and answering compare them.
"""

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax

from benchmarks import alternate
from benchmarks.model_sizes import SIZES, ltu_as
from benchmarks.random_weights import draw
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.models.sizes import WHISPER_SIZES
from ltu_jax.models.tltr import TaggerConfig
from ltu_jax.weights.fingerprint import KEY, Fingerprint, compare
from ltu_jax.weights.parity import certificate
from ltu_jax.weights.parity.modules import TOLERANCES
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.store import load_weights, save_weights

NAMES = ("smollm2-135m", "whisper-tiny.en", "whisper-base")
LAYERS, LABELS = 2, 527
# the same in every certificate of a run
_COMMON = ("device", "host", "versions", "date", "format")


def random_folders(size: str, *, under: Path) -> list[Path]:
    """Write weights directories of random numbers: widths of `size`, two layers a stack."""
    whole = ltu_as(size)
    language = dataclasses.replace(whole.llama, num_hidden_layers=LAYERS)
    whisper = dataclasses.replace(
        WHISPER_SIZES["large-v1" if size == "7b" else "tiny"],
        n_audio_layer=LAYERS,
        n_text_layer=LAYERS,
    )
    tagger = TaggerConfig(
        tltr=whole.tltr, labels=LABELS, d_input=None, audio_layers=whole.audio_layers
    )
    configs = {
        "ltu-as": dataclasses.replace(whole, llama=language),
        "tltr": tagger,
        "whisper": whisper,
    }
    folders = []
    for kind, config in configs.items():
        as_dict, shapes = model_shapes(kind, dataclasses.asdict(config))
        wanted = {path: jax.ShapeDtypeStruct(shape, "float32") for path, shape in shapes.items()}
        params = jax.device_get(draw(wanted, dtype="float32", seed=0))
        folder = under / f"random-{kind}-{size}"
        save_weights(
            folder, kind=kind, config=as_dict, params=params, source={"format": "random numbers"}
        )
        folders.append(folder)
    return folders


def measure(folders: list[Path], dtypes: list[str]) -> dict[str, Any]:
    """Make a certificate for each folder and dtype, and compare their fingerprints."""
    made = []
    for folder in folders:
        weights = load_weights(folder)
        for dtype in dtypes:
            found = certificate.certify(weights, dtype=dtype)
            print(f"\n{folder.name}\n{certificate.table(found)}", flush=True)
            made.append(found)
    heard = {}
    for found in made:
        if found[KEY] is not None:
            heard[found["weights"]["name"], found["dtype"]] = Fingerprint.from_json(found[KEY])
    pairs = [
        {"weights": name, "dtypes": [dtypes[0], dtype], "distance": result.distance,
         "verdict": str(result.verdict)}
        for (name, dtype), numbers in heard.items()
        if dtype != dtypes[0]
        for result in [compare(heard[name, dtypes[0]], numbers)]
    ]  # fmt: skip
    common = {key: made[0][key] for key in _COMMON}
    certificates = [{k: v for k, v in found.items() if k not in _COMMON} for found in made]
    return (
        alternate.header()
        | common
        | {
            "tolerances": TOLERANCES,
            "certificates": certificates,
            "fingerprints": pairs,
        }
    )


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.certificate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    places = [Path("assets/weights") / name for name in NAMES]
    given_by = parser.add_mutually_exclusive_group()
    given_by.add_argument("--weights", nargs="+", type=Path, default=places, metavar="DIR")
    given_by.add_argument("--random", choices=SIZES, help="random weights of these widths")
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCES, default=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    return parser


def main() -> None:
    """Run the command line."""
    given = command_line().parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        if given.random:
            folders = random_folders(given.random, under=Path(temporary))
        else:
            folders = given.weights
        absent = [folder.name for folder in folders if not (folder / "config.json").is_file()]
        if absent:
            raise errors.UserError(
                f"no weights directory for {', '.join(absent)}; make them with "
                f"`python -m ltu_jax.fetch {' '.join(absent)}`, or give others with --weights"
            )
        found = measure(folders, given.dtypes)
    file = given.out / f"certificate_{alternate.device()}.json"
    write_json(file, found)
    print(f"\n{file}")
    verdicts = {one["verdict"] for one in found["certificates"]}
    sys.exit(verdicts != {certificate.PASSED})


if __name__ == "__main__":
    errors.main(main)
