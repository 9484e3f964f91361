"""Ablation: the whole curriculum, or a stage of it, on the speech datasets of Open-ASQA only.

    python -m ltu_jax.train --config=configs/ablations/speech_only.py[:mini|:real|:released|:v5e-16]
    python -m ltu_jax.train --config=configs/ablations/speech_only.py:stage3[-PRESET]

IEMOCAP, LibriTTS, VoxCeleb2, MOSEI. The poster's row
"trained on speech only"; configs/ablations/only.py says what is known of it and what is inferred.
"""

from ml_collections import ConfigDict

from configs.ablations import only


def get_config(choice: str = "") -> ConfigDict:
    """Config of the curriculum on speech data, or of the stage that `choice` names."""
    return only.get(choice, name="speech_only", datasets=("speech",))
