"""Load a language model alone, of the LLaMA family, to answer text with."""

from dataclasses import dataclass, field
from pathlib import Path

import jax
import jax.numpy as jnp

from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.sharding import MeshConfig, make_mesh
from ltu_jax.core.trees import Params
from ltu_jax.generation.data_parallel import DataParallel
from ltu_jax.generation.loading import DTYPES, WHOLE
from ltu_jax.models.functional import Functional
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.preprocessing.tokenizer import Tokenizer, load_tokenizer, require_rows
from ltu_jax.weights.open import open_weights
from ltu_jax.weights.placement import place_language_model


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """A language model in memory.

    Attributes:
        path: where it was read.
        weights_sha256: the hash of its weights, alone in a tuple.
        ends: ids that end its texts, beside the tokenizer's own.
        positions: those it was made for; None where its files do not say.
        tokenizer_dir: the folder of its tokenizer, which may name a chat template.
    """

    path: Path
    weights_sha256: tuple[str, ...]
    model: Functional[Llama]
    params: Params
    tokenizer: Tokenizer
    ends: tuple[int, ...]
    positions: int | None
    tokenizer_dir: Path
    data_parallel: DataParallel = field(default_factory=DataParallel)


def load_language_model(path: str | Path, *, dtype: str = "float32") -> LanguageModel:
    """Load a weights directory of kind "llama", or a LLaMA-family Hugging Face directory.

    Args:
        path: the directory.
        dtype: of parameters and products; a name of `loading.DTYPES`.

    Raises:
        UserError: other weights, damaged ones, or no tokenizer.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise UserError(f"{spell('dtype')} {dtype!r}: choose {', '.join(DTYPES)}")
    weights = open_weights(path, kind="llama")
    if weights.tokenizer_dir is None:
        raise UserError(
            f"{weights.path} has no tokenizer, so it cannot read text; put tokenizer.model or "
            "tokenizer.json there"
        )
    config, compute = LlamaConfig.from_dict(weights.config), WHOLE.get(dtype, dtype)
    model = Llama.functional(config, dtype=jnp.dtype(compute), int8_base=dtype == "int8")
    params = place_language_model(
        weights.tensors,
        model.shapes,
        base_dtype=dtype,
        dtype=compute,
        mesh=make_mesh(MeshConfig(data=1, fsdp=1, tensor=1), jax.local_devices()[:1]),
        subject=str(weights.path),
    )
    tokenizer = load_tokenizer(weights.tokenizer_dir)
    require_rows(tokenizer, rows=config.vocab_size, subject=str(weights.tokenizer_dir))
    return LanguageModel(
        path=weights.path,
        weights_sha256=(weights.sha256,),
        model=model,
        params=params,
        tokenizer=tokenizer,
        ends=tuple(weights.facts.get("end_tokens") or ()),
        positions=weights.max_position_embeddings,
        tokenizer_dir=weights.tokenizer_dir,
    )
