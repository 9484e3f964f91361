"""The training ablations: the curriculum of the poster on some of the datasets only.

Known (poster, ablation 1): one model was trained on audio data only, one on speech data only, and
which datasets of Open-ASQA are audio (845k clips, 5.68M pairs), speech (151k clips, 2.73M pairs)
and joint (AudioSet with speech, and FMA). Inferred, as nothing is published about it:
- "only" leaves out the joint datasets, FMA with them. The scores agree: without FMA both models are
  weak at genres (29.8 and 23.5 on GTZAN, 50.3 with all data).
- All else is as in the full training: three stages, epochs, rates, batch. A prompt has Whisper's
  transcript of its clip wherever the records have one, also in audio datasets.
- The TLTR starts from the same AudioSet-trained weights in all trainings; tagging, which stands in
  for them, is therefore not ablated. `--config.weights.tltr=RUN_OR_WEIGHTS` takes one that exists,
  such as that of the full training, and leaves tagging out.
"""

from ml_collections import ConfigDict

from configs import common, curriculum, slice_presets
from ltu_jax.core.errors import UserError

STAGES = ("stage1", "stage2", "stage3")

# What may follow the colon: a preset, a stage, or both -> (stage or "", preset).
CHOICES = {
    "-".join(filter(None, (stage, preset))): (stage, preset)
    for stage in ("", *STAGES)
    for preset in slice_presets.CHOICES
}


def get(choice: str, *, name: str, datasets: tuple[str, ...]) -> ConfigDict:
    """Config of an ablation: the curriculum, or one stage of it.

    Args:
        choice: a key of `CHOICES`.
        name: of the ablation; its run folders have it behind those of the full training.
        datasets: `data.datasets` of the three stages.

    Raises:
        UserError: an unknown choice; the message has the known ones.
    """
    if choice not in CHOICES:
        known = ", ".join(map(repr, (*slice_presets.CHOICES, *STAGES)))
        raise UserError(
            f"unknown choice {choice!r} of {name}; known: {known}, or a stage and one of the "
            "others, as stage3-mini"
        )
    stage, preset = CHOICES[choice]
    config = curriculum.get_config(preset)
    recipe, _ = slice_presets.split(preset)
    config.run_dir = f"{common.runs(recipe)}-{name}"
    for part in STAGES:
        config[part].data.datasets = datasets
    # A stage by itself no longer follows keys that it shares with the others.
    return ConfigDict(config[stage].to_dict()) if stage else config
