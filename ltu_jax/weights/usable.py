"""Whether a weights directory can be used: its parts hold together when they are opened.

An import asks this of what it found, before hours of writing, and of its own result before that
takes its name, so that "written" means usable; `convert info` and `verify` ask it too.
"""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.tokenizer import load_tokenizer, require_rows
from ltu_jax.weights import store
from ltu_jax.weights.formats import whisper_tokens
from ltu_jax.weights.name_tables import Import
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.tensors import Tensor, WeightsError

# letters, digits, signs, scripts and spaces; no character of it may be a traceback
_PROBE = "Hear: 12 dogs, “wie bitte?”  é 你好 🎵\n\tdon't"


def check_import(
    found: Import, kind: str, *, what: str
) -> tuple[dict[str, Any], dict[str, Tensor], tuple[str, ...]]:
    """Return what an import would become, all checked but the numbers.

    Returns:
        (the config, every parameter still to be read, notes for the summary).

    Raises:
        WeightsError: names or shapes that do not fit, or a tokenizer that could not be used.
    """
    config, shapes = model_shapes(kind, found.config)
    params = found.params(shapes, what=what)
    with tempfile.TemporaryDirectory(prefix="ltu-jax-") as name:
        for file, content in found.files.items():
            if isinstance(content, str):
                (Path(name) / file).write_text(content, encoding="utf-8")
            elif isinstance(content, bytes):
                (Path(name) / file).write_bytes(content)
            else:
                shutil.copyfile(content, Path(name) / file)
        notes = _tokenizer(Path(name), kind, config, ends=found.facts.get("end_tokens"), name=what)
    return config, params, notes


def check(folder: Path, *, name: str) -> None:
    """Open a weights directory as its users do, all but the numbers.

    Args:
        folder: where it lies now, perhaps under a temporary name.
        name: what an error calls it.

    Raises:
        WeightsError: it is not usable; the message says why.
    """
    held = store.load_weights(folder, verify=False)
    config, shapes = model_shapes(held.kind, held.config)
    store.check_against(shapes, held.params, what=name)
    _tokenizer(folder, held.kind, config, ends=held.facts.get("end_tokens"), name=name)


def _tokenizer(
    folder: Path, kind: str, config: Mapping[str, Any], *, ends: list[int] | None, name: str
) -> tuple[str, ...]:
    """Load the tokenizer of a folder and hold it against the model; notes for the summary."""
    if not any((folder / file).is_file() for file in ("tokenizer.model", "tokenizer.json")):
        return ()
    try:
        if kind == "whisper":
            whisper_tokens.load(folder, rows=config["n_vocab"])
            return ()
        language = config if kind == "llama" else config["llama"]
        tokenizer = load_tokenizer(folder)
        require_rows(tokenizer, rows=language["vocab_size"], what=name)
        ids = tokenizer.encode(_PROBE)
        if not ids:
            raise WeightsError(f"{name}: its tokenizer makes no ids of a text")
        tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id])
        tokenizer.decode(ids, skip_special=False)
    except UserError as error:
        # the temporary folder means nothing to anybody
        told = str(error).replace(f"{folder}/", "").replace(str(folder), name)
        raise WeightsError(f"{name} would not be usable: {told}") from None
    if ends and tokenizer.eos_id not in ends:
        return (
            f"answers end at the tokenizer's EOS, {tokenizer.eos_id}; the model's own settings "
            f"end at {', '.join(map(str, ends))}",
        )
    return ()
