"""`docs/finetune.md`, as it stands there: its files are written, its commands run at toy size."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile

from data_pipelines import write_records
from ltu_jax import ask, checkpoint, convert, evaluate, train
from ltu_jax.core.errors import UserError
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights.store import save_weights
from tests.support.records_corpus import TOKENIZER
from tests.support.tiny_stage import LLAMA, WHISPER

ROOT = Path(__file__).resolve().parent.parent

DOCUMENT = (ROOT / "docs" / "finetune.md").read_text(encoding="utf-8")
MAINS = {
    "data_pipelines.write_records": write_records.command,
    "ltu_jax.train": train.main,
    "ltu_jax.ask": ask.main,
    "ltu_jax.evaluate": evaluate.main,
    "ltu_jax.convert": convert.main,
}
TLTR = dict(d_model=16, time_heads=1, layer_heads=8)
# The recipe at toy size, on the eight devices of the tests.
SMALL = [
    "--config.steps=2", "--config.optimizer.warmup_steps=1", "--config.data.rows_per_batch=4",
    "--config.mesh.data=4", "--config.mesh.tensor=2", "--config.log.peak_flops=1e12",
    "--config.data.lengths=(216,)", "--config.log.tensorboard=False",
    *(f"--config.model.whisper.{key}={value}" for key, value in WHISPER.items()),
    *(f"--config.model.llama.{key}={value}" for key, value in LLAMA.items()
      if key != "rope_scaling"),
    *(f"--config.model.tltr.{key}={value}" for key, value in TLTR.items()),
]  # fmt: skip

# A random Whisper has no tokenizer to write with, so what is said is told.
SPOKEN = "nobody speaks"
TOY = {
    "ltu_jax.train": SMALL,
    "ltu_jax.ask": ["--max-new-tokens=4", f"--spoken-text={SPOKEN}"],
}


def blocks(kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == kind]


def commands() -> list[list[str]]:
    lines = "".join(blocks("")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the document's files, and toy weights where it has those of the demo."""
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "configs").symlink_to(ROOT / "configs")
    mine, questions = blocks("json")
    (folder / "mine.jsonl").write_text(mine)
    told = [
        json.dumps({**json.loads(line), "spoken_text": SPOKEN}) for line in questions.splitlines()
    ]
    (folder / "questions.jsonl").write_text("\n".join(told) + "\n")
    (folder / "clips").mkdir()
    for number, name in enumerate({json.loads(line)["audio_id"] for line in mine.splitlines()}):
        wave = np.random.default_rng(number).normal(0, 0.1, 16000)
        soundfile.write(folder / "clips" / name, wave, 16000)
    config = LTUASConfig(
        tltr=TLTRConfig(**TLTR),
        llama=LlamaConfig(**LLAMA),
        lora=LoRAConfig(rank=8, alpha=16.0, dropout=0.0, targets=("q_proj", "v_proj")),
        audio_layers=WHISPER["n_audio_layer"],
        audio_tokens=25,
    )
    for where, kind, values, fns in (
        ("assets/weights/whisper-tiny.en", "whisper", WHISPER, Whisper(WhisperConfig(
            **WHISPER))),
        ("assets/weights/smollm2-135m", "llama", LLAMA, Llama.functional(LlamaConfig(**LLAMA))),
        ("runs/demo/stage3", "ltu-as", dataclasses.asdict(config), LTUAS.functional(config)),
    ):  # fmt: skip
        params = {path: np.asarray(leaf) for path, leaf in fns.init(jax.random.key(0)).items()}
        files = {} if kind == "whisper" else {"tokenizer.model": TOKENIZER}
        save_weights(folder / where, kind=kind, config=values, params=params, source={},
                     files=files)  # fmt: skip
    return folder


def run(place: Path, command: list[str], *more: str) -> None:
    python, dash_m, module, *arguments = command
    assert (python, dash_m) == ("python", "-m")
    try:
        assert not MAINS[module]([*arguments, *more])
    except SystemExit as end:
        assert not end.code, command


def test_the_recipe_of_the_document(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(ROOT))
    ran = []
    for command in commands():
        if "--help" in command:
            continue
        train_it = command[2] == "ltu_jax.train"
        if train_it:
            # What happens without the two keys, before anything is written (issue 15, D3).
            bare = [word for word in command[3:] if not word.startswith("--config.log.")]
            with pytest.raises(UserError) as error:
                train.main([*bare, *SMALL])
            keys = ("validation_split", "log.validate_batches=0", "log.samples=0")
            for part in ("'val'", "my_records", *keys):
                assert part in str(error.value)
            assert not (place / "runs" / "mine").exists()
        run(place, command, *TOY.get(command[2], []))
        ran.append(command[2])
    assert set(ran) == set(MAINS)
    _, metadata = checkpoint.read_metadata(place / "runs" / "mine")
    assert metadata["step"] == 2 and metadata["stage"] == "stage3"
    (answer,) = (place / "runs" / "eval" / "mine" / "samples.jsonl").read_text().splitlines()
    assert json.loads(answer)
    assert (place / "mine.safetensors").is_file()
    assert (place / "exported" / "mine" / "config.json").is_file()
