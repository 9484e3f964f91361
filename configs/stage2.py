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
    if recipe == "mini":
        common.mini_language(config)
        config.model.lora.dropout = 0.0  # too few steps to overfit
        config.optimizer.group_multipliers = MINI_RATES
        config.steps = 80
        config.optimizer.warmup_steps = 10
        # The rate does not fall here: stage 3 goes straight on with the same parameters.
        config.optimizer.schedule = "constant"
        config.log.samples = 0
    if recipe == "real":
        common.real_language(config)
        config.model.lora.dropout = 0.0
        config.optimizer.group_multipliers = MINI_RATES
        config.steps = 160
        config.optimizer.warmup_steps = 20
        config.optimizer.schedule = "constant"
        config.log.samples = 0
    return slice_presets.fit(config, machine=machine)


# 1e-4 for the TLTR, which tagging has trained; 1e-3 for what is new.
MINI_RATES = ((r"tltr\..+", 0.1), (r"audio_proj\..+|llama\..+\.lora_[ab]", 1.0))
