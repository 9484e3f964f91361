"""Stage 3: projection, TLTR and LoRA on all pairs, closed-ended and open-ended.

python -m ltu_jax.train --config=configs/stage3.py[:mini|:real|:released|:v5e-16]
"""

from ml_collections import ConfigDict

from configs import common, slice_presets
from configs.stage2 import SMALL_RATES


def get_config(preset: str = "") -> ConfigDict:
    """Config of stage 3: poster, or the second released checkpoint (docs/facts.md, "Recipes")."""
    recipe, machine = slice_presets.split(preset)
    config = common.base("stage3", recipe=recipe)
    config.init_from = f"{common.runs(recipe)}/stage2"
    if recipe == "released":
        config.data.cutoff = 160
        config.data.epochs = 2.0
        config.data.rows_per_batch = 256
        config.data.micro_rows = 4
    if recipe in common.LAPTOP:
        common.laptop_language(config, recipe=recipe)
        config.optimizer.group_multipliers = SMALL_RATES[recipe]
        config.steps, config.optimizer.warmup_steps = STEPS[recipe]
    return slice_presets.fit(config, machine=machine)


STEPS = {"mini": (330, 10), "real": (2400, 20)}  # of recipe: all, and those of warm-up
