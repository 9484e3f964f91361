"""Stage 1: the projection alone learns to speak to the language model; there is no LoRA yet.

python -m ltu_jax.train --config=configs/stage1.py[:mini|:real|:released|:v5e-16]
"""

from ml_collections import ConfigDict

from configs import common, slice_presets


def get_config(preset: str = "") -> ConfigDict:
    """Config of stage 1; poster and released recipe agree (batch 256, 1e-3, 2 epochs)."""
    recipe, machine = slice_presets.split(preset)
    config = common.base("stage1", recipe=recipe)
    config.init_from = f"{common.runs(recipe)}/tagging"
    config.model.lora = None
    config.trainable = common.PROJECTION_ONLY
    common.classification(config)
    config.data.epochs = 2.0
    config.optimizer.learning_rate = 1e-3
    if recipe in common.LAPTOP:
        common.laptop_language(config, recipe=recipe)
        # The projection alone learns little after the first steps at this size (3.48 -> 3.11 in
        # 50): enough to place the audio tokens among the embeddings.
        config.steps, config.optimizer.warmup_steps = STEPS[recipe]
        config.log.samples = 0
    if recipe == "real":
        config.head_clips = 4000
        # The answers that name what is heard, and no denials of what is not.
        config.data.tasks = ("cla_heard", "cla_label", "gender_cla", "instrument_cla")
        config.optimizer.learning_rate = 1e-4  # the fitted projection is only adjusted
    return slice_presets.fit(config, machine=machine)


STEPS = {"mini": (20, 5), "real": (20, 5)}  # of recipe: all, and those of warm-up
