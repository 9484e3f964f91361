"""Stage 3 on a person's own clips, from a model that is there: what `ltu_jax.finetune` trains.

python -m ltu_jax.train --config=configs/own_sounds.py:RUN/start.json [--config.steps=80]

`finetune` writes start.json: the model, its bases, its precisions, the records and the run folder.
"""

from ml_collections import ConfigDict

from configs import stage3
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json

KEYS = ("run_dir", "init_from", "steps", "records", "llama", "whisper", "transcriber",
        "transcription", "model", "whisper_config", "compute")  # fmt: skip


def get_config(preset: str = "") -> ConfigDict:
    """Config of a fine-tuning; `preset` is the file that `finetune` wrote."""
    start = read_json(preset) if preset else None
    if not isinstance(start, dict) or not set(KEYS) <= set(start):
        raise UserError(
            f"--config=configs/own_sounds.py:{preset} needs the start.json of a run that "
            "`python -m ltu_jax.finetune` has begun"
        )
    config = stage3.get_config("mini")
    for key in ("run_dir", "init_from", "steps"):
        config[key] = start[key]
    model = start["model"]
    config.model.whisper = ConfigDict(start["whisper_config"])
    config.model.tltr = ConfigDict(model["tltr"])
    config.model.llama = ConfigDict(model["llama"])
    if model["lora"] is not None:
        targets = tuple(model["lora"]["targets"])
        config.model.lora = ConfigDict({**model["lora"], "targets": targets})
    config.model.audio_tokens = model["audio_tokens"]
    for key in ("llama", "whisper", "transcriber", "transcription"):
        config.weights[key] = start[key]
    config.data.records = start["records"]
    config.data.lengths = (32, 64, 112, 216)  # a length is compiled when a batch has it: one or two
    config.compute.remat = "lora"  # where the model names none, it may be a large one
    for key, value in start["compute"].items():
        config.compute[key] = value
    config.optimizer.warmup_steps = max(1, start["steps"] // 10)
    config.log.validate_batches = 0  # `finetune` asks the held-out clips itself, before and after
    config.log.samples = 0
    config.log.tensorboard = False
    config.checkpoint.every = 50
    return config
