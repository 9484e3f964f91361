"""What a user of the published system downloads, made up: true shapes, names and habits.

Vicuna-7B v1.1 and Whisper large-v1 as Hugging Face publishes them, a Whisper-AT tagger, and an
Open-ASQA JSON of any number of rows. The numbers are random, the clips synthetic; `layers` cuts the
depth of the models and nothing else.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.model_sizes import ltu_as
from ltu_jax.core.files import write_json
from ltu_jax.models.llama import Llama
from ltu_jax.models.sizes import WHISPER_SIZES
from ltu_jax.models.tltr import Tagger, TaggerConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights import name_tables
from ltu_jax.weights.files import shards, torch_file
from ltu_jax.weights.formats import hf_llama, hf_whisper, whisper_at
from ltu_jax.weights.tensors import Tensor, array_tensor

RATE = 16_000
LABELS = 527
_BLOCK = 1 << 22  # random numbers that are drawn once and laid over tensors again and again
_SPREAD = 0.035  # largest magnitude of a kernel's numbers: a deviation of 0.02
# Where the authors' files say that their audio lies, by dataset.
ROOTS = {
    "as_2m": "/data/sls/audioset/dave_version/audio",
    "freesound": "/data/sls/scratch/yuangong/dataset/freesound/audio",
    "libritts": "/data/sls/scratch/yuangong/dataset/LibriTTS/train-clean-360",
    "iemocap": "/data/sls/scratch/yuangong/dataset/iemocap/sessions",
}
_TASKS = (
    ("cla_label", "Classify the sound events.", "Labels: Dog; Speech; Music"),
    ("open-ended", "What might have led to this?", "A dog barks at a passer-by, who answers."),
    ("ASR", "Can you identify the spoken text?", "and so my fellow citizens"),
    ("open-ended", "How does the speaker feel?", "They sound calm, perhaps a little amused."),
)


def noise(shape: tuple[int, ...], *, seed: int) -> Tensor:
    """Return a float16 tensor of random numbers, layer by layer if it is stacked."""

    def block(number: int, count: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        drawn = rng.integers(-127, 128, min(count, _BLOCK), np.int8)
        small = (np.roll(drawn, 997 * number) * np.float16(_SPREAD / 127)).astype(np.float16)
        return np.resize(small, count)

    def rows(start: int, stop: int) -> np.ndarray:
        each = int(np.prod(shape[1:]))
        return np.stack([block(i, each).reshape(shape[1:]) for i in range(start, stop)])

    def read() -> np.ndarray:
        if len(shape) == 3:
            return rows(0, shape[0])
        return block(0, int(np.prod(shape))).reshape(shape)

    return Tensor(
        shape=shape, dtype=np.dtype(np.float16), read=read, rows=rows if len(shape) == 3 else None
    )


def _params(shapes: dict[str, Any]) -> dict[str, Tensor]:
    """Return ones for norms, zeros for biases and noise for the rest."""
    made = {}
    for seed, (path, leaf) in enumerate(shapes.items()):
        if path.endswith((".scale", ".bias")):
            fill = np.ones if path.endswith("scale") else np.zeros
            made[path] = array_tensor(fill(leaf.shape, np.float16))
        else:
            made[path] = noise(leaf.shape, seed=seed)
    return made


def write_vicuna(folder: Path, *, layers: int, tokenizer: Path) -> None:
    """Write a Hugging Face directory of the shapes of Vicuna-7B v1.1."""
    config = dataclasses.replace(ltu_as("7b").llama, num_hidden_layers=layers)
    folder.mkdir(parents=True)
    tensors = name_tables.export(hf_llama.HF_RULES, _params(Llama.functional(config).shapes))
    placed, _ = shards.write_shards(
        folder, tensors, stem="model", metadata={"format": "pt"}, desc="Vicuna-7B shapes"
    )
    shards.write_index(folder, placed, stem="model")
    settings = hf_llama.hf_config(dataclasses.asdict(config), dtype="float16", tokens={})
    write_json(folder / "config.json", settings | {"max_position_embeddings": 2048})
    (folder / "tokenizer.model").write_bytes(tokenizer.read_bytes())


def whisper_config(*, layers: int) -> WhisperConfig:
    """Return Whisper large-v1 with fewer layers."""
    return dataclasses.replace(WHISPER_SIZES["large-v1"], n_audio_layer=layers, n_text_layer=layers)


def write_whisper(folder: Path, *, layers: int) -> None:
    """Write a Hugging Face directory of the shapes of Whisper large-v1, without its tokenizer."""
    config = whisper_config(layers=layers)
    folder.mkdir(parents=True)
    sizes = dataclasses.asdict(config)
    tensors = hf_whisper.to_hf(sizes, _params(Whisper(config).shapes))
    placed, _ = shards.write_shards(
        folder, tensors, stem="model", metadata={"format": "pt"}, desc="Whisper large-v1 shapes"
    )
    shards.write_index(folder, placed, stem="model")
    hf_whisper.write_hf_files(folder, sizes, dtype="float16", tokenizer_dir=None)


def write_whisper_at(folder: Path) -> None:
    """Write a Whisper-AT tagger of large-v1's width as its authors publish it, with its labels."""
    folder.mkdir(parents=True)
    config = TaggerConfig(tltr=ltu_as("7b").tltr, labels=LABELS, d_input=None, audio_layers=None)
    made = name_tables.export(whisper_at.RULES, _params(Tagger.functional(config).shapes))
    torch_file.write_torch(
        folder / "large-v1_ori.pth", {f"at_model.{name}": leaf for name, leaf in made.items()}
    )
    lines = [f'{number},/m/{number:05d},"Sound {number}"\n' for number in range(LABELS)]
    table = "index,mid,display_name\n" + "".join(lines)
    (folder / "class_labels_indices.csv").write_text(table)


def clip_name(number: int) -> tuple[str, str]:
    """Return the dataset of a clip and its path as the published JSON spells it."""
    dataset = tuple(ROOTS)[number % len(ROOTS)]
    return dataset, f"{ROOTS[dataset]}/{number % 997:03d}/{dataset}_{number:07d}.flac"


def rows(count: int, *, pairs_per_clip: int = 9) -> Iterator[dict[str, str]]:
    """Yield official rows, clip by clip; of one in ten the spoken text begins with a blank."""
    for number in range(count):
        clip, pair = divmod(number, pairs_per_clip)
        dataset, path = clip_name(clip)
        task, question, answer = _TASKS[pair % len(_TASKS)]
        blank = " " if clip % 10 == 0 and pair % 2 else ""
        yield {
            "instruction": question,
            "input": f"{blank}words that clip {clip} says",
            "audio_id": path,
            "dataset": dataset,
            "task": task,
            "output": answer,
        }


def write_json_rows(path: Path, *, count: int) -> None:
    """Write a JSON list of official rows, one at a time."""
    with path.open("w") as file:
        file.write("[")
        for number, row in enumerate(rows(count)):
            file.write(("," if number else "") + "\n" + json.dumps(row))
        file.write("\n]\n")


def write_audio(folder: Path, *, clips: int) -> None:
    """Write the first clips of `rows` below `folder`, as a user's own disk has them."""
    time = np.arange(10 * RATE) / RATE
    for number in range(clips):
        _, path = clip_name(number)
        file = folder / Path(path).parent.parent.name / Path(path).parent.name / Path(path).name
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(number)
        tone = 0.2 * np.sin(2 * np.pi * rng.uniform(80, 2000) * time)
        soundfile.write(file, tone + rng.normal(scale=0.02, size=len(time)), RATE)
