"""The parity certificate: our numbers beside those of another implementation, module by module.

    certificate = verify(DIR, dtype="float32")     writes DIR/parity.json
    print(table(certificate)); certificate["verdict"] is "passed" or "failed"

What is compared with what:

    whisper   every encoder block, the encoder's end and the decoder's logits: transformers
    llama     every layer, the final norm, the logits: transformers
    ltu-as    TLTR and projection: numpy in float64; every layer behind them with LoRA beside the
              kernels, and the logits with LoRA merged: transformers; besides, the authors' numbers
    tltr      label logits: numpy in float64; besides, the authors' numbers

The reference always computes in float32 or float64, so a certificate in bfloat16 states what
bfloat16 costs on this device.
"""

import dataclasses
import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ltu_jax.core.files import write_json
from ltu_jax.weights import fingerprint, makers
from ltu_jax.weights.parity import memory, modules, reference
from ltu_jax.weights.store import Weights, load_weights
from ltu_jax.weights.tensors import Tensors, WeightsError

FORMAT = 1
FILE = makers.CERTIFICATE
PASSED, FAILED = "passed", "failed"


def verify(
    path: str | os.PathLike,
    *,
    dtype: str = "float32",
    out: str | os.PathLike | None = None,
    exported: Tensors | None = None,
) -> dict[str, Any]:
    """Certify a weights directory and write the certificate, passed or failed.

    Args:
        path: the directory.
        dtype: "float32", "bfloat16" or "float16": of our parameters and products.
        out: the certificate's file; None is `parity.json` in the directory.
        exported: see `certify`.

    Returns:
        The certificate.

    Raises:
        WeightsError: as `certify`.
    """
    weights = load_weights(path)
    found = certify(weights, dtype=dtype, exported=exported)
    write_json(Path(path) / FILE if out is None else out, found)
    return found


def certify(
    weights: Weights, *, dtype: str = "float32", exported: Tensors | None = None
) -> dict[str, Any]:
    """Compare opened weights with their reference; nothing is written.

    Args:
        weights: of any kind.
        dtype: of our parameters and products.
        exported: tensors under Hugging Face names that were written from these weights: the
            reference then runs on them (of LTU-AS: its row of merged LoRA). None lets it run on
            ours, named by the same tables.

    Raises:
        WeightsError: an unknown dtype, no PyTorch or transformers, or too little memory.
    """
    if dtype not in modules.TOLERANCES:
        known = ", ".join(modules.TOLERANCES)
        raise WeightsError(f"a certificate in {dtype!r} is unknown; known are {known}")
    if weights.kind != "tltr":
        reference.libraries()  # before minutes of work
    memory.require(weights, dtype=dtype)
    # a GPU or TPU multiplies float32 in less than float32 unless it is told otherwise
    precision = "highest" if dtype == "float32" else None
    with jax.default_matmul_precision(precision):
        rows = list(modules.rows(weights, dtype=dtype, exported=exported))
    heard = None
    if weights.kind == "whisper":  # as training and answering compute it on this device
        heard = fingerprint.of_encoder(weights, dtype=dtype).to_json()
    device = jax.devices()[0]
    return {
        "format": FORMAT,
        "verdict": PASSED if all(row.passed for row in rows) else FAILED,
        "kind": weights.kind,
        "weights": {"name": weights.path.name, "sha256": weights.sha256, "source": weights.source},
        "config": weights.config,
        "dtype": dtype,
        "matmul_precision": precision or "default",
        "device": {"platform": device.platform, "kind": device.device_kind},
        "host": platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": versions(),
        "reference_ran_on": "our numbers" if exported is None else "the exported numbers",
        "modules": [_entry(row) for row in rows],
        fingerprint.KEY: heard,
    }


def _entry(row: modules.ModuleError) -> dict[str, Any]:
    entry = dataclasses.asdict(row) | {"tolerance": row.tolerance, "passed": row.passed}
    del entry["dtype"]
    # JSON has no infinity
    return {k: None if v != v or v in (np.inf, -np.inf) else v for k, v in entry.items()}


def table(certificate: Mapping[str, Any]) -> str:
    """The certificate as lines for people."""
    lines = [("module", "against", "max abs", "max rel", "mean rel", "tolerance", "")]
    for row in certificate["modules"]:
        errors = (
            "not finite" if row[key] is None else f"{row[key]:.1e}"
            for key in ("max_abs", "max_rel", "mean_rel")
        )
        verdict = "ok" if row["passed"] else "FAILED"
        lines.append((row["module"], row["against"], *errors, f"{row['tolerance']:.0e}", verdict))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in lines]  # fmt: skip
    device = certificate["device"]
    heard = certificate[fingerprint.KEY]
    shown.append(
        f"parity {certificate['verdict']} in {certificate['dtype']} on {device['platform']} "
        f"({device['kind']})" + (f", fingerprint {heard['code']}" if heard else "")
    )
    return "\n".join(shown)


def versions() -> dict[str, str | None]:
    """What computed: libraries, and the commit of this code where it runs from its repository."""
    found: dict[str, str | None] = {}
    for name in ("jax", "jaxlib", "flax", "numpy", "torch", "transformers", "ltu_jax"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "ls-files", "--error-unmatch", Path(__file__).name]
    try:
        known = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:  # no git on this machine
        known = False
    if known:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        run = subprocess.run(command, capture_output=True, check=False, text=True)
        found["commit"] = run.stdout.strip() or None
    return found
