"""A small folder of a build: made-up clips of some sources, with what later steps would find."""

from pathlib import Path

from data_pipelines.open_asqa import build_folder, registry
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.source_clip import SoundEvent, SourceClip
from ltu_jax.core.files import write_json
from ltu_jax.core.jsonl import write_jsonl

_SOUNDS = ("Dog", "Siren", "Rain", "Bell", "Engine")
_SPEECH = ("iemocap", "libritts", "voxceleb2", "mosei")
# Source -> what its clips have, by their number.
_FACTS = {
    "as_strong": lambda n: {
        "labels": (_SOUNDS[n % 5], "Speech"),
        "events": (
            SoundEvent(start=0.0, end=1.0 + n % 7, label="Speech"),
            SoundEvent(start=0.5 + n % 3, end=9.0, label=_SOUNDS[n % 5]),
        ),
        "captions": (f"A {_SOUNDS[n % 5].lower()} is heard while somebody speaks.",),
    },
    "audioset": lambda n: {"labels": (_SOUNDS[n % 5], _SOUNDS[(n + 1) % 5])},
    "vggsound": lambda n: {"labels": (_SOUNDS[n % 5],)},
    "fsd50k": lambda n: {"labels": (_SOUNDS[n % 5],)},
    "audiocaps": lambda n: {"captions": (f"Number {n}: a {_SOUNDS[n % 5].lower()} is heard.",)},
    "freesound": lambda n: {"captions": (f"The {_SOUNDS[n % 5].lower()} number {n}.",)},
    "clotho": lambda n: {"captions": (f"A {_SOUNDS[n % 5].lower()}.", f"Somebody does {n}.")},
    "soundbible": lambda n: {"captions": (f"A {_SOUNDS[n % 5].lower()} in room {n}.",)},
    "iemocap": lambda n: {"gold_text": f"Take {n}.", "gender": "male", "emotion": "angry"},
    "libritts": lambda n: {"gold_text": f"It was chapter {n}.", "gender": "female"},
    "voxceleb2": lambda n: {"gender": "female", "age": 20 + n % 60},
    "mosei": lambda n: {"emotion": "happy", "score": 2, "negative": False},
    "joint_audioset": lambda n: {"labels": ("Singing", "Rain") if n % 2 else ("Dog", "Rain")},
    "fma": lambda n: {"genres": ("Folk", "Pop"), "title": f"Song, {n}"},
    "real": lambda n: {"labels": (_SOUNDS[n % 5],)},
    "real_speech": lambda n: {"gold_text": f"This is line {n}.", "gender": "male"},
    "real_windows": lambda n: {
        "labels": (_SOUNDS[n % 5], "Speech"), "gold_text": f"I have {n} of them.",
        "gender": "female", "window_kind": "sounds", "absent": (_SOUNDS[(n + 1) % 5],),
    },
}  # fmt: skip
SOURCES = tuple(name for name in _FACTS if name in registry.SOURCES)


def make_build(folder: Path, *, sources: tuple[str, ...] = SOURCES, clips: int = 4) -> BuildFolder:
    """Write a build of these sources."""
    build = BuildFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / build_folder.BUILD, {"seed": 0, "sources": list(sources)})
    for source in sources:
        made = [make_clip(source, number) for number in range(clips)]
        write_jsonl(build.file(source, build_folder.CLIPS), [clip.to_json() for clip in made])
        if source in (*_SPEECH, "joint_audioset", "fma"):
            write_jsonl(
                build.file(source, build_folder.SPOKEN_TEXT),
                [
                    {
                        "clip_id": clip.clip_id,
                        "text": f'we are at {n} "now"',
                        "raw": "",
                        "reason": "",
                    }
                    for n, clip in enumerate(made)
                ],
            )
        if source in _SPEECH:
            write_jsonl(
                build.file(source, build_folder.STYLE),
                [
                    {
                        "clip_id": clip.clip_id, "pitch": "relatively high", "pitch_hz": [200, 220],
                        "pitch_among_all": "high", "f0_hz": 210.4, "speed": "slow",
                    }
                    for clip in made
                ],
            )  # fmt: skip
    return build


def make_clip(source: str, number: int) -> SourceClip:
    """Return one made-up clip."""
    dataset = {"audioset": "as_20k", "as_strong": "as_strong_train"}.get(source, source)
    return SourceClip(
        source=source,
        clip_id=f"c{number:05d}",
        dataset=dataset,
        files=(f"c{number:05d}",),
        where=f"table.csv:{number + 2}",
        licence="CC0",
        **_FACTS[source](number),
    )
