"""A run's folder: one evaluation, one writer; earlier ones aside and whole; broken files named."""

import json
import os
import subprocess
import sys

import pytest

from ltu_jax.core import staging
from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.run import run_dir
from ltu_jax.evaluation.run.run_dir import claim, locked, prepare_folder, read_run

CONFIG = {
    "identity": {"benchmark": "mini", "split": "test", "manifest": "1", "weights": {"sha256": "a"}},
    "system": "model",
    "modes": ["joint"],
    "decodings": ["greedy"],
}
OTHER = {**CONFIG, "identity": {**CONFIG["identity"], "weights": {"sha256": "b"}}}
ITEM = {
    "item_id": "i",
    "clip_id": "c",
    "row": "sound",
    "references": ["dog"],
    "question": "What?",
    "choices": ["dog", "cat"],
    "groups": {},
    "cluster": "c",
}
SAMPLE = {
    "item_id": "i",
    "row": "sound",
    "mode": "joint",
    "decoding": "greedy",
    "draw": 0,
    "output": "a dog",
    "tokens": 2,
    "finish_reason": "eos",
    "latency_ms": 3,
}
CLIP = {
    "clip_id": "c",
    "sha256": "0",
    "seconds": 1,
    "seconds_cut": 0.0,
    "spoken_text": "",
    "source": "data",
}


@pytest.fixture
def out(tmp_path):
    """A finished run of one item."""
    prepare_folder(tmp_path, CONFIG, resume=False)
    run_dir.finish(tmp_path)
    for name, record in (("items", ITEM), ("samples", SAMPLE), ("clips", CLIP)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record) + "\n")
    return tmp_path


def names(out):
    return {path.name for path in out.iterdir()}


def test_the_same_evaluation_finds_its_files_again(out):
    before = names(out)
    prepare_folder(out, CONFIG, resume=True)
    assert names(out) == before


def test_every_earlier_evaluation_is_kept_whole(out, capsys):
    (out / "samples.0.jsonl").write_text("{")  # a killed run's
    (out / "features.0").mkdir()
    (out / "features.0" / "of_another_encoder.npy").touch()
    (out / "my own notes.txt").touch()
    whole = names(out) - {"features.0", "my own notes.txt"}
    prepare_folder(out, OTHER, resume=False)
    assert "another evaluation (weights): starting afresh" in capsys.readouterr().out
    assert names(out) == {"config.json", "old.1", "my own notes.txt"}
    assert names(out / "old.1") == whole
    assert len(read_run(out / "old.1").samples) == 1
    prepare_folder(out, CONFIG, resume=False)
    assert names(out) == {"config.json", "old.1", "old.2", "my own notes.txt"}
    assert names(out / "old.1") == whole


def test_answers_of_nobody_knows_what_are_not_taken_for_ours(out):
    (out / "config.json").unlink()
    with pytest.raises(UserError, match="--resume: .* holds no evaluation"):
        prepare_folder(out, CONFIG, resume=True)
    prepare_folder(out, CONFIG, resume=False)
    assert names(out) == {"config.json", "old.1"}


def test_what_a_kill_left_half_written_is_swept_up_and_nothing_else(out):
    folder, lock = staging._make(out / "samples.jsonl")
    (folder / "samples.jsonl").touch()
    (out / ".tmp-mine").mkdir()
    before = names(out)
    prepare_folder(out, CONFIG, resume=False)
    assert names(out) == before  # whoever writes it is alive
    os.close(lock)
    prepare_folder(out, CONFIG, resume=False)
    assert names(out) == before - {folder.name}


def test_a_folder_of_something_else_is_refused(out, tmp_path):
    claim(out)
    (out / "config.json").unlink()
    claim(out)  # the items tell
    for name in ("clips.jsonl", "config.json", "report.html", "features.0/x.npy"):
        other = tmp_path / "others" / name.replace("/", "-")
        (other / name).parent.mkdir(parents=True)
        (other / name).write_text("mine")
        with pytest.raises(UserError, match=f"holds '{name}'"):
            claim(other)
        with pytest.raises(UserError, match="read by this command"):
            claim(other, inputs=[other])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").touch()
    claim(tmp_path / "notes", inputs=[tmp_path / "notes" / "thesis.tex"])


def test_a_second_process_is_turned_away_until_the_first_has_ended(tmp_path):
    code = (
        "import pathlib, sys\n"
        "from ltu_jax.evaluation.run.run_dir import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process evaluates into"), locked(tmp_path):
            pass
        process.kill()
        process.wait()
        with locked(tmp_path):
            assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not valid JSON"),
        ("[]", "config.json is not that of an evaluation; delete it and run"),
        ("{}", "config.json is not that of an evaluation; delete it and run"),
        (json.dumps({**CONFIG, "identity": 3}), "is not that of an evaluation"),
        (json.dumps({**CONFIG, "modes": None}), "is not that of an evaluation"),
        (json.dumps(CONFIG).replace("mini", "musan"), "the benchmark 'musan', which this version"),
    ],
)
def test_a_broken_config_is_named_by_those_who_write_and_who_read(out, text, message):
    (out / "config.json").write_text(text)
    for use in (lambda: prepare_folder(out, CONFIG, resume=False), lambda: read_run(out)):
        with pytest.raises(UserError, match=message):
            use()
    assert (out / "samples.jsonl").is_file()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("items", {"row": "musan"}, "items.jsonl:1: row 'musan' is unknown"),
        ("items", {"references": "dog"}, "items.jsonl:1 is not an item; run the evaluation again"),
        ("items", {"references": []}, "items.jsonl:1 is not an item"),
        ("items", {"cluster": None}, "items.jsonl:1 is not an item"),
        ("items", {"groups": ["fold"]}, "items.jsonl:1 is not an item"),
        ("samples", {"output": None}, "samples.jsonl:1 is not a sample: output is None; delete"),
        ("samples", {"item_id": ["i"]}, r"samples.jsonl:1 is not a sample: item_id is \['i'\]"),
        ("samples", {"mode": "loud"}, "samples.jsonl:1 is not a sample: mode is 'loud'; delete"),
        ("samples", {"draw": "0"}, "samples.jsonl:1 is not a sample: draw is '0'"),
        ("clips", {"spoken_text": None}, "clips.jsonl:1 is not a clip: spoken_text is None; del"),
        ("clips", {"seconds": "1"}, "clips.jsonl:1 is not a clip: seconds is '1'"),
    ],
)
def test_a_broken_line_is_named(out, name, change, message):
    path = out / f"{name}.jsonl"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}) + "\n")
    with pytest.raises(UserError, match=message):
        read_run(out)


@pytest.mark.parametrize("text", ["[]", '{"name": "x"}', '{"name": 3, "outputs": {}}'])
def test_a_broken_file_of_another_system_is_named(out, text):
    (out / "system.0.json").write_text(text)
    with pytest.raises(UserError, match="system.0.json holds no system's answers"):
        read_run(out)


def test_a_run_that_did_not_end_is_not_read_as_one_that_did(out):
    prepare_folder(out, CONFIG, resume=False)
    with pytest.raises(UserError, match="holds a run that did not end: give its command again"):
        read_run(out)
