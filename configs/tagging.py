"""Tagging: TLTR and a label head on the frozen Whisper encoder, as Whisper-AT was trained.

    python -m ltu_jax.train --config=configs/tagging.py[:mini|:real|:released|:v5e-16]

Its TLTR is what stage 1 starts from. Whisper-AT used Adam at 5e-5 on AudioSet.
"""

from ml_collections import ConfigDict

from configs import common, slice_presets


def get_config(preset: str = "") -> ConfigDict:
    """Config of the tagging stage; "released" is the same as the default here."""
    recipe, machine = slice_presets.split(preset)
    config = common.base("tagging", recipe=recipe)
    config.model.llama = None  # no language model takes part
    config.model.lora = None
    config.weights.llama = ""
    config.weights.sources.llama = ""
    config.trainable = ((r"tltr\..+", True), (r"label_head\..+", True))
    config.data.layout = "tags"  # one clip a row, no text
    config.data.epochs = 30.0
    config.data.rows_per_batch = 48
    if recipe not in common.LAPTOP:  # what it gives on real recordings: docs/real_sounds.md
        config.augmentation.mixup = 0.5
        config.augmentation.time_mask = 10
        config.augmentation.label_smoothing = 0.1
    config.optimizer.learning_rate = 5e-5
    config.log.samples = 0  # nothing to ask yet
    if recipe == "mini":
        common.mini_sizes(config)
        config.model.llama = None
        config.weights.llama = ""
        config.weights.sources.llama = ""
        # A thousand clips instead of two million: a larger rate, and no more than 8 passes.
        config.optimizer.learning_rate = 5e-4
        config.optimizer.warmup_steps = 20
        config.optimizer.schedule = "cosine"
        config.data.epochs = 8.0
        config.data.rows_per_batch = 16
        config.log.validate_batches = 1000  # mean average precision over the whole split
    if recipe == "real":
        real_recipe(config)
    return slice_presets.fit(config, machine=machine)


def real_recipe(config: ConfigDict) -> None:
    """Real recordings (docs/real_sounds.md): Whisper base, and YAMNet as the teacher."""
    common.real_sizes(config)
    config.model.llama = None
    config.weights.llama = ""
    config.weights.sources.llama = ""
    config.head_clips = 1000
    config.data.teacher = "data/real/teacher_scores.jsonl"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 20
    config.optimizer.schedule = "cosine"
    config.data.epochs = 8.0
    config.data.rows_per_batch = 16
    config.log.validate_batches = 1000  # mean average precision over the whole split
