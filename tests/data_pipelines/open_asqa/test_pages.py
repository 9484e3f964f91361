"""The commands of the pages about Open-ASQA, one after the other, from metadata to records.

Stubs stand for the language model and for Whisper; all else is as a user has it. Only sizes and
places differ from what the pages say.
"""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines.doctor import __main__ as doctor
from data_pipelines.open_asqa import __main__ as open_asqa
from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.records import record_files
from ltu_jax.core.files import read_json
from tests.support import published_metadata as published
from tests.support.fake_whisper import with_fake_whisper
from tests.support.openai_server import servers
from tests.support.published_metadata import video
from tests.support.stub_writer import chat, is_probe, pairs_of

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = ("open_asqa.md", "open_asqa_speech.md", "open_ended.md", "open_asqa_rows.md")
RATE = 16_000
# Source -> the files of its clips that there is audio of.
AUDIO = {
    "vggsound": [video(1), video(2)],
    "clotho": ["Santa Motor 0", "Santa Motor 1"],
    "iemocap": ["Ses01F_impro01_F000", "Ses02F_impro01_F002"],
    "libritts": ["14_208_000000_000000", "14_208_000001_000000"],
}
# What a page says -> what it is here.
PLACES = {
    "https://api.openai.com/v1": "SERVER", "64": "2", "8": "1", "16": "1",
    "--records-options=--audio-root /data/audio": "--records-options=--audio-root audio",
}  # fmt: skip


def commands() -> list[list[str]]:
    """Return the commands of the pages, in their order; those of files that others made are not."""
    found = []
    for page in PAGES:
        text = (DOCS / page).read_text()
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("python -m data_pipelines."):
                    found.append(shlex.split(line, comments=True)[2:])
    return [words for words in found if words[1] != "import"]


def run(words: list[str], server: str) -> int:
    """Run a command with what is here in place of what a page says."""
    given = [PLACES.get(word, word).replace("SERVER", server) for word in words]
    assert given[0] == "data_pipelines.open_asqa"
    return open_asqa.command(given[1:])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with metadata, audio and sources.toml, which commands run in."""
    text = ""
    for number, (name, files) in enumerate(AUDIO.items()):
        (tmp_path / name).mkdir()
        published.MAKERS[name](tmp_path / name)
        (tmp_path / "audio" / name).mkdir(parents=True)
        for file in files:
            tone = 0.1 * np.sin(np.arange(RATE) * 0.05 * (number + 1))
            soundfile.write(tmp_path / "audio" / name / f"{file}.wav", tone, RATE)
        text += f'[{name}]\nmetadata = "{name}"\naudio = "audio/{name}"\n'
    (tmp_path / "sources.toml").write_text(text)
    with_fake_whisper(monkeypatch.setattr)
    row = {"dataset": "fma", "task": "genre_cla", "audio_id": "/fma/000002.mp3", "input": ""}
    row |= {"instruction": "Which genre is it?", "output": "Music genre: Folk."}
    (tmp_path / "openasqa_9.6M_v1.json").write_text(json.dumps([row]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


def written(number, path, body):
    return chat(json.dumps({"pairs": [] if is_probe(body) else pairs_of(body)}))


def test_the_commands_of_the_pages_make_records(place):
    asked = commands()
    steps = [words[1] for words in asked if words[0] == "data_pipelines.open_asqa"]
    assert {"sources", "check", "build", "statistics", "ids", "transcribe", "style", "harvest",
            "generate", "filter", "merge", "export"} == set(steps)  # fmt: skip
    with servers() as start:
        server = start(written)
        for words in asked:
            words = words[: words.index(">")] if ">" in words else words  # sources.toml is there
            assert run(words, server.url) == 0, words
    build = BuildFolder(place / "asqa")
    rows = json.loads((place / "open_asqa.json").read_text())
    origins = [
        json.loads(line)
        for line in (place / "open_asqa.json.provenance.jsonl").read_text().splitlines()
    ]
    assert len(rows) == len(origins)
    assert {origin["source"] for origin in origins} == set(AUDIO)
    for source in AUDIO:
        kinds = {origin["kind"] for origin in origins if origin["source"] == source}
        assert kinds == {"closed", "open"}
        assert len(list(build.clips(source))) == len(AUDIO[source])
        assert build.file(source, build_folder.FILTER).is_file()
    records = place / "data" / "open_asqa_records"
    found = record_files.read_manifest(records)["splits"]
    assert sum(split["pairs"] for split in found.values()) == len(rows)
    number = next(n for n, origin in enumerate(origins, start=1) if origin["kind"] == "open")
    assert open_asqa.command(["explain", str(build.root), str(number)]) == 0
    doctor.command([str(records), "--json", str(place / "report.json")])
    licences = read_json(place / "report.json")["licences"]
    assert licences and "unknown" not in {name for own in licences.values() for name in own}
