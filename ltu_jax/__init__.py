"""LTU-AS in JAX: answers questions about sounds, music and speech.

import ltu_jax
model = ltu_jax.load("runs/demo/stage3")
print(model.answer("clip.wav", "What can be inferred from the audio?").text)
"""

import importlib
from typing import Any

__all__ = ["Answer", "Model", "Request", "SamplingConfig", "load"]

_HOMES = {
    "Answer": "ltu_jax.inference",
    "Model": "ltu_jax.inference",
    "Request": "ltu_jax.inference",
    "SamplingConfig": "ltu_jax.generation.sampling",
    "load": "ltu_jax.inference",
}


def __getattr__(name: str) -> Any:
    """Import on first use: a data worker that reads records should not start JAX."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
