"""The axis-letter legend and the array aliases of every signature.

=  =======================  =  =======================
B  batch                    T  query position
S  key position             A  audio tokens
F  log-mel frames           M  mel bins
W  Whisper layers           C  audio samples
D  model width              E  language-model width
N  query heads              K  key/value heads
H  head dimension           I  feed-forward width
V  vocabulary               R  LoRA rank
L  stacked layers           G  clips in a row
=  =======================  =  =======================

Einsum strings and jaxtyping shapes use these letters only.
"""

from typing import Any

from jaxtyping import Bool as Bool
from jaxtyping import Float as Float
from jaxtyping import Int as Int


def __getattr__(name: str) -> Any:
    """Give `Array` on first use: it imports JAX, which a process that decodes audio never needs."""
    if name != "Array":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from jaxtyping import Array

    return Array
