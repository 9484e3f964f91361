"""Real commands at places where something lies: what is somebody else's stays, byte for byte."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from data_pipelines import build_mini, write_records
from data_pipelines.doctor import __main__ as doctor
from data_pipelines.mini import builder
from data_pipelines.records import record_files
from ltu_jax import convert, evaluate, plan, train
from ltu_jax.core import outputs
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.weights import store

GOLDEN = Path(__file__).resolve().parent / "golden" / "ltu_as_tiny_a"
THESIS = "years of work\n"


def _snapshot(folder: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def _convert(*arguments) -> None:
    """As the command line does; a UserError comes through."""
    convert.run(convert.parser().parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """A weights directory and what it was made of; read only."""
    folder = tmp_path_factory.mktemp("imported")
    settings = '{"num_attention_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000}'
    (folder / "config.json").write_text(settings)
    _import(folder, folder / "ours")
    return folder


def _import(folder, out, **changes):
    given = {"--weights": GOLDEN / "weights.safetensors", "--llama": folder / "config.json"}
    given |= {"--audio-layers": 6, "--out": out} | changes
    _convert("--from", "ltu-as", *(one for pair in given.items() for one in pair))


@pytest.fixture
def home(imported, tmp_path, monkeypatch) -> Path:
    """A person's folder, the working directory: weights of ours, a run, a thesis."""
    home = shutil.copytree(imported, tmp_path / "home")
    monkeypatch.chdir(home)
    checkpoint = home / "run" / "checkpoints" / "7"
    checkpoint.mkdir(parents=True)
    (checkpoint / "metadata.json").write_text("{}")
    (home / "work").mkdir()
    (home / "work" / "thesis.tex").write_text(THESIS)
    (home / "to run").symlink_to("run")
    (home / "to work").symlink_to("work")
    return home


TO = [("hf", ""), ("ltu-as", ""), ("peft", ""), ("ltu-as", ".safetensors"), ("ltu-as", ".bin"),
      ("openai-whisper", ".pt"), ("orbax", "")]  # fmt: skip


@pytest.mark.parametrize(("target", "suffix"), TO)
def test_an_export_replaces_neither_its_run_nor_anybodys_work(home, target, suffix):
    outs = ["run", "to run", "run/", "run/../run"]
    if target != "orbax":  # which adds to a folder; that of a run it refuses
        outs += [".", "..", "run/checkpoints", "run/checkpoints/7", "work", "to work", "work/."]
        outs += ["work/thesis.tex", "config.json"]
    if suffix:
        (home / f"mine{suffix}").write_text(THESIS)
        (home / f"folder{suffix}").mkdir()
        outs = [f"mine{suffix}", f"folder{suffix}"]
    before = _snapshot(home)
    for out in outs:
        with pytest.raises(UserError, match="--out|input") as caught:
            _convert("--to", target, "--checkpoint", "run", "--out", out)
        assert str(Path(out)) in str(caught.value)
        assert _snapshot(home) == before


def test_an_import_replaces_neither_its_sources_nor_anybodys_work(home):
    hf = home / "hf"
    hf.mkdir()
    (hf / "config.json").write_text("{}")
    (hf / "model.safetensors").write_bytes(b"weights")
    before = _snapshot(home)
    ways = [
        ("gguf", "work/thesis.tex"), ("hf-llama", "hf"), ("hf-whisper", "hf"), ("peft", "hf"),
        ("ct2-whisper", "hf"), ("openai-whisper", "work/thesis.tex"), ("orbax", "run"),
        ("whisper-at", "work/thesis.tex"), ("ltu-as", "hf/model.safetensors"),
    ]  # fmt: skip
    for source, weights in ways:
        for out in ("work", "to work", "hf", "hf/../hf", ".", "..", "run", "config.json"):
            more = ("--llama", "hf") if source == "ltu-as" else ()
            with pytest.raises(UserError, match="--out"):
                _convert("--from", source, "--weights", weights, "--out", out, *more)
            assert _snapshot(home) == before
    # of another kind, and what was added by hand
    with pytest.raises(UserError, match="made by .* of ltu-as weights, not by .* of llama"):
        _convert("--from", "hf-llama", "--weights", "hf", "--out", "ours")
    (home / "ours" / "notes.txt").write_text(THESIS)
    with pytest.raises(UserError, match=r"holds 'notes\.txt' besides"):
        _import(home, "ours")
    assert store.load_weights(home / "ours").kind == "ltu-as"


def test_each_export_and_import_replaces_its_own(home):
    (home / "disk").mkdir()
    (home / "linked").symlink_to("disk")
    (home / "ours" / outputs.MARKER).unlink()  # as versions before left it
    for _ in range(2):
        _import(home, "ours")
    outs = [("hf", "hf"), ("ltu-as", "dir"), ("ltu-as", "a.safetensors"), ("ltu-as", "a.bin")]
    outs += [("hf", "linked")]
    for target, out in outs:
        for _ in range(2):
            _convert("--to", target, "--checkpoint", "ours", "--out", out)
    assert (home / "linked").is_symlink() and (home / "disk" / "model.safetensors").is_file()
    with pytest.raises(UserError, match="made by .*--to hf.*, not by .*--to ltu-as"):
        _convert("--to", "ltu-as", "--checkpoint", "ours", "--out", "hf")
    (home / "hf" / outputs.MARKER).unlink()  # nobody can tell whose it is
    with pytest.raises(UserError, match="not made by .*--to hf"):
        _convert("--to", "hf", "--checkpoint", "ours", "--out", "hf")
    (home / "dir" / outputs.MARKER).unlink()
    _convert("--to", "ltu-as", "--checkpoint", "ours", "--out", "dir")
    assert not list(home.glob(".tmp-*"))


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """A person's rows and clips; the working directory is around them."""
    own = tmp_path / "own"
    (own / "clips").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(3):
        noise = np.random.default_rng(number).normal(scale=0.1, size=8000)
        soundfile.write(own / "clips" / f"{number}.wav", noise, 16_000)
        rows.append(
            {"instruction": "What?", "input": "", "audio_id": f"{number}.wav", "dataset": "mine",
             "task": "cla_sound", "output": f"Noise {number}."}
        )  # fmt: skip
    (own / "mine.json").write_text(json.dumps(rows))
    return own


GIVEN = ("--json", "own/mine.json", "--audio-root", "own/clips")


def test_records_replace_neither_clips_nor_anything_else(own, tmp_path):
    (tmp_path / "link").symlink_to("own")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text(THESIS)
    before = _snapshot(tmp_path)
    for out in ("own", "own/clips", "link", "link/clips", ".", "..", "work", "own/mine.json"):
        for more in ((), ("--force",)):
            with pytest.raises(UserError, match="--out"):
                write_records.command([*GIVEN, "--out", out, *more])
            assert _snapshot(tmp_path) == before
    # clips that only the rows lead to, in a folder that could be replaced otherwise
    rows = json.loads((own / "mine.json").read_text())
    for row in rows:
        row["audio_id"] = str(own / "clips" / row["audio_id"])
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    listed = [f"clips/{number}.wav" for number in range(3)] + ["mine.json"]
    write_json(own / outputs.MARKER, outputs.signature(record_files.MAKER, listed))
    with pytest.raises(UserError, match="around the input .*clips"):
        write_records.command(["--json", "rows.json", "--out", "own"])
    assert len(list(own.glob("clips/*.wav"))) == 3


def test_the_mini_corpus_takes_and_deletes_nothing_of_anybody(own, tmp_path):
    (own / "audio").mkdir()
    (own / "audio" / "mine.flac").write_text(THESIS)
    builder.build_audio(own, entries=(), cache=tmp_path)  # of a plan without clips
    assert (own / "audio" / "mine.flac").read_text() == THESIS
    shutil.rmtree(own / "work")
    (own / "clips.jsonl").write_text(THESIS)
    for out, inputs in (("own", "weights"), ("weights", "weights"), ("own/clips.jsonl", "weights")):
        (tmp_path / "weights").mkdir(exist_ok=True)
        before = _snapshot(tmp_path)
        with pytest.raises(UserError, match="--out"):
            build_mini.run(["--out", out, "--whisper", inputs, "--packages", "none"])
        assert _snapshot(tmp_path) == before


def test_a_record_of_the_mini_corpus_cannot_delete_elsewhere(own, tmp_path):
    entry = next(iter(builder.clip_plan.make_plan(builder.clip_plan.SIZES["mini"], seed=0)))
    entry = {**dataclasses.asdict(entry), "split": "../..", "clip_id": "victim"}
    victim = tmp_path / "victim.flac"
    victim.write_text(THESIS)
    builder.build_audio(own / "new", entries=(), cache=tmp_path)
    file = own / "new" / builder.SYNTHESIS
    file.write_text(json.dumps({"format": 0, "entry": entry, "sha256": ""}) + "\n")
    with pytest.raises(UserError, match="victim"):
        builder.build_audio(own / "new", entries=(), cache=tmp_path)
    assert victim.read_text() == THESIS


def test_reports_replace_reports_alone(own, tmp_path):
    for name in ("notes.json", "notes.html", "empty.json"):
        (tmp_path / name).write_text({"empty.json": ""}.get(name, '{"notes": 1}'))
    before = _snapshot(tmp_path)
    for option, out in (
        ("--json", "notes.json"), ("--html", "notes.html"), ("--json", "own/mine.json"),
        ("--html", "own/clips"), ("--json", "own/mine.json/x"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=option):
            doctor.command([*GIVEN[1:], option, out])
        assert _snapshot(tmp_path) == before
    for _ in range(2):
        doctor.command([*GIVEN[1:], "--json", "empty.json", "--html", "report.html"])
    assert json.loads((tmp_path / "empty.json").read_text())["clips"] == 3
    (tmp_path / "plan.json").write_text('{"my": "plan"}')
    with pytest.raises(UserError, match="--json"):
        plan.main(["--config=configs/stage3.py", "--gpu", "h200", "--json", "plan.json"])
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match=r"notes\.html"):
        evaluate.main(["report", "a", "--out", "notes.html"])
    with pytest.raises(UserError, match=r"notes\.json"):
        evaluate.main(["compare", "a", "a", "--out", "notes.json"])
    assert (tmp_path / "notes.html").read_bytes() == before["notes.html"]


def test_training_writes_into_no_folder_with_files_of_its_names(tmp_path):
    for name, content in (("log.jsonl", THESIS), ("checkpoints/5/theirs", THESIS)):
        run_dir = tmp_path / name.replace("/", "-")
        (run_dir / name).parent.mkdir(parents=True)
        (run_dir / name).write_text(content.rstrip("\n"))
        before = _snapshot(tmp_path)
        with pytest.raises(UserError, match=r"config\.run_dir .* holds"):
            train.main(["--config=configs/stage3.py:mini", f"--config.run_dir={run_dir}"])
        assert _snapshot(tmp_path) == before
