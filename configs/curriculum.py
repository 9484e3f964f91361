"""All stages in one process, in order, going on where it stopped.

    python -m ltu_jax.train --config=configs/curriculum.py[:mini|:real|:released|:v5e-16]

Tagging runs first when no TLTR weights are given. `--config.stage3.steps=100` changes one stage;
run_dir, seed, records, weights and mesh below are shared by all.
"""

from ml_collections import ConfigDict

from configs import common, slice_presets, stage1, stage2, stage3, tagging

STAGES = {"tagging": tagging, "stage1": stage1, "stage2": stage2, "stage3": stage3}  # in order


def get_config(preset: str = "") -> ConfigDict:
    """Config of the whole curriculum: one ConfigDict per stage and what they share."""
    recipe, _ = slice_presets.split(preset)
    stages = {name: file.get_config(preset) for name, file in STAGES.items()}
    config = ConfigDict()
    config.stage = "curriculum"
    config.run_dir = common.runs(recipe)  # each stage has a folder of its own below it
    config.seed = 0
    config.records = stages["stage3"].data.records
    config.weights = ConfigDict()
    for name in ("llama", "whisper", "tltr"):
        config.weights[name] = stages["stage3"].weights[name]
    config.mesh = ConfigDict(stages["stage3"].mesh.to_dict())
    config.compilation_cache = ""
    config.checkpoint = ConfigDict()
    config.checkpoint.must_exist = False  # of the first stage that runs; see there
    before = ""
    for name in STAGES:
        stage = common.link(stages[name], parent=config)
        stage.run_dir = config.get_oneway_ref("run_dir") + f"/{name}"
        if before:
            stage.init_from = config.get_oneway_ref("run_dir") + f"/{before}"
        config[name], before = stage, name
    return config
