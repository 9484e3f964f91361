"""Parity certificates of real weights on this machine's device, in float32 and bfloat16.

    python -m benchmarks.certificate [--weights DIR ...] [--dtypes float32 bfloat16] [--out DIR]

By default the weights that `python -m ltu_jax.fetch` makes: SmolLM2-135M, Whisper tiny.en and base.
Writes OUT/certificate_DEVICE.json and fails if a module is outside its tolerance. The feature
fingerprints of the dtypes are compared with each other, as training and answering compare them.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from benchmarks import alternate
from ltu_jax.core import errors
from ltu_jax.core.files import write_json
from ltu_jax.weights.fingerprint import KEY, Fingerprint, compare
from ltu_jax.weights.parity import certificate
from ltu_jax.weights.parity.modules import TOLERANCES
from ltu_jax.weights.store import load_weights

NAMES = ("smollm2-135m", "whisper-tiny.en", "whisper-base")
# the same in every certificate of a run
_COMMON = ("device", "host", "versions", "date", "format")


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


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.certificate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    places = [Path("assets/weights") / name for name in NAMES]
    parser.add_argument("--weights", nargs="+", type=Path, default=places, metavar="DIR")
    parser.add_argument("--dtypes", nargs="+", choices=TOLERANCES, default=["float32", "bfloat16"])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    absent = [folder.name for folder in given.weights if not (folder / "config.json").is_file()]
    if absent:
        raise errors.UserError(
            f"no weights directory for {', '.join(absent)}; make them with "
            f"`python -m ltu_jax.fetch {' '.join(absent)}`, or give others with --weights"
        )
    found = measure(given.weights, given.dtypes)
    file = given.out / f"certificate_{alternate.device()}.json"
    write_json(file, found)
    print(f"\n{file}")
    verdicts = {one["verdict"] for one in found["certificates"]}
    sys.exit(verdicts != {certificate.PASSED})


if __name__ == "__main__":
    errors.main(main)
