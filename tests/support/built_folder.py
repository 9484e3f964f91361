"""A small finished build: clips, spoken text, questions and answers of three sources."""

import json
from pathlib import Path

from data_pipelines.open_asqa import build_folder
from data_pipelines.open_asqa.build_folder import BuildFolder
from data_pipelines.open_asqa.source_clip import SourceClip
from ltu_jax.core.jsonl import write_jsonl

SOURCES = ("fsd50k", "iemocap", "fma")  # of `made`
_FACTS = {
    "fsd50k": {"labels": ("Bark", "Dog"), "dataset": "fsd50k_tr"},
    "iemocap": {"gender": "female", "dataset": "iemocap_tr"},
    "fma": {"genres": ("Folk",), "dataset": "fma"},
}
_CLOSED = {"fsd50k": "cla_label", "iemocap": "gender_cla", "fma": "genre_cla"}


def clip(source: str, number: int, **facts) -> SourceClip:
    """Return a made-up clip of a source."""
    name = f"{source}-{number:04d}"
    values = {"source": source, "clip_id": name, "files": (name,), "where": f"t.csv:{number + 2}"}
    return SourceClip(**values | {"licence": "CC BY 4.0"} | _FACTS[source] | facts)


def made(root: Path, *, clips: int = 5, opened: bool = True) -> BuildFolder:
    """Make a build; every second clip of fma has no spoken text, every third no open pair."""
    folder = BuildFolder(root)
    for source in SOURCES:
        of = [clip(source, number) for number in range(clips)]
        _write(folder, source, build_folder.CLIPS, [one.to_json() for one in of])
        _write(folder, source, build_folder.SPOKEN_TEXT, [
            {"clip_id": one.clip_id, "text": f"Words of {one.clip_id}\t\u2028 “so”.", "raw": "W"}
            for number, one in enumerate(of) if source != "fma" or number % 2
        ])  # fmt: skip
        _write(folder, source, build_folder.CLOSED_ENDED, [
            {"clip_id": one.clip_id, "task": task, "question": f"What of {one.clip_id}?",
             "answer": f"Answer: {task}.", "wording": 3}
            for one in of for task in (_CLOSED[source], "ASR")
        ])  # fmt: skip
        if opened:
            _write(folder, source, build_folder.OPEN_ENDED, [
                {"clip_id": one.clip_id, "question": f"Why {place}?", "answer": "Because it is.",
                 "prompt": "fma-1", "request": f"{number:064d}"}
                for number, one in enumerate(of) if number % 3 for place in range(2)
            ])  # fmt: skip
    return folder


def _write(folder: BuildFolder, source: str, name: str, lines: list[dict]) -> None:
    path = folder.file(source, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, lines)


def lines(path: Path) -> list[dict]:
    """Return the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
