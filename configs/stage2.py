"""Stage 2: projection, TLTR and LoRA on the classification pairs.

python -m ltu_jax.train --config=configs/stage2.py[:mini|:real|:released|:v5e-16]
"""

from ml_collections import ConfigDict

from configs import common, slice_presets


def get_config(preset: str = "") -> ConfigDict:
    """Config of stage 2: poster, or the released checkpoint's (docs/facts.md, "Recipes")."""
    recipe, machine = slice_presets.split(preset)
    config = common.base("stage2", recipe=recipe)
    config.init_from = f"{common.runs(recipe)}/stage1"
    common.classification(config)
    config.data.epochs = 2.0
    if recipe == "released":
        config.optimizer.learning_rate = 1e-4
        config.data.cutoff = 128
        config.data.rows_per_batch = 240  # 256 asked for, in micro-batches of 6 on 4 GPUs
        config.data.micro_rows = 6
    if recipe in common.LAPTOP:
        common.laptop_language(config, recipe=recipe)
        config.optimizer.group_multipliers = SMALL_RATES[recipe]
        config.steps, config.optimizer.warmup_steps = STEPS[recipe]
        # The rate does not fall here: stage 3 goes straight on with the same parameters.
        config.optimizer.schedule = "constant"
        config.log.samples = 0
    return slice_presets.fit(config, machine=machine)


# Of 1e-3, which is for what is new: a tenth for the TLTR, which tagging has trained; a third for a
# projection that was fitted.
SMALL_RATES = {
    "mini": ((r"tltr\..+", 0.1), (r"audio_proj\..+|llama\..+\.lora_[ab]", 1.0)),
    "real": ((r"audio_proj\..+", 0.3), (r"llama\..+\.lora_[ab]", 1.0)),
}
STEPS = {"mini": (80, 10), "real": (300, 20)}  # of recipe: all, and those of warm-up
