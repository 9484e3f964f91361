"""What an adapter was trained over, and whether that is the base it meets now."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ltu_jax.weights.tensors import DTYPES, Tensors

OVER = "trained_over"  # the key in `source` that remembers it
_ROWS = 64  # of the embedding
_KERNELS = ("self_attn.q_proj", "mlp.down_proj")


def is_adapter(path: str) -> bool:
    """Return whether a parameter of LTU-AS lies outside the base LLaMA."""
    return not path.startswith("llama.") or path.endswith((".lora_a", ".lora_b"))


def base_print(params: Tensors) -> dict[str, Any]:
    """Return dtype and a hash of some of a base: norms, first tokens, kernels of three layers.

    Enough to tell two models of one size apart, and a thousandth of the reading that all of it
    would take. `params` may hold more than the base.
    """
    digest = hashlib.sha256()

    def add(name: str, array: np.ndarray) -> None:
        digest.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())

    for name in ("input_layernorm", "post_attention_layernorm"):
        add(name, params[f"llama.layers.{name}.scale"].read())
    embedding = params["llama.embed_tokens.embedding"]
    add("embedding", embedding.between(0, min(_ROWS, embedding.shape[0])))
    for name in _KERNELS:
        kernel = params[f"llama.layers.{name}.kernel"]
        last = kernel.shape[0] - 1
        for layer in sorted({0, last // 2, last}):
            add(name, kernel.layer(layer))
    return {"dtype": base_dtype(params), "numbers": digest.hexdigest()}


def base_dtype(params: Tensors) -> str:
    """Return the dtype in which the kernels of the base are stored."""
    return params[f"llama.layers.{_KERNELS[0]}.kernel"].dtype.name


def other_base(wanted: Mapping[str, Any] | None, params: Tensors) -> tuple[str, ...]:
    """Return a remark where an adapter that says its base (`base_print`) is put over another."""
    if not wanted:
        return ()
    actual = base_print(params)
    if wanted.get("dtype") != actual["dtype"]:
        return (
            f"the adapter was over a base in {wanted.get('dtype')}; this one is in "
            f"{actual['dtype']}, so its numbers cannot be compared and answers may differ",
        )
    if wanted.get("numbers") != actual["numbers"]:
        return (
            "this is another base than the adapter was over: same sizes and dtype, other numbers "
            f"(sample hash {actual['numbers'][:12]}, wanted {str(wanted.get('numbers'))[:12]})",
        )
    return ()


def trained_over(metadata: Mapping[str, Any], params: Tensors) -> dict[str, Any]:
    """Return what metadata tell of the base in memory while the adapter was trained."""
    compute = (metadata.get("config") or {}).get("compute") or {}
    before = (metadata.get("source") or {}).get(OVER) or {}
    bases = {
        "base_dtype": compute.get("base_dtype", before.get("base_dtype")),
        "stored_dtype": base_dtype(params),
        "base_sha256": metadata["base"]["llama"]["sha256"],
    }
    return {key: value for key, value in bases.items() if value is not None}


def carried(source: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the source of an export says of its base, for the source of its import."""
    over = source.get(OVER) if source else None
    return {OVER: over} if over else {}


def remarks(source: Mapping[str, Any], params: Tensors | None = None) -> tuple[str, ...]:
    """Return a remark where an adapter saw its base in another precision than it has here."""
    over = source.get(OVER) if isinstance(source, Mapping) else None
    trained = over.get("base_dtype") if isinstance(over, Mapping) else None
    if not isinstance(trained, str):
        return ()
    stored = over.get("stored_dtype") if params is None else base_dtype(params)
    if trained == "int8":
        return (
            f"the adapter was trained over an int8 base (compute.base_dtype); the base here is "
            f"{stored}, without that rounding, so answers differ a little from those in training",
        )
    known = trained in DTYPES and stored in DTYPES
    if not known or np.can_cast(DTYPES[stored], DTYPES[trained], "safe"):
        return ()
    return (
        f"the adapter was trained over the base rounded to {trained}; the base here is {stored}",
    )
