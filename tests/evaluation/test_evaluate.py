"""The command line from corpus to summary, with a listener in the model's place; its errors."""

import json

import pytest

import ltu_jax.model
from ltu_jax import evaluate
from ltu_jax.core import errors
from ltu_jax.core.files import write_json

ROWS = {"sound", "spoken_text", "spoken_text_vs_whisper", "gender", "joint_questions"}


@pytest.fixture
def weights(tmp_path):
    write_json(tmp_path / "weights" / "config.json", {"kind": "ltu-as", "sha256": {}})
    return tmp_path / "weights"


@pytest.fixture
def command(corpus, weights, tmp_path, listener, monkeypatch):
    """Run the command; returns the listener that was loaded, if any."""

    def run(*more: str):
        loaded = []

        def load(path, *, whisper, llama):
            loaded.append(listener())
            return loaded[0]

        monkeypatch.setattr(ltu_jax.model, "load", load)
        evaluate.main(
            [
                *("--checkpoint", str(weights), "--data", str(corpus)),
                *("--out", str(tmp_path / "out"), *more),
            ]
        )
        return loaded[0] if loaded else None

    return run


def test_everything_is_written_and_a_second_run_needs_no_model(command, tmp_path, capsys):
    summary = tmp_path / "summary.json"
    write_json(summary, {"seconds": {"train": 3.0}})
    assert command("--summary", str(summary)) is not None
    printed = capsys.readouterr().out
    for name in ("samples.jsonl", "metrics.json", "results.txt", "results.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    result = json.loads(summary.read_text())
    assert result["seconds"] == {"train": 3.0}
    assert set(result["tasks"]) == ROWS
    for task in result["tasks"].values():
        assert set(task) == {"chance", "joint", "audio", "text", "shuffled", "silence"}
        assert set(task["joint"]) == {"value", "low", "high", "n"}
    assert result["tasks"]["sound"]["joint"]["value"] == 1.0
    assert "1.00 [1.00, 1.00]" in printed
    assert "48 items x 5 modes = 240 answers" in printed
    assert "computed/s" in printed
    assert (tmp_path / "out" / "results.txt").read_text().strip() in printed

    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["whisper_transcript"]["value"] == 0.0
    assert metrics["tasks"]["sound"]["silence"]["unparsed"] == 12
    assert command("--summary", str(summary)) is None
    assert "all there already" in capsys.readouterr().out
    assert json.loads(summary.read_text()) == result


def test_another_checkpoint_starts_afresh(command, weights, capsys):
    command("--modes", "joint")
    write_json(weights / "config.json", {"kind": "ltu-as", "sha256": {"params": "1"}})
    assert command("--modes", "joint") is not None
    assert "starting afresh" in capsys.readouterr().out


def test_modes_and_limit(command, tmp_path):
    command("--modes", "silence,joint", "--limit", "5")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert set(metrics["tasks"]["sound"]) == {"metric", "chance", "joint", "silence"}
    assert metrics["tasks"]["sound"]["joint"]["n"] == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--modes", "joint,loud"), "--modes: unknown 'loud'; known: joint, audio"),
        (("--benchmarks", "mmau"), "unknown benchmark 'mmau'; known: mini"),
        (("--limit", "0"), "--limit 0: give at least 1"),
        (("--batch-size", "-1"), "--batch-size -1: give at least 1"),
        (("--data", "nowhere"), "nowhere/clips.jsonl does not exist: build the corpus first"),
        (("--split", "val"), "val_items.jsonl does not exist"),
        (("--checkpoint", "nowhere"), "nowhere does not exist"),
        (("--whisper", "nowhere"), "--whisper nowhere has no config.json"),
    ],
)
def test_bad_input_is_one_clear_line(command, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        errors.main(lambda: command(*arguments))
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
