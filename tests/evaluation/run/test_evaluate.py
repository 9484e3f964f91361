"""The command line from corpus to summary, with a listener in the model's place; its errors."""

import errno
import json
import os
import shutil

import pytest

import ltu_jax.inference
from ltu_jax import evaluate
from ltu_jax.core import errors
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.evaluation.run import answers

pytestmark = pytest.mark.usefixtures("few_resamples", "undrawn")

ROWS = {"sound", "spoken_text", "spoken_text_vs_whisper", "gender", "joint_questions"}
FILES = (
    *("config.json", "items.jsonl", "clips.jsonl", "samples.jsonl", "metrics.json"),
    *("results.txt", "results.png", "report.html"),
)


@pytest.fixture
def weights(tmp_path):
    write_json(tmp_path / "weights" / "config.json", {"kind": "ltu-as", "sha256": {}})
    return tmp_path / "weights"


@pytest.fixture
def command(corpus, weights, tmp_path, listener, monkeypatch):
    """Run the command; returns the listener that was loaded, if any."""
    monkeypatch.chdir(tmp_path)

    def run(*more: str, answer=None):
        loaded = []

        def load(path, *, whisper, llama, dtype, mesh):
            loaded.append(listener())
            loaded[0].answer = answer
            return loaded[0]

        monkeypatch.setattr(ltu_jax.inference, "load", load)
        data = () if "--jsonl" in more else ("--data", str(corpus))
        run.status = evaluate.main(
            [
                *("--checkpoint", str(weights), "--decodings", "greedy", *data),
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
    for name in FILES:
        assert (tmp_path / "out" / name).stat().st_size > 0
    result = json.loads(summary.read_text())
    assert result["seconds"] == {"train": 3.0}
    assert set(result["tasks"]) == ROWS
    for task in result["tasks"].values():
        assert set(task) == {"chance", "joint", "audio", "text", "shuffled", "silence"}
        assert set(task["joint"]) == {"value", "low", "high", "n"}
    assert result["tasks"]["sound"]["joint"]["value"] == 1.0
    assert "48 items, 240 answers" in printed
    assert "answers/s" in printed
    assert (tmp_path / "out" / "results.txt").read_text().strip() in printed

    kept = {name: (tmp_path / "out" / name).read_bytes() for name in FILES}
    assert command("--summary", str(summary)) is None
    assert "all there already" in capsys.readouterr().out
    assert json.loads(summary.read_text()) == result
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == kept


def test_another_checkpoint_starts_afresh(command, weights, capsys):
    command("--modes", "joint")
    write_json(weights / "config.json", {"kind": "ltu-as", "sha256": {"params": "1"}})
    assert command("--modes", "joint") is not None
    assert "starting afresh" in capsys.readouterr().out


def test_modes_and_limit(command, tmp_path):
    command("--modes", "silence,joint", "--limit", "5")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["modes"] == ["joint", "silence"]
    figures = metrics["rows"]["sound"]["figures"]
    assert {figure["mode"] for figure in figures if figure["system"] == "model"} == {
        "joint",
        "silence",
    }
    assert metrics["rows"]["sound"]["n"] == 5


def test_your_own_questions(command, corpus, tmp_path, capsys):
    own = corpus / "mine.jsonl"
    lines = [
        {
            "audio": f"audio/test/clip{index:02d}.flac",
            "question": "What do you hear?",
            "answer": ("dog", "cat")[index % 2],
            "task": "classification",
            "labels": ["dog", "cat"],
        }
        for index in (0, 1, 4, 5)
    ]
    own.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = command("--jsonl", str(own))
    assert model.transcribed == 4
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["benchmark"] == "jsonl"
    assert metrics["rows"]["classification"]["n"] == 4


def test_check_lists_what_is_missing_and_says_so_by_its_status(command, corpus, capsys):
    assert command("--check") is None
    assert command.status == 0
    assert "12 clips, 0 of them missing or broken" in capsys.readouterr().out
    (corpus / "audio" / "test" / "clip03.flac").unlink()
    command("--check")
    assert command.status == 1
    assert "clip03.flac: no such file" in capsys.readouterr().out


def test_finished_runs_are_scored_compared_and_reported_again(command, tmp_path, capsys):
    out = tmp_path / "out"
    command("--modes", "joint,text")
    (out / "results.txt").unlink()
    assert evaluate.main(["rescore", str(out)]) == 0
    assert (out / "results.txt").is_file()
    assert evaluate.main(["compare", str(out), str(out), "--out", str(tmp_path / "d.json")]) == 0
    assert "sound" in capsys.readouterr().out
    differences = json.loads((tmp_path / "d.json").read_text())["differences"]
    assert {one["difference"] for one in differences} == {0.0}
    page = tmp_path / "both.html"
    assert evaluate.main(["report", str(out), str(out), "--out", str(page)]) == 0
    assert "ESC-50" in page.read_text()  # the published table


def test_the_path_of_the_checkpoint_is_not_what_tells_it_from_others(command, weights, capsys):
    command("--modes", "joint")
    there = os.path.relpath(weights)
    assert command("--modes", "joint", "--checkpoint", there) is None
    assert "all there already" in capsys.readouterr().out


def test_a_mode_or_decoding_given_twice_is_one(command, tmp_path):
    command("--modes", "text,joint,text", "--decodings", "sampling,greedy,greedy", "--limit", "2")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["modes"] == ["joint", "text"]
    assert metrics["config"]["decodings"] == ["greedy", "sampling"]
    figures = metrics["rows"]["gender"]["figures"]
    keys = [
        tuple(one[k] for k in ("metric", "rule", "system", "mode", "decoding")) for one in figures
    ]
    assert len(keys) == len(set(keys))


def test_predictions_for_all_items_serve_a_limited_run(command, corpus, tmp_path):
    other, lines = tmp_path / "other.jsonl", []
    for line in (corpus / "test_items.jsonl").read_text().splitlines():
        item = json.loads(line)
        lines.append(json.dumps({"item_id": item["item_id"], "output": item["answer"]}) + "\n")
    other.write_text("".join(lines))
    command("--limit", "3", "--modes", "text", "--predictions", f"other={other}")
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]["sound"][
        "figures"
    ]
    found = next(one for one in figures if (one["system"], one["rule"]) == ("other", "strict"))
    assert (found["value"], found["n"], found["missing"]) == (1.0, 3, 0)


def test_broken_predictions_stop_the_run_before_the_model_is_loaded(command, tmp_path):
    (tmp_path / "other.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="field 'item_id' is None"):
        command("--predictions", f"other={tmp_path / 'other.jsonl'}")
    assert not list((tmp_path / "out").glob("*samples*"))


@pytest.fixture
def several(corpus, tmp_path):
    """Arguments for two benchmarks: the corpus, and an ESC-50 of it."""
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for index, name in ((0, "dog"), (1, "cat")):
        source = corpus / "audio" / "test" / f"clip{index:02d}.flac"
        place = tmp_path / "esc" / "audio" / f"1-{index}-A-{index}.flac"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place)
        lines.append(f"{place.name},1,{index},{name},False,{index},A")
    (tmp_path / "esc" / "meta").mkdir()
    (tmp_path / "esc" / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")
    data = f"mini={corpus},esc50={tmp_path / 'esc'}"
    return ("--benchmarks", "mini,esc50", "--data", data, "--modes", "joint", "--limit", "2")


def test_several_benchmarks_share_one_summary_and_one_page(command, several, tmp_path):
    summary = tmp_path / "summary.json"
    command(*several, "--summary", str(summary), answer=lambda *_: "a dog")
    assert set(json.loads(summary.read_text())["tasks"]) == ROWS | {"esc50"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "esc50, all split" in page and "mini, test split" in page


def test_several_benchmarks_are_resumed_where_a_kill_left_some_not_begun(
    command, several, tmp_path
):
    with pytest.raises(UserError, match="--resume: .* holds no evaluation"):
        command(*several, "--resume")
    command("--data", several[3].split(",")[0].removeprefix("mini="), "--out",
            str(tmp_path / "out" / "mini"), "--modes", "joint", "--limit", "2")  # fmt: skip
    model = command(*several, "--resume", answer=lambda *_: "a dog")
    assert model.transcribed == 2  # clips of ESC-50; the other's are known
    assert (tmp_path / "out" / "esc50" / "metrics.json").is_file()


def test_an_unfinished_run_is_neither_scored_nor_compared(command, tmp_path):
    out = tmp_path / "out"
    command("--modes", "text")
    write_json(out / "config.json", {**read_json(out / "config.json"), "finished": False})
    for line in (["rescore", str(out)], ["compare", str(out), str(out)]):
        with pytest.raises(UserError, match="out holds a run that did not end"):
            evaluate.main(line)


def test_a_full_or_forbidden_disk_is_one_clear_line(command, tmp_path, monkeypatch):
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"out exists and is a file; name a directory"):
        command()
    (tmp_path / "out").unlink()

    def full(file, record):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(answers.JsonlWriter, "append", full)
    with pytest.raises(UserError, match="No space left on device; make room"):
        command()


def test_a_row_of_which_nothing_can_be_computed_says_so_and_ends_well(
    command, corpus, tmp_path, monkeypatch
):
    own = corpus / "captions.jsonl"
    line = {
        "audio": "audio/test/clip00.flac",
        "question": "?",
        "answer": "A dog.",
        "task": "caption",
    }
    own.write_text(json.dumps(line) + "\n")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    command("--jsonl", str(own), "--modes", "joint", answer=lambda *_: "a dog")
    assert command.status == 0
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]["caption"]
    assert {one["value"] for one in figures["figures"]} == {None}
    assert "JAVA_HOME" in (tmp_path / "out" / "results.txt").read_text()
    assert not (tmp_path / "out" / "results.png").exists()


def test_pictures_of_an_earlier_run_do_not_stand_beside_new_figures(command, tmp_path):
    command("--limit", "3")
    assert (tmp_path / "out" / "grounding.png").is_file()
    command("--limit", "3", "--modes", "text")
    assert not [*(tmp_path / "out").glob("grounding.png"), *(tmp_path / "out").glob("confusion*")]


def test_config_tells_the_tools_of_the_scores_and_rescore_when_they_differ(
    command, tmp_path, capsys
):
    out = tmp_path / "out"
    command("--limit", "1", "--modes", "text", "--spice-jars", str(tmp_path))
    config = read_json(out / "config.json")
    assert config["tools"] == {"embedder": None, "judge": None, "spice_jars": str(tmp_path)}
    assert config == read_json(out / "metrics.json")["config"]
    evaluate.main(["rescore", str(out)])
    assert f"scored before with spice_jars {tmp_path}, now with none" in capsys.readouterr().out


def test_a_smaller_or_larger_limit_gives_what_a_fresh_run_gives(command, tmp_path):
    def rows(name, *more):
        command("--out", str(tmp_path / name), "--modes", "joint,text", *more)
        return read_json(tmp_path / name / "metrics.json")["rows"]

    three, whole = rows("three", "--limit", "3"), rows("whole")
    assert rows("changed", "--limit", "5")["sound"]["n"] == 5
    assert rows("changed", "--limit", "3") == three
    assert rows("changed") == whole
    assert not (tmp_path / "changed" / "old.1").exists()


def test_answers_of_another_system_may_be_anything(command, corpus, tmp_path):
    """NUL, half a surrogate pair, markup, a number of 5,000 digits, a megabyte."""
    items = [json.loads(one) for one in (corpus / "test_items.jsonl").read_text().splitlines()]
    nasty = ["\0", "\ud83d", "<script>alert(1)</script>", "9" * 5_000, ""]
    lines = [
        json.dumps({"item_id": item["item_id"], "output": nasty[place % len(nasty)]}) + "\n"
        for place, item in enumerate(items)
    ]
    lines[2] = json.dumps({"item_id": items[2]["item_id"], "output": "dog (" * 200_000}) + "\n"
    (tmp_path / "other.jsonl").write_text("".join(lines))
    command("--modes", "text", "--predictions", f"<b>$x^2$={tmp_path / 'other.jsonl'}")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>$x" not in page and "<script>" not in page


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--predictions", "a=x", "--predictions", "a=y"), "'a' is given twice"),
        (("--predictions", "model=x"), "'model' is the name of a line of ours"),
        (("--jsonl", "x", "--benchmarks", "mini"), "--jsonl is a benchmark of its own: leave --be"),
        (("--modes", "joint,loud"), "--modes: unknown 'loud'; known: joint, audio"),
        (("--decodings", "beam"), "--decodings: unknown 'beam'; known: greedy, sampling"),
        (("--benchmarks", "musan"), "unknown benchmark 'musan'; known: air_bench"),
        (("--benchmarks", "mini,esc50", "--data", "mini=x"), "--data has no folder for esc50"),
        (("--data", "mini="), "--data 'mini=': give NAME=PATH"),
        (("--predictions", "x"), "--predictions 'x': give NAME=PATH"),
        (("--limit", "0"), "--limit 0: give at least 1"),
        (("--batch-size", "-1"), "--batch-size -1: give at least 1"),
        (("--data", "nowhere"), "nowhere/clips.jsonl does not exist"),
        (("--split", "val"), "val_items.jsonl does not exist"),
        (("--checkpoint", "nowhere"), "nowhere does not exist"),
        (("--whisper", "nowhere"), "--whisper nowhere has no config.json"),
        (("--resume",), "--resume: "),
    ],
)
def test_bad_input_is_one_clear_line(command, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        errors.main(lambda: command(*arguments))
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert "error: " in printed
    assert message in printed
