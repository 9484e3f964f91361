"""Made-up metadata in the published forms of the sources: twenty rows and their traps each."""

import json
from collections.abc import Callable
from pathlib import Path

STRONG_NAMES = {"/m/09x0r": "Speech", "/m/0bt9lr": "Dog", "/g/122z_qxw": "Gurgling"}
WEAK_NAMES = {
    "/m/09x0r": "Speech", "/m/0bt9lr": "Dog", "/m/015lz1": "Singing",
    "/g/122z_qxw": "Gurgling, bubbling", "/m/04rlf": "Music",
}  # fmt: skip


def video(number: int) -> str:
    """Return a YouTube id; some begin with "-" or hold "_"."""
    return f"{'-_aB'[number % 4]}{number:010d}"


def as_strong(folder: Path) -> None:
    """Twenty segments; one event shorter than 0.1 s, one label twice, one mid of /g/."""
    lines = ["segment_id\tstart_time_seconds\tend_time_seconds\tlabel"]
    for number in range(20):
        segment = f"{video(number)}_{number * 1000 + 500}"
        lines.append(f"{segment}\t{number / 10:.3f}\t{number / 10 + 1.25:.3f}\t/m/0bt9lr")
        lines.append(f"{segment}\t0.000\t10.000\t/m/09x0r")
        if number == 3:
            lines.append(f"{segment}\t1.400\t1.421\t/g/122z_qxw")
        if number == 4:
            lines.append(f"{segment}\t5.000\t6.000\t/m/0bt9lr")
    (folder / "strong").mkdir()
    (folder / "strong" / "audioset_train_strong.tsv").write_text("\n".join(lines) + "\n")
    names = "".join(f"{mid}\t{name}\n" for mid, name in STRONG_NAMES.items())
    (folder / "mid_to_display_name.tsv").write_text(names)
    entries = [
        {"id": f"Y{video(n)}.wav", "caption": f"A dog barks {n} times.", "duration": 10.0}
        for n in range(10)
    ]
    (folder / "as_final.json").write_text(json.dumps({"data": entries}))


def _class_list(folder: Path) -> None:
    rows = [f'{n},{mid},"{name}"' for n, (mid, name) in enumerate(WEAK_NAMES.items())]
    text = "\n".join(["index,mid,display_name", *rows]) + "\n"
    (folder / "class_labels_indices.csv").write_text(text)


def _segments(numbers: range, labels: Callable[[int], str]) -> str:
    head = "# Segments csv created\n# num_ytids=20\n# YTID, start_seconds, end_seconds, labels\n"
    rows = (
        f'{video(n)}, {n * 10:.3f}, {n * 10 + (9 if n % 7 == 0 else 10):.3f}, "{labels(n)}"\n'
        for n in numbers
    )
    return head + "".join(rows)


def audioset(folder: Path) -> None:
    """Ten balanced and fifteen unbalanced segments, these as a copy that was saved again."""
    _class_list(folder)

    def labels(number: int) -> str:
        if number % 3 == 0:
            return "/m/09x0r,/m/0bt9lr"
        return "/m/015lz1,/g/122z_qxw" if number % 3 == 1 else "/m/09x0r"

    (folder / "balanced_train_segments.csv").write_text(_segments(range(10), labels))
    again = _segments(range(10, 25), labels).replace('"', '"""').replace("\n", ",,\r\n")
    (folder / "unbalanced_train_segments.csv").write_text(again, newline="")


def vggsound(folder: Path) -> None:
    """Twenty clips, a fifth of them of the test split; labels with commas."""
    rows = (
        f'{video(n)},{n},"{"bird chirping, tweeting" if n % 2 else "chicken clucking"}",'
        f"{'test' if n % 5 == 0 else 'train'}\n"
        for n in range(20)
    )
    (folder / "vggsound.csv").write_text("".join(rows))


def fsd50k(folder: Path) -> None:
    """Twenty dev clips whose parents are left out where the collection has the leaves."""
    truth = folder / "FSD50K.ground_truth"
    truth.mkdir()
    names = ("Bark", "Dog", "Animal", "Accelerating_and_revving_and_vroom")
    (truth / "vocabulary.csv").write_text(
        "".join(f"{n},{name},/m/{n}\n" for n, name in enumerate(names))
    )
    rows = "".join(
        f'{n},"Bark,Dog,Animal","/m/0,/m/1,/m/2",{"val" if n % 4 == 0 else "train"}\n'
        for n in range(100, 120)
    )
    (truth / "dev.csv").write_text("fname,labels,mids,split\n" + rows)
    collection = folder / "FSD50K.metadata" / "collection"
    collection.mkdir(parents=True)
    leaves = "".join(f'{n},"Bark","/m/0"\n' for n in range(100, 110))
    (collection / "collection_dev.csv").write_text("fname,labels,mids\n" + leaves)


def audiocaps(folder: Path) -> None:
    """Twenty training clips of one caption, and one of validation with five."""
    head = "audiocap_id,youtube_id,start_time,caption\n"
    rows = "".join(f'{n},{video(n)},{n},"A dog barks, then {n} cars"\n' for n in range(20))
    (folder / "train.csv").write_text(head + rows)
    five = "".join(f"{90 + n},{video(50)},30,Caption {n}\n" for n in range(5))
    (folder / "val.csv").write_text(head + five)


def _wavcaps(path: Path, durations: list[float]) -> None:
    entries = [
        {
            "id": str(1000 + n),
            "caption": f"Sound {n} is heard.",
            "duration": seconds,
            "title": f"sound {n}.wav",
            "href": f"https://freesound.org/{n}",
            "tags": ["field-recording"],
        }
        for n, seconds in enumerate(durations)
    ]
    path.write_text(json.dumps({"num_captions_per_audio": 1, "data": entries}))


def freesound(folder: Path) -> None:
    """Twenty sounds, a quarter of them longer than ten seconds."""
    _wavcaps(folder / "fsd_final.json", [12.5 if n % 4 == 0 else 10.0 - n / 10 for n in range(20)])


def soundbible(folder: Path) -> None:
    """Twenty sounds of any length."""
    _wavcaps(folder / "sb_final.json", [1.0 + 10 * n for n in range(20)])


def clotho(folder: Path) -> None:
    """Ten clips in each of two splits; spaces and Latin-1 in names; a sound without a number."""
    for split, first in (("development", 0), ("validation", 10)):
        names = [f"Santa Motor {n}.wav" for n in range(first, first + 10)]
        five = ",".join(f"caption_{k}" for k in range(1, 6))
        rows = [f"{name},{','.join(f'{name[:-4]} says {k}' for k in range(5))}" for name in names]
        text = "\n".join([f"file_name,{five}", *rows]) + "\n"
        (folder / f"clotho_captions_{split}.csv").write_text(text)
        head = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license"
        rows = [
            f"{name},caf\xe9;motor,{'Not found' if n == 0 else 100 + n},x,y,z,CC0"
            for n, name in enumerate(names)
        ]
        (folder / f"clotho_metadata_{split}.csv").write_text(
            "\n".join([head, *rows]) + "\n", encoding="iso-8859-1"
        )


def iemocap(folder: Path) -> None:
    """Five sessions; the turn's letter is the speaker; breaths and turns without audio."""
    emotions = ("neu", "hap", "exc", "ang", "sad", "fru", "xxx")
    for session in range(1, 6):
        dialog = f"Ses0{session}F_impro01"
        root = folder / f"Session{session}"
        labels, texts = root / "dialog" / "EmoEvaluation", root / "dialog" / "transcriptions"
        for place in (labels, texts, root / "sentences" / "wav" / dialog):
            place.mkdir(parents=True)
        turns = [f"{dialog}_{'FM'[n % 2]}{n:03d}" for n in range(7)]
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        lines += [
            f"[{n}.0000 - {n}.9000]\t{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]"
            for n, (turn, emotion) in enumerate(zip(turns, emotions, strict=True))
        ]
        (labels / f"{dialog}.txt").write_text("\n".join(lines) + "\n")
        said = [f"{turn} [{n}.0000-{n}.9000]: Excuse me {n}." for n, turn in enumerate(turns)]
        said += ["M: [BREATHING]", f"{dialog}_MXX0 [1.0-1.2]: Hm."]
        (texts / f"{dialog}.txt").write_text("\n".join(said) + "\n")


def libritts(folder: Path) -> None:
    """Readers of four fields or three, files that macOS leaves, a test part, a broken file."""
    listed = (
        "READER\tGENDER\tSUBSET NAME\n14\tF\ttrain-clean-360\tKristin\n16\tM\ttrain-clean-360\n"
    )
    (folder / "speakers.tsv").write_text(listed + "1092\tM\ttrain-clean-100\tFred\n")
    for part, reader, count in (
        ("train-clean-360", 14, 12),
        ("dev-clean", 16, 8),
        ("test-clean", 14, 2),
    ):
        place = folder / part / str(reader) / "208"
        place.mkdir(parents=True)
        for n in range(count):
            stem = f"{reader}_208_{n:06d}_000000"
            (place / f"{stem}.normalized.txt").write_text(f"Sentence {n} of {reader}.\n")
            (place / f"._{stem}.normalized.txt").write_bytes(b"\x00\x05\x16\x07")
    broken = folder / "train-clean-100" / "1092" / "134562"
    broken.mkdir(parents=True)
    (broken / "1092_134562_000013_000004.normalized.txt").write_text("No sound.\n")


def voxceleb2(folder: Path) -> None:
    """Blanks before tabs; ages such as 44.0; speakers of two tests and of VoxCeleb1."""
    rows = [
        ("id00012", "m", "dev"),
        ("id00015", "f", "dev"),
        ("id00017", "m", "test"),
        ("id00018", "f", "dev"),
    ]
    (folder / "vox2_meta.csv").write_text(
        "VoxCeleb2 ID \tVGGFace2 ID \tGender \tSet\n"
        + "".join(f"{name} \tn00 \t{gender} \t{part}\n" for name, gender, part in rows)
    )
    ages = [
        ("id00012", "v1", "44.0"), ("id00012", "v2", ""), ("id00015", "v3", "31.0"),
        ("id00017", "v4", "50.0"), ("id00018", "v5", "27.0"), ("id10001", "v6", "60.0"),
    ]  # fmt: skip
    table = "VoxCeleb_ID,video_id,speaker_age,speaker_age_title_only\n"
    (folder / "final_dataframe_extended.csv").write_text(
        table + "".join(f"{name},{clip},{age},{age}\n" for name, clip, age in ages)
    )
    (folder / "age-test.txt").write_text("VoxCeleb_ID,video_id,speaker_age\nid00018,v9,27.0\n")
    for name, clip, _ in ages[:-1]:
        place = folder / "dev" / "aac" / name / clip
        place.mkdir(parents=True)
        for n in range(10):
            (place / f"{n:05d}.m4a").write_bytes(b"")


def mosei(folder: Path) -> None:
    """Splits 0 to 3; a start below 0; a row whose end lies before its start."""
    rows = [
        f"{n},{video(n)},{n},{n - 0.4:.3f},{n + 5}.5,{0 if n % 3 == 0 else 1},"
        f"{-1 if n % 3 == 0 else 1},{n % 6},{-2 if n % 3 == 0 else 1},{n % 4}"
        for n in range(24)
    ]
    rows.append(f"24,{video(24)},0,9.0,3.0,1,1,0,1,0")
    head = ",file,index,start,end,label2a,label2b,label6,label7,split"
    (folder / "CMU_MOSEI_Labels.csv").write_text("\n".join([head, *rows]) + "\n")


def fma(folder: Path) -> None:
    """Three header lines; genres with "/" and without a top genre; a track of no genre."""
    (folder / "genres.csv").write_text(
        "genre_id,#tracks,parent,title,top_level\n17,5,0,Folk,17\n103,5,17,Singer-Songwriter,17\n"
        '12,3,0,"Rock, Loud/Soft",12\n'
    )

    def genres(number: int) -> str:
        return "[]" if number == 6 else '"[17, 103]"'

    head = [
        ",set,set,track,track,track", ",split,subset,genre_top,genres,title",
        "track_id,,,,,",
    ]  # fmt: skip
    rows = [
        f"{n},{('training', 'validation', 'test')[n % 3]},large,"
        f'{"Folk" if n % 2 else ""},{genres(n)},"Song, {n}"'
        for n in range(21)
    ]
    (folder / "tracks.csv").write_text("\n".join([*head, *rows]) + "\n")


def real(folder: Path) -> None:
    """Sounds, music of 95 s, speech, a twin, a preset, a doubted label; and a cluster of two."""
    columns = (
        "clip", "package", "file", "label", "fine", "group", "seconds", "licence", "ships",
        "split", "fold", "cluster", "sha256", "yamnet", "gender", "text",
    )  # fmt: skip
    rows = [
        f"a__dog_{n}\ta\ta/dog_{n}.ogg\tDog\t\tDog / wolf\t{n + 0.5}\tCC0\tyes\ttrain\t0\t{n // 2}"
        "\t0011\tagrees\t\t"
        for n in range(10)
    ]
    rows += [
        "b__gull\tb\tb.zip!gull.ogg\tCrow\tGull, seagull\tBird & fowl\t2.0\tMIT\tyes\tval\t1\t20"
        "\t0022\tdiffers\t\t",
        "b__song\tb\tb.zip!song.ogg\tMusic\t\t\t95.0\tGPL-2\tno\tval\t1\t21\t0033\tagrees\t\t",
        "a__gull\ta\ta/gull.ogg\tCrow\t\tBird & fowl\t2.0\tMIT\tyes\ttrain-dup-of-val\t0\t20"
        "\t0044\tagrees\t\t",
        "a__step\ta\ta/step.ogg\tWalk, footsteps\t\tHuman non-speech\t1.0\tMIT\tyes\ttrain\t0\t22"
        "\t0055\tdiffers\t\t",
        "c__harp\tc\tc.sf2!0:46 Harp\tHarp\t\tGuitar / plucked\t\tMIT\tyes\ttrain\t2\t\t\t\t\t",
        "c__zebra\tc\tc/zebra.ogg\tSpeech\t\t\t0.8\tGPL-3+\tno\ttrain\t2\t\t0066\t\tmale\tzebra",
        "c__nose\tc\tc/nose.ogg\tSpeech\t\t\t0.8\tGPL-2+\tno\ttrain\t2\t\t0077\t\tfemale\tnose",
    ]
    (folder / "recordings.tsv").write_text("\n".join(["\t".join(columns), *rows]) + "\n")


def real_windows(folder: Path) -> None:
    """Windows of two sounds, with a voice over them, a voice alone, silence and noise."""
    said = {
        "name": "00001_bm_lewis", "text": "Where did you put the printer?", "gender": "male",
        "voice": "bm_lewis", "accent": "British English", "f0_hz": 101.5, "speech_seconds": 2.1,
    }  # fmt: skip

    def window(number: int, split: str, **changed) -> dict:
        return {
            "window_id": f"{split}-w{number}", "file": f"audio/{split}/w{number}.flac",
            "split": split, "kind": "sounds", "classes": ["Dog", "Rain"],
            "groups": ["Dog / wolf", "Water / rain / thunder / fire"],
            "absent": ["Cat", "Thunder"], "clusters": [f"{split}{number}"],
            "licences": ["CC0", "GPL-2"], "ships": False, "speech": None,
        } | changed  # fmt: skip

    empty = {"classes": [], "groups": [], "clusters": [], "licences": ["none"], "ships": True}
    lines = [window(number, "train") for number in range(4)]
    lines += [
        window(4, "val", speech=said, ships=True),
        window(5, "train", speech=said | {"voice": "joe", "gender": "male"}),
        window(6, "val", **empty, speech=said, kind="silence"),
        window(7, "train", **empty, kind="silence"),
        window(8, "train", **empty, kind="noise"),
        window(9, "train", classes=["Piano"], groups=[], absent=["Guitar"]),
    ]
    (folder / "windows.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


MAKERS = {
    "as_strong": as_strong, "audioset": audioset, "vggsound": vggsound, "fsd50k": fsd50k,
    "audiocaps": audiocaps, "freesound": freesound, "clotho": clotho, "soundbible": soundbible,
    "iemocap": iemocap, "libritts": libritts, "voxceleb2": voxceleb2, "mosei": mosei,
    "joint_audioset": audioset, "fma": fma, "real": real, "real_speech": real,
    "real_windows": real_windows,
}  # fmt: skip
