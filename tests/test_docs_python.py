"""The examples of docs/python.md run as they stand, and its JSONL is read."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ltu_jax.evaluation.datasets.item import Task
from ltu_jax.evaluation.datasets.readers import own_questions
from ltu_jax.generation import limits
from ltu_jax.generation.sampling import SamplingConfig
from ltu_jax.models.whisper import Whisper
from ltu_jax.weights.store import save_weights
from tests.support import tiny_ltu_as

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "python.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def place(tmp_path, golden, whisper_tiny_files, monkeypatch):
    """A folder with the model, the Whispers and the clip that the page names."""
    made = tiny_ltu_as.save(tmp_path / "made", tokenizer=golden / "text_cases" / "spm320.model")
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    made["ltu-as"].rename(tmp_path / "runs" / "demo" / "stage3")
    config = dataclasses.replace(tiny_ltu_as.whisper_config(), n_vocab=51864, n_text_ctx=64)
    shapes, generator = Whisper(config).shapes, np.random.default_rng(0)
    save_weights(
        tmp_path / "weights" / "whisper-small",
        kind="whisper",
        config=dataclasses.asdict(config),
        params={
            name: generator.normal(scale=0.1, size=leaf.shape).astype(np.float32)
            for name, leaf in shapes.items()
        },
        source={},
        files=[whisper_tiny_files / "tokenizer.json"],
    )
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.sin(np.arange(16_000) / 5), 16_000)
    monkeypatch.chdir(tmp_path)
    return tmp_path, made["whisper"]


def test_the_examples_run(place, monkeypatch, capsys):
    import ltu_jax

    _, whisper = place
    monkeypatch.setattr(limits, "USUAL", 8)  # random weights know no end
    load = ltu_jax.load  # the run of the page knows its Whisper; these weights know none
    monkeypatch.setattr(ltu_jax, "load", lambda *a, **k: load(*a, **{"whisper": whisper, **k}))
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "docs/python.md", "exec"), names)
    assert len(names["answers"]) == 2 and names["answers"][0].text == names["answers"][1].text
    assert len(names["drawn"][0].tokens) <= 16
    streamed = "".join(event.text for event in names["events"])
    assert (
        streamed
        == names["model"]
        .answer("clip.wav", "What is it?", spoken_text="good morning", max_new_tokens=16)
        .text
    )
    assert names["official"].top_k == 500 and names["transcript"].language == "en"
    assert names["heard"].features.shape == (tiny_ltu_as.LAYERS, 25, tiny_ltu_as.WIDTH)


def test_its_own_questions_are_read(place):
    folder, _ = place
    shutil.copy(folder / "clip.wav", folder / "other.wav")
    (folder / "mine.jsonl").write_text(blocks("json")[0])
    found = own_questions.read(folder / "mine.jsonl", split="all")
    assert len(found.items) == 6 and len(found.clips) == 3
    assert all(f"`{task}`" in PAGE for task in Task)
    assert all(f"`{key}`" in PAGE for key in (*own_questions._KEYS, *own_questions._OPTIONAL))


def test_its_defaults_are_those_of_the_code():
    for field in dataclasses.fields(SamplingConfig):
        default = f'"{field.default}"' if isinstance(field.default, str) else field.default
        assert f"| `{field.name}` | {default} |" in PAGE
