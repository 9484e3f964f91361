"""The parity certificate: our numbers beside those of another implementation, module by module.

    certificate = certify(load_weights(DIR), dtype="float32")
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
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ltu_jax.core import provenance
from ltu_jax.core.memory import available
from ltu_jax.weights import fingerprint, makers
from ltu_jax.weights.parity import modules, reference
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import DTYPES, Tensors, WeightsError

FORMAT = 1
FILE = makers.CERTIFICATE
PASSED, FAILED = "passed", "failed"
_FREE = 1 << 30  # bytes of libraries, activations and compiled code

_LIBRARIES = ("jax", "jaxlib", "flax", "numpy", "torch", "transformers", "ltu_jax")


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
    _require_memory(weights, dtype=dtype)
    # a GPU or TPU multiplies float32 in less than float32 unless it is told otherwise
    precision = "highest" if dtype == "float32" else None
    with jax.default_matmul_precision(precision):
        rows = list(modules.rows(weights, dtype=dtype, exported=exported))
    clip_fingerprint = None
    if weights.kind == "whisper":  # as training and answering compute it on this device
        clip_fingerprint = fingerprint.of_encoder(weights, dtype=dtype).to_json()
    ran_on = "our numbers" if exported is None else "the exported numbers"
    return document(weights, rows, dtype=dtype, precision=precision, reference=ran_on) | {
        fingerprint.KEY: clip_fingerprint
    }


def document(
    weights: Weights,
    rows: Sequence[modules.ModuleError],
    *,
    dtype: str,
    precision: str | None,
    reference: str,
) -> dict[str, Any]:
    """Return a certificate of some rows.

    Args:
        weights: what was compared.
        rows: how far its modules are from the reference's.
        dtype: of our parameters and products.
        precision: of products on this device; None is the default.
        reference: what the reference ran on, in words.
    """
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
        "reference_ran_on": reference,
        "modules": [_entry(row) for row in rows],
        fingerprint.KEY: None,
    }


def require_passed(certificate: Mapping[str, Any], *, folder: Path) -> None:
    """Require the verdict of the certificate that was written to `folder`.

    Raises:
        WeightsError: a module is outside its tolerance.
    """
    if certificate["verdict"] != PASSED:
        raise WeightsError(
            f"{folder} was written, but does not compute what its reference does: see the "
            f"modules marked in {folder / FILE}"
        )


def memory_needed(weights: Weights, *, dtype: str) -> int:
    """Return the bytes of host memory that `certify` takes.

    Ours come first and are gone before the reference starts: all parameters in `dtype` (on a CPU;
    a GPU or TPU holds them itself) and one of them as it is read. Of a LLaMA the reference holds
    one layer and a vocabulary in float32, twice while it is copied; Whisper whole.
    """
    shapes = weights.params.shapes
    sizes = {path: tensor.nbytes // tensor.dtype.itemsize
             for path, tensor in weights.params.tensors.items()}  # fmt: skip
    ours = sum(sizes.values()) * DTYPES[dtype].itemsize if jax.default_backend() == "cpu" else 0
    ours += 4 * max(sizes.values())
    if weights.kind == "whisper":
        theirs = 4 * sum(sizes.values())
    else:
        layers = {path for path in sizes if path.startswith("llama.layers.")}
        layer = sum(sizes[path] // shapes[path][0] for path in layers)
        rest = max((sizes[path] for path in sizes if path not in layers), default=0)
        theirs = 2 * 4 * (layer + rest)
    return max(ours, theirs) + _FREE


def _require_memory(weights: Weights, *, dtype: str) -> None:
    """Refuse before the work starts what the memory does not hold.

    Raises:
        WeightsError: less memory than `memory_needed`.
    """
    wanted, found = memory_needed(weights, dtype=dtype), available()
    if wanted > found:
        raise WeightsError(
            f"verifying {weights.named} in {dtype} needs about {wanted / 1e9:.1f} GB of memory and "
            f"{found / 1e9:.1f} GB are free; verify on a larger machine"
            + (" or in bfloat16" if dtype == "float32" else "")
        )


def _entry(row: modules.ModuleError) -> dict[str, Any]:
    entry = dataclasses.asdict(row) | {"tolerance": row.tolerance, "passed": row.passed}
    del entry["dtype"]
    # JSON has no infinity
    return {k: None if v != v or v in (np.inf, -np.inf) else v for k, v in entry.items()}


def table(certificate: Mapping[str, Any]) -> str:
    """Return the certificate as lines for people."""
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
    clip_fingerprint = certificate[fingerprint.KEY]
    shown.append(
        f"parity {certificate['verdict']} in {certificate['dtype']} on {device['platform']} "
        f"({device['kind']})"
        + (f", fingerprint {clip_fingerprint['code']}" if clip_fingerprint else "")
    )
    return "\n".join(shown)


def versions() -> dict[str, str | None]:
    """Return the versions of libraries, and the commit of this code if it runs from a checkout."""
    by_package: dict[str, str | None] = {
        name: None if version == provenance.NOT_INSTALLED else version
        for name, version in provenance.versions(_LIBRARIES).items()
    }
    if state := provenance.git_state():
        by_package["commit"] = state["commit"][:12] + ("-dirty" if state["changed"] else "")
    return by_package
