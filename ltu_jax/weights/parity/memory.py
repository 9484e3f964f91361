"""What a comparison with the reference needs of host memory, and whether it is there."""

import jax

from ltu_jax.core.memory import available
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import DTYPES, WeightsError

_FREE = 1 << 30  # libraries, activations and compiled code


def needed(weights: Weights, *, dtype: str) -> int:
    """Bytes of host memory that `certificate.certify` takes.

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


def require(weights: Weights, *, dtype: str) -> None:
    """Refuse before the work starts.

    Raises:
        WeightsError: less memory than `needed`.
    """
    wanted, found = needed(weights, dtype=dtype), available()
    if wanted > found:
        raise WeightsError(
            f"verifying {weights.path} in {dtype} needs about {wanted / 1e9:.1f} GB of memory and "
            f"{found / 1e9:.1f} GB are free; verify on a larger machine"
            + (" or in bfloat16" if dtype == "float32" else "")
        )
