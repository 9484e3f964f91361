"""Ablation: the whole curriculum, or a stage of it, on the audio datasets of Open-ASQA only.

    python -m ltu_jax.train --config=configs/ablations/audio_only.py[:mini|:real|:released|:v5e-16]
    python -m ltu_jax.train --config=configs/ablations/audio_only.py:stage3[-PRESET]

AS-Strong, AudioSet, VGGSound, FSD50K, AudioCaps, FreeSound, Clotho, Sound Bible. The poster's row
"trained on audio only"; configs/ablations/only.py says what is known of it and what is inferred.
"""

from ml_collections import ConfigDict

from configs.ablations import only


def get_config(choice: str = "") -> ConfigDict:
    """Config of the curriculum on audio data, or of the stage that `choice` names."""
    return only.get(choice, name="audio_only", datasets=("audio",))
