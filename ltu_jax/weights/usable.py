"""Whether a weights directory can be used: opened, its parts hold together.

An import asks this of its own result before the result takes its name, so that "written" means
usable; answering and training ask it again of what they open.
"""

from pathlib import Path

from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.tokenizer import Tokenizer, load_tokenizer, require_rows
from ltu_jax.weights import store, whisper_tokens
from ltu_jax.weights.shapes import model_shapes
from ltu_jax.weights.tensors import WeightsError

# letters, digits, signs, scripts and spaces: every one of them must become ids with rows
_PROBE = "Hear: 12 dogs, “wie bitte?”  é 你好 🎵\n\tdon't"


def check(folder: Path, *, name: str) -> None:
    """Open a weights directory as its users do, all but the numbers.

    Args:
        folder: where it lies now, perhaps under a temporary name.
        name: what an error calls it.

    Raises:
        WeightsError: it is not usable; the message says why.
    """
    try:
        held = store.load_weights(folder, verify=False)
        config, shapes = model_shapes(held.kind, held.config)
        store.check_against(shapes, held.params, what=name)
        if held.tokenizer_dir is None:
            return
        if held.kind == "whisper":
            whisper_tokens.load(folder, rows=config["n_vocab"])
        elif held.kind in ("llama", "ltu-as"):
            language = config if held.kind == "llama" else config["llama"]
            tokenizer = load_tokenizer(folder)
            require_rows(tokenizer, rows=language["vocab_size"], what=name)
            _probe(tokenizer, name=name)
    except UserError as error:
        # the temporary folder means nothing to anybody
        told = str(error).replace(f"{folder}/", "").replace(str(folder), name)
        raise WeightsError(f"{name} would not be usable: {told}") from None


def _probe(tokenizer: Tokenizer, *, name: str) -> None:
    ids = tokenizer.encode(_PROBE)
    if not ids:
        raise WeightsError(f"{name}: its tokenizer makes no ids of a text")
    tokenizer.decode([tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id])
    tokenizer.decode(ids, skip_special=False)
