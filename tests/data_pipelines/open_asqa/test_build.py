"""Builds of sources in their published forms: audio, order, leakage, and what is made again."""

import json
import tomllib
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.open_asqa import build_step, held_out_file, source_build
from data_pipelines.open_asqa.__main__ import STEPS, command
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.registry import SOURCES
from ltu_jax.core.errors import UserError
from tests.support import published_metadata as published
from tests.support.published_metadata import video

RATE = 16_000
GENRES = (
    "blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock",
)  # fmt: skip


class Inline(Executor):
    """Runs each job at once, here."""

    def submit(self, function, /, *args):
        future = Future()
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


@pytest.fixture
def inline(monkeypatch):
    monkeypatch.setattr(build_step, "pool_of", lambda workers: Inline())


def noise(seed: int, seconds: float = 0.5) -> np.ndarray:
    # Whole numbers: soundfile rounds others to different samples in wav and flac.
    return np.random.default_rng(seed).integers(-9_000, 9_000, int(RATE * seconds), np.int16)


def write_audio(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, subtype="PCM_16")


def sources_file(root: Path, *names: str, audio: bool = True, more: str = "") -> Path:
    """Make the metadata of sources, and a sources.toml."""
    text = more
    for name in names:
        (root / name).mkdir()
        published.MAKERS[name](root / name)
        text += f'\n[{name}]\nmetadata = "{name}"\n'
        if audio:
            (root / "audio" / name).mkdir(parents=True)
            text += f'audio = "audio/{name}"\n'
    path = root / "sources.toml"
    path.write_text(text)
    return path


def build(sources: Path, *more: str, out: str = "out") -> BuildFolder:
    folder = sources.parent / out
    command(["build", "--sources", str(sources), "--out", str(folder), *more])
    return BuildFolder(folder)


def lines(folder: BuildFolder, source: str, name: str) -> list[dict]:
    return list(folder.lines(source, name))


def results(folder: BuildFolder) -> dict[str, bytes]:
    """Return all files of a build but its work."""
    return {
        str(path.relative_to(folder.root)): path.read_bytes()
        for path in sorted(folder.root.rglob("*"))
        if path.is_file() and not {".build", ".lock"} & set(path.parts)
    }


def test_clips_without_audio_are_quarantined_and_the_others_know_their_file(tmp_path, inline):
    sources = sources_file(tmp_path, "fsd50k", "voxceleb2", "vggsound")
    for number in range(100, 119):
        write_audio(tmp_path / f"audio/fsd50k/part{number % 2}/{number}.wav", noise(number))
    write_audio(tmp_path / "audio/fsd50k/part0/118.flac", noise(118))  # two files could be meant
    write_audio(tmp_path / "audio/voxceleb2/dev/aac/id00012/v1/00003.wav", noise(0))
    write_audio(tmp_path / "audio/voxceleb2/dev/aac/id00015/v1/00004.wav", noise(0))
    write_audio(tmp_path / f"audio/vggsound/Y{video(1)}_1000.flac", noise(1))
    folder = build(sources)
    clips = {clip.clip_id: clip for clip in folder.clips("fsd50k")}
    assert list(clips) == [str(number) for number in range(100, 118)]
    assert clips["101"].audio == str(tmp_path / "audio/fsd50k/part1/101.wav")
    reasons = [line["reason"] for line in lines(folder, "fsd50k", "quarantine.jsonl")]
    assert ["118.flac" in reasons[0] and "118.wav" in reasons[0], "119" in reasons[1]] == [True] * 2
    assert [clip.clip_id for clip in folder.clips("voxceleb2")] == ["id00012/v1/00003"]
    assert [clip.clip_id for clip in folder.clips("vggsound")] == [f"{video(1)}_1"]
    asked = {line["clip_id"] for line in lines(folder, "fsd50k", "closed_ended.jsonl")}
    assert asked == set(clips)


def test_segments_are_cut_out_of_their_video(tmp_path, inline):
    sources = sources_file(tmp_path, "mosei")
    whole = noise(7, 20)
    write_audio(tmp_path / f"audio/mosei/{video(1)}.wav", whole)  # 0.6 s to 6.5 s
    write_audio(tmp_path / f"audio/mosei/{video(4)}_4.wav", noise(4))
    write_audio(tmp_path / f"audio/mosei/{video(20)}.wav", noise(20))  # ends before 19.6 s
    folder = build(sources)
    segment, own = sorted(folder.clips("mosei"), key=lambda clip: clip.clip_id, reverse=True)
    assert (segment.clip_id, own.clip_id) == (f"{video(1)}_1", f"{video(4)}_4")
    assert Path(own.audio) == tmp_path / f"audio/mosei/{video(4)}_4.wav"
    assert [segment.start, segment.end, own.start, own.end] == [None] * 4
    samples, rate = soundfile.read(segment.audio)
    assert rate == RATE
    cut = whole[int(0.6 * RATE) : int(6.5 * RATE)] / 32768
    np.testing.assert_allclose(samples, cut, atol=1e-4)
    late = [line for line in lines(folder, "mosei", "quarantine.jsonl") if "none at" in str(line)]
    assert len(late) == 1 and video(20) in late[0]["reason"]


def test_recordings_of_tests_are_left_out_in_whatever_form_they_are_named(tmp_path, inline):
    more = '[benchmarks]\nesc50 = "esc"\n[leakage]\nlists = ["own.txt"]\n'
    forms = [f"Y{video(2)}.wav", f"{video(3)}_3", f"{video(6)}_6000", "/data/Santa Motor 1.wav"]
    (tmp_path / "own.txt").write_text("\n".join([*forms, "1005"]))
    (tmp_path / "esc" / "meta").mkdir(parents=True)
    (tmp_path / "esc" / "audio").mkdir()
    (tmp_path / "esc" / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category,esc10,src_file,take\n1-1006-A-0.wav,1,0,dog,True,1006,A\n"
    )
    names = ("vggsound", "clotho", "freesound", "audioset")
    sources = sources_file(tmp_path, *names, audio=False, more=more)
    blacklist = {"FreeSound": ["1007", "105"], "AudioSet": [f"Y{video(12)}.wav"]}
    (tmp_path / "freesound" / "blacklist_exclude_test_ac.json").write_text(json.dumps(blacklist))
    folder = build(sources)
    found = {
        name: {line["clip_id"]: line["rule"] for line in lines(folder, name, "leaked.jsonl")}
        for name in names
    }
    own = "own.txt, by name"
    assert found["vggsound"] == {f"{video(n)}_{n}": own for n in (2, 3, 6)}
    assert found["clotho"] == {"Santa Motor 1.wav": own}
    black = "blacklist_exclude_test_ac.json, by id"  # 105 is a training sound of Clotho
    assert found["freesound"] == {"1005": own, "1006": "esc50, by its list", "1007": black}
    listed = "vggsound, by its list"
    assert found["audioset"] == {f"{video(n)}_{10 * n}": own for n in (2, 3, 6)} | {
        f"{video(n)}_{10 * n}": listed for n in (0, 5, 10, 15)
    }
    left_out = {name: set(clips) for name, clips in found.items()}
    for name in names:
        assert left_out[name].isdisjoint(clip.clip_id for clip in folder.clips(name))
    report = json.loads((folder.root / "leakage.json").read_text())
    assert report["left_out"] == {own: 8, "esc50, by its list": 1, listed: 4, black: 1}
    assert report["tests"]["recordings"]["esc50, by its list"] == 1
    assert "gtzan" in report["tests"]["not_checked"]
    assert "vggsound" not in report["tests"]["not_checked"]


def test_audio_of_tests_is_found_under_any_name(tmp_path, inline):
    more = '[benchmarks]\ngtzan = "gtzan"\n[leakage]\nlists = ["own.txt"]\n'
    sources = sources_file(tmp_path, "fma", more=more)
    for number in (1, 3, 4):
        write_audio(tmp_path / f"audio/fma/{number:06d}.wav", noise(number))
    for genre in GENRES:
        write_audio(
            tmp_path / f"gtzan/genres_original/{genre}/{genre}.00000.wav", noise(len(genre) + 50)
        )
    write_audio(tmp_path / "gtzan/genres_original/blues/blues.00001.wav", noise(3))
    write_audio(tmp_path / "mine.flac", noise(4))
    (tmp_path / "own.txt").write_text("mine.flac\n")
    folder = build(sources)
    assert [clip.clip_id for clip in folder.clips("fma")] == ["000001"]
    assert lines(folder, "fma", "leaked.jsonl") == [
        {"clip_id": "000003", "rule": "gtzan, by its audio", "as": "blues.00001"},
        {"clip_id": "000004", "rule": "own.txt, by its audio", "as": "mine.flac"},
    ]


def test_workers_make_the_same_bytes_and_nothing_is_made_twice(tmp_path):
    sources = sources_file(tmp_path, *published.MAKERS, audio=False)
    one, two = (build(sources, "--workers", n, out=f"out{n}") for n in "12")
    assert results(one) == results(two)
    assert len(results(one)) == 4 * len(published.MAKERS) + 3
    made = list(one.root.glob("[a-z]*/*.jsonl"))
    dates = [path.stat().st_mtime_ns for path in made]
    build(sources, "--workers", "1", out="out1")
    assert [path.stat().st_mtime_ns for path in made] == dates


def test_a_worker_that_is_ended_while_test_clips_are_read_is_named(tmp_path, monkeypatch):
    def ended(*_, **__):
        raise BrokenProcessPool

    monkeypatch.setattr(held_out_file, "write", ended)
    with pytest.raises(UserError, match="fewer --workers"):
        build(sources_file(tmp_path, "fma", audio=False))


def test_another_seed_asks_anew_and_new_audio_reads_anew(tmp_path, inline):
    sources = sources_file(tmp_path, "freesound")
    write_audio(tmp_path / "audio/freesound/1001.wav", noise(1))
    folder = build(sources)
    before = results(folder)
    asked = results(build(sources, "--seed", "5"))
    changed = {name for name in before if before[name] != asked[name]}
    assert changed == {"build.json", "freesound/closed_ended.jsonl"}
    write_audio(tmp_path / "audio/freesound/1002.wav", noise(2))
    folder = build(sources)
    assert [clip.clip_id for clip in folder.clips("freesound")] == ["1001", "1002"]
    assert results(build(sources, out="again")) == results(folder)


@pytest.mark.parametrize("seed", ["0", "5"])
def test_questions_of_a_stopped_build_are_made_again(seed, tmp_path, inline, monkeypatch):
    sources = sources_file(tmp_path, "freesound", "soundbible", audio=False)
    build(sources, "--only", "freesound")

    def stopped(job, seed):
        if seed == "5":  # the file is written, and no more
            source_build.write_closed_ended(job.folder, job.given.name, seed)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(source_build, "ask", stopped)
        build(sources, "--seed", "5")
    again = build(sources, "--seed", seed)
    assert results(again) == results(build(sources, "--seed", seed, out="new"))


def test_only_the_named_sources_and_clips_are_built(tmp_path, inline):
    sources = sources_file(tmp_path, "freesound", "vggsound", audio=False)
    (tmp_path / "some.txt").write_text(f"Y{video(1)}_1\n{video(2)}_000002\nnobody\n")
    sources.write_text(sources.read_text() + 'clips = "some.txt"\n')
    folder = build(sources, "--only", "vggsound")
    assert folder.sources() == ["vggsound"]
    assert [clip.clip_id for clip in folder.clips("vggsound")] == [f"{video(1)}_1", f"{video(2)}_2"]
    (refused,) = lines(folder, "vggsound", "quarantine.jsonl")
    assert "'nobody'" in refused["reason"] and refused["where"].endswith("some.txt")
    with pytest.raises(UserError, match="--only fma"):
        build(sources, "--only", "fma")


def test_lines_are_sorted_and_a_clip_is_taken_once(tmp_path, inline):
    sources = sources_file(tmp_path, "audiocaps", audio=False)
    val = tmp_path / "audiocaps" / "val.csv"
    val.write_text(val.read_text().replace(video(50), video(7)))
    folder = build(sources)
    ids = [clip.clip_id for clip in folder.clips("audiocaps")]
    assert ids == sorted(ids) and ids.count(video(7)) == 1 and len(ids) == 20
    assert video(7) in lines(folder, "audiocaps", "quarantine.jsonl")[0]["reason"]


def test_a_no_is_about_a_class_of_another_kind(tmp_path, inline):
    """Dog and Speech are heard; Gurgling is beside Dog in the tree, Engine is not."""
    sources = sources_file(tmp_path, "as_strong", audio=False)
    names = tmp_path / "as_strong" / "mid_to_display_name.tsv"
    names.write_text(names.read_text() + "/m/0e\tEngine\n")
    assert not _answers(build(sources))
    tree = [
        {"id": "/m/a", "child_ids": ["/m/0bt9lr", "/g/122z_qxw"]},
        {"id": "/m/0bt9lr", "child_ids": []},
        {"id": "/g/122z_qxw", "child_ids": []},
        {"id": "/m/0e", "child_ids": []},
        {"id": "/m/09x0r", "child_ids": []},
    ]
    (tmp_path / "as_strong" / "ontology.json").write_text(json.dumps(tree))
    answers = _answers(build(sources))
    assert {answer for answer in answers if answer.startswith("No")} == {"No, Engine is not heard."}
    assert any(answer.startswith("Yes") for answer in answers)


def _answers(folder):
    made = lines(folder, "as_strong", "closed_ended.jsonl")
    return [line["answer"] for line in made if line["task"] == "temporal_presence"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[cloto]\n", "cloto"),
        ("[fma]\nmetadata = 'fma'\nsound = 'x'\n", "sound"),
        ("[fma]\nmetadata = 'nowhere'\n", "nowhere"),
        ("[fma]\naudio = 'fma'\n", "metadata"),
        ("[fma\n", "TOML"),
        ("", "no source"),
        ("[fma]\nmetadata = 'fma'\n[benchmarks]\nesc = 'fma'\n", "esc50"),
        ("[fma]\nmetadata = 'fma'\n[leakage]\nlists = ['no.txt']\n", "no.txt"),
        ("[clotho]\nmetadata = 'fma'\n", "clotho_captions_development.csv"),
    ],
)
def test_what_is_wrong_with_the_sources_is_named(text, named, tmp_path):
    (tmp_path / "fma").mkdir()
    published.fma(tmp_path / "fma")
    (tmp_path / "sources.toml").write_text(text)
    with pytest.raises(UserError, match=named):
        build(tmp_path / "sources.toml")
    assert not list(tmp_path.glob("out/*/clips.jsonl"))


def test_check_tells_what_is_missing(tmp_path, capsys):
    sources = sources_file(tmp_path, "freesound", "clotho")
    write_audio(tmp_path / "audio/freesound/1001.wav", noise(1))
    (tmp_path / "clotho" / "clotho_metadata_validation.csv").unlink()
    assert command(["check", "--sources", str(sources)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["freesound", "1", "0", "15", "0", "1"] in rows
    assert ["clotho", "3", "0", "20", "0", "0"] in rows
    (tmp_path / "freesound" / "fsd_final.json").unlink()
    assert command(["check", "--sources", str(sources)]) == 1
    assert "fsd_final.json is missing" in capsys.readouterr().out


def test_a_name_with_folders_is_found_below_them_alone(tmp_path):
    for name in ("a/x/v/1.wav", "a/y/v/1.wav", "b/y/v/2.wav", "v/1.wav"):
        write_audio(tmp_path / "audio" / name, noise(0, 0.1))
    index = FileIndex(tmp_path / "index.sqlite", root=tmp_path / "audio")
    audio = tmp_path / "audio"
    assert index.find("x/v/1") == [audio / "a/x/v/1.wav"]
    assert index.find("v/2.wav") == [audio / "b/y/v/2.wav"]
    assert len(index.find("v/1")) == 3 and index.find("z/v/1") == []
    index.close()


def test_the_example_names_every_source_and_its_files(capsys):
    assert command(["sources", "--example"]) == 0
    tables = tomllib.loads(capsys.readouterr().out)
    assert set(tables) == {*SOURCES, "benchmarks", "leakage"}
    assert all(set(tables[name]) == {"metadata", "audio"} for name in SOURCES)
    assert command(["sources"]) == 0
    printed = capsys.readouterr().out
    for source in SOURCES.values():
        for file in (*source.files, *source.optional):
            assert file.replace("|", " or ") in printed


@pytest.mark.parametrize("name", STEPS)
def test_every_step_has_its_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        command([name, "--help"])
    assert ended.value.code == 0
    assert f"open_asqa {name}" in capsys.readouterr().out
