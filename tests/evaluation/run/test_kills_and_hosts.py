"""Real (tiny) weights: two processes, and runs that are killed, leave what one quiet run leaves."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support import tiny_ltu_as
from tests.support.tiny_stage import processes

ROOT = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.slow
GENDERS, SOUNDS = ["female", "male"], ["dog", "cat"]
COMMAND = str(ROOT / "tests" / "evaluation" / "evaluate_and_die.py")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Weights, and six questions about three clips, in the layout of the mini corpus."""
    folder = tmp_path_factory.mktemp("hosts")
    golden = ROOT / "tests" / "golden" / "text_cases" / "spm320.model"
    tiny_ltu_as.save(folder, tokenizer=golden)
    clips, items = [], []
    for index in (2, 3, 4):  # whose hashes give both processes a share
        time = np.arange(8_000 + 1_600 * index) / 16_000
        soundfile.write(folder / f"{index}.wav", 0.3 * np.sin(2_000 * (index + 1) * time), 16_000)
        clip = {"clip_id": f"c{index}", "split": "test", "audio": f"{index}.wav"}
        clips.append({**clip, "spoken_text": f"clip number {index}"})
        for row, answer, choices in (("gender", "male", GENDERS), ("sound", "dog", SOUNDS)):
            asked = {"question": f"Which {row}?", "answer": answer, "choices": choices}
            items.append({"item_id": f"{row}{index}", "clip_id": f"c{index}", "row": row, **asked})
    for name, lines in (("clips", clips), ("test_items", items)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def run(place: Path, out: str, *, when: str = "never", count: int = 1, more: tuple = ()):
    """The processes of one evaluation, ended."""
    command = [COMMAND, when, "--checkpoint", str(place / "ltu-as")]
    command += ["--whisper", str(place / "whisper"), "--data", str(place)]
    command += ["--out", str(place / out), "--modes", "joint,text", "--batch-size", "4", *more]
    return processes(*[command] * count, devices=1)


@pytest.fixture(scope="module")
def quiet(place) -> Path:
    """One process that nothing befalls."""
    (done,) = run(place, "quiet")
    assert done.returncode == 0, done.stderr
    return place / "quiet"


def told(folder: Path) -> dict:
    """All that a run leaves, without what depends on the clock and on where it lies."""
    found = {path.name: None for path in folder.iterdir()}
    for name in ("samples", "clips", "items"):
        lines = map(json.loads, (folder / f"{name}.jsonl").read_text().split("\n")[:-1])
        found[name] = [{**line, "latency_ms": None} for line in lines]
    for name in ("config.json", "metrics.json"):
        found[name] = json.loads((folder / name).read_text())
    found["config.json"]["environment"] = found["metrics.json"]["config"]["environment"] = None
    del found["metrics.json"]["throughput"]
    for name in ("results.txt", "results.png", "grounding.png"):
        found[name] = (folder / name).read_bytes()
    return found


def test_two_processes_answer_as_one(place, quiet):
    first, second = run(place, "two", count=2)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "metrics.json" in first.stdout and "metrics.json" not in second.stdout
    assert all("answers: 100%" in process.stderr for process in (first, second))  # both had a share
    assert told(place / "two") == told(quiet)
    speed = json.loads((place / "two" / "metrics.json").read_text())["throughput"]
    assert (
        speed["answers"]
        == json.loads((quiet / "metrics.json").read_text())["throughput"]["answers"]
    )  # of both processes


def test_kills_leave_no_trace(place, quiet):
    """Two processes die in the middle of a line; one goes on, dies when scoring; one ends."""
    # Where one is killed before it comes to its third line, JAX ends the other.
    codes = [one.returncode for one in run(place, "killed", when="3", count=2)]
    assert -signal.SIGKILL in codes and max(codes) < 0
    parts = [path.read_text() for path in (place / "killed").glob("samples.[01].jsonl")]
    assert any(part.endswith('{"item_id": "half a li') for part in parts)
    (again,) = run(place, "killed", when="scoring")
    assert again.returncode == -signal.SIGKILL, again.stderr
    (last,) = run(place, "killed", more=("--resume",))
    assert last.returncode == 0, last.stderr
    assert ", all there already" in last.stdout
    assert told(place / "killed") == told(quiet)


@pytest.mark.parametrize(
    ("option", "values", "message"),
    [
        ("--limit", ("1", "2"), "--limit is 1 on process 0 and 2 on process 1"),
        ("--out", ("x", "y"), "y is not what process 0 has written there: give an --out on a disk"),
    ],
)
def test_processes_that_do_not_fit_stop_with_one_message(place, tmp_path, option, values, message):
    commands = []
    for value in values:
        given = {"--out": "x", option: value}
        given["--out"] = str(tmp_path / given["--out"])
        command = [COMMAND, "never", "--checkpoint", str(place / "ltu-as"), "--data", str(place)]
        commands.append([*command, *(text for pair in given.items() for text in pair)])
    for process in processes(*commands, devices=1):
        assert process.returncode != 0
        assert message in process.stderr
    assert not list(tmp_path.glob("*/*.png"))
