"""Made-up metadata in the published forms and at the published sizes of Open-ASQA's sources.

Names and texts are made up; how many rows a table has, how they are spread, and which recordings
several tables share is as published, or as close as is known. `write` makes all of it below a
folder, once; its result is the same on every machine.
"""

import base64
import csv
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from data_pipelines.open_asqa.class_descriptions import class_descriptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many rows the tables have; `of` gives a share of all, for trials."""

    strong: int = 103_463
    strong_captions: int = 108_317
    balanced: int = 22_160
    unbalanced: int = 2_041_789
    vgg_train: int = 183_727
    vgg_test: int = 15_446
    fsd_train: int = 36_796
    fsd_val: int = 4_170
    fsd_eval: int = 10_231
    audiocaps_train: int = 49_838
    audiocaps_val: int = 495
    audiocaps_test: int = 975
    freesound: int = 262_300
    soundbible: int = 1_232
    clotho_development: int = 3_839
    clotho_validation: int = 1_045
    clotho_evaluation: int = 1_045
    iemocap_trained: int = 4_290  # turns of four emotions in sessions 1 to 4
    iemocap_tested: int = 1_241
    libritts: int = 375_086
    voxceleb_speakers: int = 5_994
    voxceleb_videos: int = 145_569
    aged_videos: int = 14_247
    aged_speakers: int = 4_500
    age_tested: int = 1_127
    mosei_train: int = 16_327
    mosei_valid: int = 1_871
    mosei_test: int = 4_662
    fma_training: int = 84_353
    fma_validation: int = 10_958
    fma_test: int = 11_263
    fma_without_genre: int = 2_231

    def of(self, share: float) -> "Sizes":
        """Return sizes that are this share of these."""
        return Sizes(
            **{name: max(8, round(size * share)) for name, size in dataclasses.asdict(self).items()}
        )


_FIRST = ("Speech", "Music", "Singing", "Male speech, man speaking")
_READ = {  # parts of LibriTTS: share of its utterances, readers
    "train-clean-100": (0.0886, 247), "train-clean-360": (0.3106, 904),
    "train-other-500": (0.5467, 1160), "dev-clean": (0.0153, 40), "dev-other": (0.0123, 33),
    "test-clean": (0.0129, 39), "test-other": (0.0136, 33),
}  # fmt: skip
_AUDIOSET_CLASSES, _STRONG_CLASSES, _VGG_CLASSES, _FSD_CLASSES = 527, 456, 309, 200
_ELSEWHERE = 3_000_000  # videos from this number on are not AudioSet's
_FREESOUND = 640_000  # sounds that there are
_WORDS = (
    "a", "the", "dog", "car", "rain", "bird", "voice", "wind", "man", "woman", "door", "water",
    "music", "engine", "crowd", "bell", "street", "night", "slowly", "loudly", "far", "near",
    "metal", "wood", "hits", "runs", "barks", "sings", "falls", "opens", "passes", "hums",
)  # fmt: skip


def write(folder: Path, sizes: Sizes) -> Path:
    """Write all tables and sources.toml, unless they are there; return the latter."""
    done = folder / "sources.toml"
    if done.is_file():
        return done
    makers = (
        _as_strong, _audioset, _vggsound, _fsd50k, _audiocaps, _freesound, _soundbible, _clotho,
        _iemocap, _libritts, voxceleb2, _mosei, _fma,
    )  # fmt: skip
    text = ""
    for number, make in enumerate(makers):
        name = make.__name__.removeprefix("_")
        (folder / name).mkdir(parents=True, exist_ok=True)
        make(folder / name, sizes, np.random.default_rng(number))
        text += f'[{name}]\nmetadata = "{name}"\n\n'
    text += '[joint_audioset]\nmetadata = "audioset"\n'
    done.write_text(text)
    return done


def video(number: int) -> str:
    """Return a YouTube id."""
    mixed = (number * 0x9E3779B97F4A7C15 + 7) % (1 << 64)
    return base64.urlsafe_b64encode(mixed.to_bytes(8)).decode()[:11]


def classes(count: int) -> list[str]:
    """Return names of classes, those with acoustic descriptions first."""
    known = {name.lower() for name in _FIRST}
    names = [*_FIRST, *(name for name in class_descriptions() if name.lower() not in known)][:count]
    return names + [f"Sound {number}" for number in range(len(names), count)]


def _mid(number: int) -> str:
    return f"/{'g' if number % 9 == 8 else 'm'}/{number:05x}"


def _sentence(rng: np.random.Generator, words: int) -> str:
    return " ".join(_WORDS[n] for n in rng.integers(0, len(_WORDS), words))


def _lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _table(path: Path, rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


# --- videos ---------------------------------------------------------------------------------------
# AudioSet's training segments are the videos from 0 on; AudioSet-Strong, AudioCaps and a tenth of
# VGGSound are among them.


def _strong_first(sizes: Sizes) -> int:
    return sizes.unbalanced // 4


def _audiocaps_first(sizes: Sizes) -> int:
    return _strong_first(sizes) + sizes.strong // 2


def _as_strong(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    names, first = classes(_STRONG_CLASSES), _strong_first(sizes)
    _lines(folder / "mid_to_display_name.tsv", (f"{_mid(n)}\t{x}" for n, x in enumerate(names)))
    tree = [{"id": "/m/top", "child_ids": [_mid(n) for n in range(0, len(names), 8)]}]
    tree += [
        {"id": _mid(n), "child_ids": [_mid(n + k) for k in range(1, 8)] if n % 8 == 0 else []}
        for n in range(len(names))
    ]
    (folder / "ontology.json").write_text(json.dumps(tree))

    def events() -> Iterator[str]:
        yield "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
        for number in range(first, first + sizes.strong):
            own = rng.integers(0, len(names), 1 + rng.poisson(2.9))
            starts = rng.uniform(0, 9.5, 1 + rng.poisson(8))
            for start in starts:
                end = min(10.0, start + rng.exponential(1.5))
                label = _mid(own[rng.integers(len(own))])
                yield f"{video(number)}_{number % 500 * 1000}\t{start:.3f}\t{end:.3f}\t{label}"

    _lines(folder / "audioset_train_strong.tsv", events())
    entries = [
        {"id": f"Y{video(n)}.wav", "caption": f"{_sentence(rng, 9)}.", "duration": 10.0}
        for n in range(first, first + sizes.strong_captions)
    ]
    (folder / "as_final.json").write_text(json.dumps({"data": entries}))


def _audioset(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    names = classes(_AUDIOSET_CLASSES)
    rows = ((n, _mid(n), name) for n, name in enumerate(names))
    _table(folder / "class_labels_indices.csv", [("index", "mid", "display_name"), *rows])
    for name, first, count in (
        ("unbalanced", 0, sizes.unbalanced),
        ("balanced", sizes.unbalanced, sizes.balanced),
    ):
        heads = ["# Segments csv", f"# num_ytids={count}", "# YTID, start, end, labels"]
        labels = (rng.geometric(0.02, (count, 4)) - 1) % len(names)
        labels[rng.random(count) < 0.45, 0] = 0  # speech
        held, shorter = 1 + rng.poisson(1.0, count), rng.random(count) < 0.02

        def rows(first=first, count=count, labels=labels, held=held, shorter=shorter):
            for n in range(count):
                own = ",".join(_mid(label) for label in dict.fromkeys(labels[n, : held[n]]))
                start = (first + n) % 500
                end = start + (7 if shorter[n] else 10)
                yield f'{video(first + n)}, {start:.3f}, {end:.3f}, "{own}"'

        _lines(folder / f"{name}_train_segments.csv", [*heads, *rows()])


def _vggsound(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    names = [name.lower() for name in classes(_VGG_CLASSES)]
    shared = sizes.unbalanced // 2  # behind the videos of AudioCaps

    def rows() -> Iterator[tuple[object, ...]]:
        for n in range(sizes.vgg_train + sizes.vgg_test):
            number = shared + n if n % 10 == 0 else _ELSEWHERE + n
            label = names[int(rng.integers(len(names)))]
            part = "train" if n < sizes.vgg_train else "test"
            yield video(number), int(rng.integers(0, 500)), label, part

    _table(folder / "vggsound.csv", rows())


def _audiocaps(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    head, number, caption = ("audiocap_id", "youtube_id", "start_time", "caption"), 0, 0
    parts = (("test", sizes.audiocaps_test, 5), ("val", sizes.audiocaps_val, 5),
             ("train", sizes.audiocaps_train, 1))  # fmt: skip
    for name, count, captions in parts:
        rows = [head]
        for n in range(number, number + count):
            for _ in range(captions):
                caption += 1
                text = f"{_sentence(rng, 5)}, then {_sentence(rng, 4)}"
                rows.append((caption, video(_audiocaps_first(sizes) + n), n % 500, text))
        number += count
        _table(folder / f"{name}.csv", rows)


# --- sounds of Freesound --------------------------------------------------------------------------


def _sounds(first: int, count: int) -> np.ndarray:
    """Return Freesound numbers, drawn from all; the same draw for every data set."""
    return np.random.default_rng(99).permutation(_FREESOUND)[first : first + count] + 1


def _fsd50k(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    names = [name.replace(", ", "_and_").replace(" ", "_") for name in classes(_FSD_CLASSES)]
    truth = folder / "FSD50K.ground_truth"
    truth.mkdir(exist_ok=True)
    _table(truth / "vocabulary.csv", ((n, name, _mid(n)) for n, name in enumerate(names)))
    dev = sizes.fsd_train + sizes.fsd_val
    for name, first, count in (("dev", 0, dev), ("eval", dev, sizes.fsd_eval)):
        rows = []
        for n, sound in enumerate(_sounds(first, count)):
            own = dict.fromkeys(rng.integers(0, len(names), 1 + rng.poisson(1.5)))
            row = (sound, ",".join(names[k] for k in own), ",".join(_mid(k) for k in own))
            split = ("train" if n < sizes.fsd_train else "val",) if name == "dev" else ()
            rows.append(row + split)
        split = ("split",) if name == "dev" else ()
        _table(truth / f"{name}.csv", [("fname", "labels", "mids", *split), *rows])


def _wavcaps(path: Path, names: Iterable[object], durations: np.ndarray,
             rng: np.random.Generator) -> None:  # fmt: skip
    entries = [
        {
            "title": f"{_sentence(rng, 3)}.wav", "description": _sentence(rng, 40),
            "author": "nobody", "href": f"/people/nobody/sounds/{name}/",
            "caption": f"{_sentence(rng, 10)}.", "id": str(name), "duration": round(float(s), 3),
            "audio": "wav_path", "download_link": f"https://freesound.org/sounds/{name}.wav",
            "file_name": f"{name}.wav", "tags": _sentence(rng, 5).split(),
        }
        for name, s in zip(names, durations, strict=True)
    ]  # fmt: skip
    path.write_text(json.dumps({"num_captions_per_audio": 1, "audio": "x", "data": entries}))


def _freesound(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """The middle duration is such that 34.7 % last up to ten seconds: 91,000 of 262,300."""
    seconds = np.minimum(np.exp(rng.normal(2.82, 1.31, sizes.freesound)), 2_439)
    dev = sizes.fsd_train + sizes.fsd_val
    names = _sounds(dev // 2, sizes.freesound)  # with half of FSD50K's dev sounds and all of eval
    _wavcaps(folder / "fsd_final.json", names, seconds, rng)
    share = sizes.freesound / Sizes.freesound
    clotho = _sounds(_FREESOUND // 2 + sizes.clotho_development, sizes.clotho_validation * 2)
    strong = rng.choice(sizes.strong, round(15_510 * share), replace=False) + _strong_first(sizes)
    for file, sounds, videos in (
        ("blacklist_exclude_test_ac.json", clotho, range(round(1_451 * share))),
        ("blacklist_exclude_ub8k_esc50_vggsound.json", names[: round(2_219 * share)], strong),
    ):
        if file.startswith("blacklist_exclude_test"):
            videos = (_audiocaps_first(sizes) + n for n in videos)
        content = {"FreeSound": [str(n) for n in sounds]}
        content["AudioSet"] = [f"Y{video(int(n))}.wav" for n in videos]
        (folder / file).write_text(json.dumps(content))


def _soundbible(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    seconds = rng.uniform(0.5, 60, sizes.soundbible)
    _wavcaps(folder / "sb_final.json", range(1, sizes.soundbible + 1), seconds, rng)


def _clotho(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    first = _FREESOUND // 2
    five = [f"caption_{number}" for number in range(1, 6)]
    about = ("file_name", "keywords", "sound_id", "sound_link", "start_end_samples",
             "manufacturer", "license")  # fmt: skip
    for split in ("development", "validation", "evaluation"):
        count = getattr(sizes, f"clotho_{split}")
        sounds = _sounds(first, count)
        first += count
        files = [f"{_sentence(rng, 2)} {sound}.wav" for sound in sounds]
        rows = [(file, *(_sentence(rng, 11) for _ in five)) for file in files]
        _table(folder / f"clotho_captions_{split}.csv", [("file_name", *five), *rows])
        told = [
            (file, "rain;motor", "Not found" if n % 40 == 0 else sound, "x", "[0, 1]", "y", "CC0")
            for n, (file, sound) in enumerate(zip(files, sounds, strict=True))
        ]
        _table(folder / f"clotho_metadata_{split}.csv", [about, *told])


# --- speech ---------------------------------------------------------------------------------------


def _iemocap(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """Of 10,039 turns 5,531 have one of the four emotions; a quarter of these are "excited"."""
    for session in range(1, 6):
        asked = sizes.iemocap_tested if session == 5 else sizes.iemocap_trained // 4 + (
            session <= sizes.iemocap_trained % 4
        )  # fmt: skip
        codes = [("neu", "hap", "exc", "ang", "sad")[k] for k in rng.integers(0, 5, asked)]
        codes += [("fru", "xxx", "sur")[k] for k in rng.integers(0, 3, asked * 4 // 5)]
        codes = [codes[n] for n in rng.permutation(len(codes))]
        for dialog, turns in enumerate(np.array_split(np.arange(len(codes)), 1 + len(codes) // 67)):
            name = f"Ses0{session}{'FM'[dialog % 2]}_impro{dialog:02d}"
            root = folder / f"Session{session}"
            labels, texts = root / "dialog" / "EmoEvaluation", root / "dialog" / "transcriptions"
            for place in (labels, texts, root / "sentences" / "wav" / name):
                place.mkdir(parents=True, exist_ok=True)
            own = [(f"{name}_{'FM'[k % 2]}{k:03d}", codes[n]) for k, n in enumerate(turns)]
            _lines(labels / f"{name}.txt", (
                f"[{k}.0000 - {k}.9000]\t{turn}\t{code}\t[2.5000, 2.5000, 2.5000]"
                for k, (turn, code) in enumerate(own)
            ))  # fmt: skip
            _lines(texts / f"{name}.txt", (
                f"{turn} [{k}.0000-{k}.9000]: {_sentence(rng, 11)}."
                for k, (turn, _) in enumerate(own)
            ))  # fmt: skip


def _libritts(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """Texts are links to some hundred files, so that they need no room."""
    texts = folder / "texts"
    texts.mkdir(exist_ok=True)
    for n in range(400):
        (texts / f"{n}.txt").write_text(f"{_sentence(rng, 16).capitalize()}.\n")
    listed, reader = ["READER\tGENDER\tSUBSET NAME"], 10
    for part, (share, readers) in _READ.items():
        for count in np.bincount(rng.integers(0, readers, round(sizes.libritts * share))):
            reader += 3
            listed.append(f"{reader}\t{'MF'[reader % 2]}\t{part}\tReader {reader}")
            place = folder / part / str(reader) / "208"
            place.mkdir(parents=True, exist_ok=True)
            for n in range(count):
                name = f"{reader}_208_{n:06d}_000000.normalized.txt"
                if not (place / name).exists():
                    os.link(texts / f"{rng.integers(0, 400)}.txt", place / name)
    _lines(folder / "speakers.tsv", listed)


def voxceleb2(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """The audio files are empty: their names are the list of utterances."""
    speakers = [f"id{n:05d}" for n in range(12, 12 + sizes.voxceleb_speakers + 120)]
    tested = set(rng.choice(speakers, 120, replace=False).tolist())
    rows = [
        f"{name} \tn{n:06d} \t{'mf'[int(n % 100 >= 61)]} \t{'test' if name in tested else 'dev'} "
        for n, name in enumerate(speakers)
    ]
    head = "VoxCeleb2 ID \tVGGFace2 ID \tGender \tSet "
    _lines(folder / "vox2_meta.csv", [head, *rows])
    dev = [name for name in speakers if name not in tested]
    aged = dev[: sizes.aged_speakers]
    ages = [["VoxCeleb_ID", "video_id", "speaker_age", "speaker_age_title_only"]]
    for n in range(sizes.voxceleb_videos):
        if n < sizes.aged_videos:
            speaker, age = aged[n % len(aged)], f"{rng.integers(15, 85)}.0"
            place = folder / "dev" / "aac" / speaker / video(8_000_000 + n)
            place.mkdir(parents=True, exist_ok=True)
            for k in range(1 + rng.poisson(6.525)):
                (place / f"{k:05d}.m4a").touch()
        else:
            speaker, age = dev[n % len(dev)], ""
        ages.append([speaker, video(8_000_000 + n), age if n % 9 < 4 else "", age])
    _table(folder / "final_dataframe_extended.csv", ages)
    rows = [
        [aged[n], video(8_000_000 + n), "40.0"] for n in range(min(sizes.age_tested, len(aged)))
    ]
    _table(folder / "age-test.txt", [["VoxCeleb_ID", "video_id", "speaker_age"], *rows])


def _mosei(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    head = ["", "file", "index", "start", "end", "label2a", "label2b", "label6", "label7", "split"]
    rows, clip, place = [head], 9_000_000, 0
    parts = (sizes.mosei_train, sizes.mosei_valid, sizes.mosei_test)
    for split, count in enumerate(parts):
        for n in range(count):
            clip, place = (clip + 1, 0) if n % 7 == 0 else (clip, place + 1)
            score = int(rng.integers(-3, 4))
            start = place * 7 - (0.08 if place == 0 else 0)
            signs = [int(score >= 0), (score > 0) - (score < 0), int(rng.integers(0, 6)), score]
            row = [len(rows) - 1, video(clip), place, f"{start:.3f}", f"{start + 6.5:.3f}"]
            rows.append([*row, *signs, split])
    _table(folder / "CMU_MOSEI_Labels.csv", rows)


# --- music ----------------------------------------------------------------------------------------


def _fma(folder: Path, sizes: Sizes, rng: np.random.Generator) -> None:
    """52 columns with long texts, as published: 260 MB."""
    genres = [("genre_id", "#tracks", "parent", "title", "top_level")]
    genres += [(n, 5, 0, f"Genre {n}/Loud, Slow" if n % 9 == 0 else f"Genre {n}", n)
               for n in range(1, 164)]  # fmt: skip
    _table(folder / "genres.csv", genres)
    kinds = [("album", f"a{n}") for n in range(12)] + [("artist", f"b{n}") for n in range(17)]
    kinds += [("set", "split"), ("set", "subset")] + [("track", f"c{n}") for n in range(17)]
    kinds += [("track", name) for name in ("genre_top", "genres", "genres_all", "title")]
    total = sizes.fma_training + sizes.fma_validation + sizes.fma_test
    splits = ["training"] * sizes.fma_training + ["validation"] * sizes.fma_validation
    splits += ["test"] * sizes.fma_test
    order, filler = rng.permutation(total), _sentence(rng, 380)
    without = set(rng.choice(total, sizes.fma_without_genre, replace=False).tolist())

    def rows() -> Iterator[list[object]]:
        yield ["", *(kind for kind, _ in kinds)]
        yield ["", *(name for _, name in kinds)]
        yield ["track_id", *("" for _ in kinds)]
        for n in range(total):
            own = sorted({int(k) for k in rng.integers(1, 164, 1 + rng.poisson(0.8))})
            own = [] if n in without else own
            track = [*("x" for _ in range(16)), "Genre 1" if own else "", own, own]
            texts = [*("y" for _ in range(28)), filler, splits[order[n]], "large", "z"]
            yield [n + 2, *texts, *track, f"{_sentence(rng, 3)}, live"]

    _table(folder / "tracks.csv", rows())
