"""A language stage at toy size on disk, and processes that train it as one program."""

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from data_pipelines.records.whisper_features import FeatureExtractor
from data_pipelines.records.write import write_records
from ltu_jax.models.llama import Llama, LlamaConfig
from ltu_jax.models.whisper import Whisper, WhisperConfig
from ltu_jax.weights.store import save_weights
from tests.support import compilation, records_corpus, shared
from tests.support.zygote import Zygote

ROOT = Path(__file__).resolve().parent.parent.parent

WHISPER = dict(
    n_mels=80, n_audio_ctx=1500, n_audio_state=16, n_audio_head=2, n_audio_layer=1, n_vocab=64,
    n_text_ctx=448, n_text_state=16, n_text_head=2, n_text_layer=1,
)  # fmt: skip
LLAMA = dict(
    vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-6,
    rope_theta=10000.0, rope_scaling=None, tie_word_embeddings=True, attention_bias=False,
)  # fmt: skip

# Dropout on, so that its draws must agree too; a large eps, because AdamW makes a full step of a
# gradient that is float32 noise.
CONFIG = f"""
from ml_collections import ConfigDict
from configs import stage3

def get_config(preset=""):
    config = stage3.get_config("mini")
    config.model.whisper = ConfigDict({WHISPER!r})
    config.model.tltr = ConfigDict(dict(d_model=16, time_heads=1, layer_heads=8))
    config.model.llama = ConfigDict({LLAMA!r})
    config.init_from = ""
    config.allow_random_tltr = True
    config.steps = 4
    config.model.lora.dropout = 0.1
    config.data.rows_per_batch = 8
    config.data.features = "stored"  # no encoder to compile
    config.data.workers = 0
    config.data.cutoff = 108
    config.data.lengths = (216,)
    config.data.validation_split = "val"
    config.optimizer.warmup_steps = 0
    config.optimizer.eps = 1e-3
    config.optimizer.accumulation = 1
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, 2, 2
    config.log.every = 1
    config.log.validate_batches = 1
    config.log.samples = 0
    config.log.peak_flops = 1e12
    config.checkpoint.every = 2
    return config
"""


def make_place(folder: Path) -> Path:
    """Write toy weights, records and the config file into `folder`."""
    return shutil.copytree(shared.built_once("place", _build), folder, dirs_exist_ok=True)


def _build(folder: Path) -> None:
    key = jax.random.key(0)
    whisper = Whisper(WhisperConfig(**WHISPER)).init(key)
    llama = Llama.functional(LlamaConfig(**LLAMA)).init(key)
    for kind, config, params, files in (
        ("whisper", WHISPER, whisper, {}),
        ("llama", LLAMA, llama, {"tokenizer.model": records_corpus.TOKENIZER}),
    ):
        arrays = {path: np.asarray(leaf) for path, leaf in params.items()}
        save_weights(folder / kind, kind=kind, config=config, params=arrays, source={}, files=files)
    clips = records_corpus.make_clips(folder / "audio")
    write_records(
        clips,
        folder / "records",
        tag_labels=records_corpus.LABELS,
        extractor=FeatureExtractor(folder / "whisper"),
        shards=1,
    )
    (folder / "tiny.py").write_text(CONFIG)


def arguments(place: Path, run_dir: Path, *more: str) -> list[str]:
    """The command line of a run in `run_dir`."""
    return [
        f"--config={place / 'tiny.py'}",
        f"--config.run_dir={run_dir}",
        f"--config.data.records={place / 'records'}",
        f"--config.weights.llama={place / 'llama'}",
        f"--config.weights.whisper={place / 'whisper'}",
        *more,
    ]


def free_port() -> int:
    """A port of localhost that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def environment(*, devices: int) -> dict[str, str]:
    """Return the variables of a process that trains on so many fake devices, quickly compiled."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{compilation.XLA_FLAGS} --xla_force_host_platform_device_count={devices}",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT),
    }


@functools.cache
def zygote() -> Zygote:
    """Return the zygote of this test process; it ends with it."""
    return Zygote(environment(devices=1))


def processes(
    *commands: list[str], devices: int, seconds: float = 300.0
) -> list[subprocess.CompletedProcess]:
    """Run `python COMMAND` for each; several are the processes of one `jax.distributed` program."""
    port, started = free_port(), []
    with contextlib.ExitStack() as files:
        for index, command in enumerate(commands):
            env = environment(devices=devices)
            if len(commands) > 1:
                env |= {
                    "LTU_JAX_COORDINATOR": f"localhost:{port}",
                    "LTU_JAX_NUM_PROCESSES": str(len(commands)),
                    "LTU_JAX_PROCESS_ID": str(index),
                    "LTU_JAX_START_SECONDS": "60",
                }
            outputs = [files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(2)]
            process = zygote().start(command, env=env, stdout=outputs[0], stderr=outputs[1])
            files.callback(process.kill)
            started.append((process, outputs))
        ended, until = [], time.monotonic() + seconds
        for command, (process, outputs) in zip(commands, started, strict=True):
            status = process.wait(within=max(0.0, until - time.monotonic()))
            if status is None:
                raise subprocess.TimeoutExpired(command, seconds)
            for file in outputs:
                file.seek(0)
            ended.append(
                subprocess.CompletedProcess(command, status, *(file.read() for file in outputs))
            )
        return ended
