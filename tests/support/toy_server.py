"""Weights of a toy that hears, writes and answers: what a server process is started with."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np

from ltu_jax.models.whisper import Whisper
from ltu_jax.weights.store import save_weights
from tests.support import tiny_ltu_as


def save(folder: Path, *, tokenizer: Path, whisper_tokenizer: Path) -> dict[str, Path]:
    """Write "ltu-as" and "whisper" weights directories; the Whisper is multilingual.

    Both tokenizers are real; all numbers are random.
    """
    made = tiny_ltu_as.save(folder, tokenizer=tokenizer)
    shutil.rmtree(made["whisper"])
    config = dataclasses.replace(tiny_ltu_as.whisper_config(), n_vocab=51_865, n_text_ctx=300)
    generator = np.random.default_rng(0)
    save_weights(
        made["whisper"],
        kind="whisper",
        config=dataclasses.asdict(config),
        params={
            name: generator.normal(scale=0.1, size=leaf.shape).astype(np.float32)
            for name, leaf in Whisper(config).shapes.items()
        },
        source={},
        files=[whisper_tokenizer],
    )
    return made
