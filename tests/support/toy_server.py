"""Weights of a toy that hears, writes and answers: what a server process is started with."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from ltu_jax.models.whisper import Whisper
from ltu_jax.weights.store import save_weights
from tests.support import tiny_ltu_as

_END = 50_257  # <|endoftext|> of the multilingual vocabulary
_PLACES = 24  # of a decoder's prompt and text


def save(folder: Path, *, tokenizer: Path, whisper_tokenizer: Path) -> dict[str, Path]:
    """Write "ltu-as" and "whisper" weights directories; the Whisper is multilingual.

    Both tokenizers are real; all numbers are random, but the Whisper ends by itself.
    """
    made = tiny_ltu_as.save(folder, tokenizer=tokenizer)
    shutil.rmtree(made["whisper"])
    config = dataclasses.replace(tiny_ltu_as.whisper_config(), n_vocab=51_865, n_text_ctx=300)
    generator = np.random.default_rng(0)
    params = {
        name: generator.normal(scale=0.1, size=leaf.shape).astype(np.float32)
        for name, leaf in Whisper(config).shapes.items()
    }
    _let_end(params)
    save_weights(
        made["whisper"],
        kind="whisper",
        config=dataclasses.asdict(config),
        params=params,
        source={},
        files=[whisper_tokenizer],
    )
    return made


def _let_end(params: dict[str, np.ndarray]) -> None:
    """Let the end become the likeliest token from `_PLACES` on; it never comes in random numbers.

    Late positions share a direction, which the embedding of the end has too.
    """
    scale, bias = params["decoder.ln.scale"], params["decoder.ln.bias"]
    shared = np.where(np.arange(len(scale)) % 2, 1.0, -1.0).astype(np.float32)
    places = np.arange(len(params["decoder.positions"]))
    params["decoder.positions"] += 4.0 * (places >= _PLACES)[:, None] * shared
    late = shared * scale
    end = 30.0 * late / (late @ late) - 15.0 * bias / (bias @ bias)
    params["decoder.embedding"][_END] = end
