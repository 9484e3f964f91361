"""Install the wheel into a fresh environment outside the checkout, and use it as a user would.

    python tests/try_wheel.py [--python python3.12] [--work FOLDER]      (make wheel-check)

Builds the wheel, makes a virtual environment of PYTHON in FOLDER (kept for another try if it is
named), installs the wheel with the versions of constraints.txt, which downloads about 1 GB, and
runs every command of docs/finetune.md with toy weights, besides the helps and a plan. Nothing of
the checkout is on the path. Exit status 1 names the first command that fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = (
    "ltu_jax",
    "configs",
    "data_pipelines",
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)
TOKENIZER = ROOT / "tests" / "golden" / "text_cases" / "spm320.model"
# Weights, clips and questions, made by the installed package.
PLACE = """
import dataclasses, json, pathlib, sys
import jax, numpy as np, soundfile
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.lora import LoRAConfig
from ltu_jax.models.ltu_as import LTUAS, LTUASConfig
from ltu_jax.models.tltr import TLTRConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights.store import save_weights

whisper = WhisperConfig(n_mels=80, n_audio_ctx=1500, n_audio_state=16, n_audio_head=2,
    n_audio_layer=1, n_vocab=64, n_text_ctx=448, n_text_state=16, n_text_head=2, n_text_layer=1)
llama = LlamaConfig(vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6, rope_theta=10000.0,
    rope_scaling=None, tie_word_embeddings=True, attention_bias=False)
model = LTUASConfig(tltr=TLTRConfig(d_model=16, time_heads=1, layer_heads=8), llama=llama,
    lora=LoRAConfig(rank=8, alpha=16.0, dropout=0.0, targets=("q_proj", "v_proj")),
    audio_layers=1, audio_tokens=25)
for folder, kind, config, made in (
    ("weights/whisper", "whisper", whisper, Whisper(whisper)),
    ("weights/llama", "llama", llama, Llama.functional(llama)),
    ("weights/ltu-as", "ltu-as", model, LTUAS.functional(model)),
):
    params = {path: np.asarray(leaf) for path, leaf in made.init(jax.random.key(0)).items()}
    files = {} if kind == "whisper" else {"tokenizer.model": pathlib.Path(sys.argv[1])}
    save_weights(folder, kind=kind, config=dataclasses.asdict(config), params=params, source={},
                 files=files)
pathlib.Path("clips").mkdir()
rows, questions = [], []
for number, name in enumerate(("kettle", "door")):
    wave = np.random.default_rng(number).normal(0, 0.1, 16000)
    soundfile.write(f"clips/{name}.wav", wave, 16000)
    shared = {"input": "", "audio_id": f"{name}.wav", "dataset": "mine", "output": f"A {name}."}
    rows.append({"instruction": "What do you hear?", "task": "cla_sound", **shared})
    questions.append({"audio": f"clips/{name}.wav", "question": "What do you hear?", "answer": name,
        "task": "classification", "labels": ["door", "kettle"], "spoken_text": "nobody speaks"})
for file, lines in (("mine.jsonl", rows), ("questions.jsonl", questions)):
    pathlib.Path(file).write_text("".join(json.dumps(line) + "\\n" for line in lines))
for part, config in (("whisper", whisper), ("llama", llama), ("tltr", model.tltr)):
    for key, value in dataclasses.asdict(config).items():
        if value is not None:
            print(f"--config.model.{part}.{key}={value}")
"""
API = """
import ltu_jax
model = ltu_jax.load("runs/mine")
answer = model.answer("clips/door.wav", "What?", spoken_text="nobody speaks", max_new_tokens=4)
print(repr(answer.text), ltu_jax.__file__)
"""


class Trial:
    """An installed wheel and the folder in which its commands run."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.python = folder / "venv" / "bin" / "python"
        self.place = folder / "place"

    def install(self, python: str) -> None:
        """Build the wheel and install it into a new environment of `python`."""
        if not self.python.exists():
            self._run([python, "-m", "venv", self._folder / "venv"], cwd=self._folder)
        pip = [self.python, "-m", "pip", "--disable-pip-version-check"]
        # Beside the checkout: its build folder may hold modules that have moved since.
        source = Path(tempfile.mkdtemp(dir=self._folder)) / "source"
        source.mkdir()
        for name in SOURCE:
            (source / name).symlink_to(ROOT / name)
        self._run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", self._folder, source])
        wheel = next(self._folder.glob("ltu_jax-*.whl"))
        limits = ("--constraint", ROOT / "constraints.txt")
        self._run([*pip, "install", "--quiet", "--no-compile", *limits, wheel])
        self._run([*pip, "install", "--quiet", "--no-deps", "--force-reinstall", wheel])

    def prepare(self) -> list[str]:
        """Make the place of the trial; returns the sizes of its models as config keys."""
        self.place.mkdir()
        return self._run([self.python, "-c", PLACE, TOKENIZER], cwd=self.place).split()

    def module(self, *words: str, status: int = 0) -> str:
        """Run `python -m` in the place; return what it prints."""
        return self._run([self.python, "-m", *words], cwd=self.place, status=status)

    def code(self, text: str) -> str:
        """Run Python code in the place."""
        return self._run([self.python, "-c", text], cwd=self.place)

    def _run(self, command: list, *, cwd: Path | None = None, status: int = 0) -> str:
        words = [str(word) for word in command]
        print("$", " ".join(word if len(word) < 60 else f"{word[:20]!r}..." for word in words[:9]))
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            words, cwd=cwd or self._folder, env=environment, capture_output=True, text=True
        )
        if done.returncode != status:
            print(done.stdout[-3000:], done.stderr[-3000:], file=sys.stderr)
            sys.exit(f"FAILED with status {done.returncode}: {' '.join(words[1:5])}")
        return done.stdout + done.stderr


def use(trial: Trial) -> None:
    """Run the commands of a user."""
    sizes = trial.prepare()
    for command in ("ask", "evaluate", "train", "demo", "finetune", "ship"):
        trial.module(f"ltu_jax.{command}", "--help")
    stage3 = "--config=configs/stage3.py"
    trial.module("ltu_jax.plan", stage3, "--gpu", "h200", "--gpus", "8")
    missing = trial.module("ltu_jax.train", f"{stage3}:mini", status=2)
    assert "error: " in missing and "Traceback" not in missing, missing
    trial.module("ltu_jax.convert", "info", "weights/ltu-as")
    trial.module(
        *("data_pipelines.write_records", "--json", "mine.jsonl"),
        *("--audio-root", "clips", "--out", "my_records"),
    )
    trial.module(
        *("ltu_jax.train", f"{stage3}:mini", "--config.init_from=weights/ltu-as"),
        *("--config.run_dir=runs/mine", "--config.data.records=my_records"),
        *("--config.data.features=on_the_fly", "--config.steps=2", "--config.data.lengths=(216,)"),
        *("--config.optimizer.warmup_steps=1", "--config.log.validate_batches=0"),
        *("--config.log.samples=0", "--config.log.peak_flops=1e12"),
        *("--config.weights.llama=weights/llama", "--config.weights.whisper=weights/whisper"),
        *sizes,
    )
    said = ("--spoken-text", "nobody speaks", "--max-new-tokens", "4")
    trial.module(*("ltu_jax.ask", "--checkpoint", "runs/mine", "clips/door.wav", "What?", *said))
    where = trial.code(API)
    assert str(trial.python.parent.parent) in where, f"not the installed package: {where}"
    trial.module(
        *("ltu_jax.evaluate", "--checkpoint", "runs/mine", "--jsonl", "questions.jsonl"),
        *("--modes", "joint", "--decodings", "greedy", "--out", "runs/eval"),
    )
    for target, out in (("ltu-as", "mine.safetensors"), ("hf", "exported")):
        trial.module("ltu_jax.convert", "--to", target, "--checkpoint", "runs/mine", "--out", out)


def main() -> None:
    """Run the trial."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment")
    parser.add_argument("--work", type=Path, help="folder of the environment, kept for another try")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ltu_jax-wheel-") as scratch:
        folder = (given.work or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        trial = Trial(folder)
        trial.install(given.python)
        trial.place = Path(tempfile.mkdtemp(dir=scratch)) / "place"
        use(trial)
    print("the wheel works")


if __name__ == "__main__":
    main()
