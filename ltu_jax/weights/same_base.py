"""Is this the language model that an adapter belongs to, in a file of another maker?

A hash names a file. Another conversion of the same model has another hash, so a shipped adapter
also remembers what its base computes with: its settings, every number as float32, and what its
tokenizer makes of some texts. Where all three agree, answers are the same to the last bit.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ltu_jax.preprocessing.tokenizer import load_tokenizer
from ltu_jax.weights.store import Weights
from ltu_jax.weights.tensors import Tensors

CONTENT = "content"  # the key in an entry of a base
# Letters, digits, signs, scripts, spaces, and the words around every question.
_TEXTS = (
    "Hear: 12 dogs, “wie bitte?”  é 你好 🎵\n\tdon't",
    "### Instruction:\nWhat do you hear?\n\n### Input:\nGood morning.\n\n### Response:\n",
    " a  b   c\n\n\n0123456789 3.14 -- ... (x) [y] <z> $%&",
)


def content(base: Weights) -> dict[str, str]:
    """Return what tells a language model from all others, whatever file it is in."""
    return {"numbers": _numbers(base.tensors), "tokenizer": _tokenizer(base.tokenizer_dir)}


def difference(wanted: Mapping[str, str], settings: Mapping[str, Any], base: Weights) -> str | None:
    """Return in words how a base differs from the one that is wanted; None where it does not.

    Args:
        wanted: `content` of that one.
        settings: its config.
        base: opened, of kind "llama".
    """
    here, there = json.loads(json.dumps(base.config)), json.loads(json.dumps(dict(settings)))
    unlike = [key for key in there if here.get(key) != there[key]]
    if unlike:
        told = "; ".join(f"{key} is {here.get(key)} here and {there[key]} there" for key in unlike)
        return f"it is another model: {told}"
    found = content(base)
    if found["numbers"] != wanted["numbers"]:
        dtypes = sorted({tensor.dtype.name for tensor in base.tensors.values()})
        return (
            "it has the same sizes and other numbers: another model, or this one rounded in "
            f"another way (it is stored in {', '.join(dtypes)})"
        )
    if found["tokenizer"] != wanted["tokenizer"]:
        return "its numbers are the same, but its tokenizer makes other tokens of a text"
    return None


def _numbers(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}\n".encode())
        for block in tensors[name].blocks():
            digest.update(np.ascontiguousarray(block, np.float32).data)
    return digest.hexdigest()


def _tokenizer(folder: Path | None) -> str:
    if folder is None:
        return ""
    tokenizer = load_tokenizer(folder)
    ids = [list(map(int, tokenizer.encode(text))) for text in _TEXTS]
    special = [tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id]
    return hashlib.sha256(json.dumps([ids, special]).encode()).hexdigest()
