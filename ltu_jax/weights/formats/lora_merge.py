"""LoRA added to the kernels of the language model it was trained on."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ltu_jax.weights.lineage import is_adapter
from ltu_jax.weights.tensors import Tensor, Tensors


def merged(config: Mapping[str, Any], params: Tensors) -> dict[str, Tensor]:
    """The plain LLaMA inside LTU-AS parameters, LoRA added to its kernels when they are read.

    W + A B * alpha / rank, computed in float32, layer by layer, and rounded to the dtype of W.
    """
    lora = config.get("lora")
    scale = lora["alpha"] / lora["rank"] if lora else 0.0
    result = {path: tensor for path, tensor in params.items() if not is_adapter(path)}
    for path, kernel in result.items():
        stem = path.removesuffix(".kernel")
        if f"{stem}.lora_a" in params:
            result[path] = _with_lora(
                kernel, a=params[f"{stem}.lora_a"], b=params[f"{stem}.lora_b"], scale=scale
            )
    return result


def _with_lora(kernel: Tensor, *, a: Tensor, b: Tensor, scale: float) -> Tensor:
    def rows(start: int, stop: int) -> np.ndarray:
        out = np.empty((stop - start, *kernel.shape[1:]), kernel.dtype)
        for layer in range(start, stop):
            low, high = a.layer(layer).astype(np.float32), b.layer(layer).astype(np.float32)
            out[layer - start] = kernel.layer(layer).astype(np.float32) + low @ high * scale
        return out

    return Tensor(
        shape=kernel.shape,
        dtype=kernel.dtype,
        read=lambda: rows(0, kernel.shape[0]),
        rows=rows,
    )
