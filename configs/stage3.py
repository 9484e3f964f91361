"""Stage 3: projection, TLTR and LoRA on all pairs, closed-ended and open-ended.

python -m ltu_jax.train --config=configs/stage3.py[:mini|:released] [--config.init_from=RUN]
"""

from ml_collections import ConfigDict

from configs import common
from configs.stage2 import MINI_RATES


def get_config(preset: str = "") -> ConfigDict:
    """Config of stage 3: poster, or the second released checkpoint (docs/facts.md, "Recipes")."""
    common.check_preset(preset)
    config = common.base("stage3", preset=preset)
    config.init_from = f"{common.runs(preset)}/stage2"
    if preset == "released":
        config.data.cutoff = 160
        config.data.epochs = 2.0
        config.data.rows_per_batch = 256
        config.data.micro_rows = 4
    if preset == "mini":
        common.mini_language(config)
        config.model.lora.dropout = 0.0
        config.optimizer.group_multipliers = MINI_RATES
        config.steps = 330
        config.optimizer.warmup_steps = 10
    return config
