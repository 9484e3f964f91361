"""The command line of `ltu_jax.convert`: usage, one-line errors, nothing half written."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ltu_jax import convert
from tests.support.tiny_stage import processes

GOLDEN = Path(__file__).resolve().parent / "golden" / "ltu_as_tiny_a"


def _run(*arguments) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        convert.main([str(argument) for argument in arguments])
    return caught.value.code, str(caught.value)


def test_help_shows_both_ways():
    done = subprocess.run(
        [sys.executable, "-m", "ltu_jax.convert", "--help"],
        capture_output=True, text=True, check=True,
        cwd=Path(convert.__file__).resolve().parent.parent,
    )  # fmt: skip
    for name in (*convert.FORMATS, "--to ltu-as", "--to hf", "--llama", "--checkpoint", "export"):
        assert name in done.stdout


def test_there_and_back(tmp_path, capsys):
    from safetensors.numpy import load_file

    config = tmp_path / "config.json"
    config.write_text('{"num_attention_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000}')
    weights = GOLDEN / "weights.safetensors"
    ours, back = tmp_path / "ours", tmp_path / "back.safetensors"
    code, _ = _run(
        "--from", "ltu-as", "--weights", weights, "--llama", config, "--out", ours,
        "--audio-layers", 6,
    )  # fmt: skip
    shown = capsys.readouterr().out
    assert code == 0 and "255,360 in 48 arrays, float32" in shown and "sha256" in shown
    code, _ = _run("--to", "ltu-as", "--checkpoint", ours, "--out", back)
    assert code == 0 and "tensors" in capsys.readouterr().out
    first, second = load_file(weights), load_file(back)
    assert {n: a.tobytes() for n, a in first.items()} == {n: a.tobytes() for n, a in second.items()}
    names = ("--adapter-only", "--lora-names", "peft")
    _run("--to", "ltu-as", "--checkpoint", ours, "--out", tmp_path / "part.safetensors", *names)
    short = {name.replace(".default.", ".") for name in first if "lora" in name or "audio" in name}
    assert set(load_file(tmp_path / "part.safetensors")) == short
    assert _run("--to", "hf", "--checkpoint", ours, "--out", tmp_path / "hf", "--dtype", "float16")
    assert load_file(tmp_path / "hf" / "model.safetensors")["lm_head.weight"].dtype == "float16"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "gguf"], "--from needs --weights"),
        (["--from", "gguf", "--weights", "x", "--checkpoint", "y"], "--checkpoint has no meaning"),
        (["--to", "hf", "--checkpoint", "x", "--weights", "y"], "--weights has no meaning"),
        (["--from", "gguf", "--weights", "a", "b"], "takes one --weights path, got 2"),
        (["--from", "ltu-as", "--weights", "x"], "x: unknown weight file suffix"),
        (["--from", "gguf", "--weights", "x", "--llama", "y"], "does not take --llama"),
        (["--from", "gguf", "--weights", "none.gguf"], "none.gguf does not exist"),
        (["--from", "hf-llama", "--weights", "none"], "none is not a Hugging Face directory"),
        (["--from", "hf-whisper", "--weights", "none"], "config.json does not exist"),
        (["--from", "ct2-whisper", "--weights", "none"], "no CTranslate2 model.bin there"),
        (
            ["--from", "ltu-as", "--weights", GOLDEN / "weights.safetensors", "--llama", "none"],
            "--llama none does not exist",
        ),
        (["--to", "hf", "--checkpoint", "none"], "none does not exist"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, capsys):
    code, _ = _run(*arguments, "--out", tmp_path / "out")
    error = capsys.readouterr().err.strip()
    assert code == 2 and error.startswith("error: ") and "\n" not in error
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_wrong_hash_stops_the_import(tmp_path, capsys):
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGUF")
    code, _ = _run(
        "--from", "gguf", "--weights", file, "--sha256", "0" * 64, "--out", tmp_path / "out"
    )
    assert code == 2 and "is damaged: its sha256 is" in capsys.readouterr().err


def test_a_truncated_download_stops_the_import(tmp_path, capsys):
    content = (GOLDEN / "weights.safetensors").read_bytes()
    file = tmp_path / "w.safetensors"
    file.write_bytes(content[: len(content) // 2])
    (tmp_path / "c.json").write_text("{}")
    code, _ = _run(
        "--from", "ltu-as", "--weights", file, "--llama", tmp_path / "c.json",
        "--out", tmp_path / "out",
    )  # fmt: skip
    error = capsys.readouterr().err
    assert code == 2 and "is damaged" in error and "interrupted download" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "w.safetensors"]


@pytest.mark.parametrize(
    ("out", "message"),
    [("x.npz", "give .safetensors, .bin or a directory"), ("taken.safetensors", "is a directory")],
)
def test_where_an_export_cannot_go(tmp_path, capsys, out, message):
    (tmp_path / "taken.safetensors").mkdir()
    (tmp_path / "c.json").write_text(
        '{"num_attention_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000}'
    )
    _run(
        "--from", "ltu-as", "--weights", GOLDEN / "weights.safetensors", "--audio-layers", 6,
        "--llama", tmp_path / "c.json", "--out", tmp_path / "ours",
    )  # fmt: skip
    code, _ = _run("--to", "ltu-as", "--checkpoint", tmp_path / "ours", "--out", tmp_path / out)
    assert code == 2 and message in capsys.readouterr().err


KILLED = """
import os, signal, sys
from ltu_jax.core import files
# the last act of every conversion is a rename; die where it would begin
def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
files.os.rename = files.os.replace = die
from ltu_jax import convert
convert.main(sys.argv[1:])
"""


def test_a_killed_conversion_leaves_nothing_that_looks_complete(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"num_attention_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000}')
    ours = tmp_path / "ours"
    bring = (
        "--from", "ltu-as", "--weights", GOLDEN / "weights.safetensors", "--llama", config,
        "--audio-layers", 6, "--out", ours,
    )  # fmt: skip
    export = ("--checkpoint", ours, "--out")
    take = [
        ("--to", "ltu-as", *export, tmp_path / "back.safetensors"),
        ("--to", "ltu-as", *export, tmp_path / "back.bin"),
        ("--to", "hf", *export, tmp_path / "hf"),
        ("--to", "peft", "--base-name", "x", *export, tmp_path / "peft"),
    ]
    for command in (bring, *take):
        out = command[-1]
        (killed,) = processes(["-c", KILLED, *map(str, command)], devices=1)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not out.exists()
        code, _ = _run(*command)
        assert code == 0 and out.exists()


def test_an_option_of_another_format_is_refused(tmp_path, capsys):
    for arguments, message in (
        (
            ["--from", "gguf", "--weights", "x", "--labels", "y"],
            "gguf does not take --labels",
        ),
        (["--from", "gguf", "--weights", "x", "--whisper", "y"], "--whisper has no meaning with"),
        (["--to", "peft", "--checkpoint", "x", "--verify"], "--verify of an export is for --to hf"),
    ):
        code, _ = _run(*arguments, "--out", tmp_path / "out")
        assert code == 2 and message in capsys.readouterr().err


def test_info_and_rounding_are_told(tmp_path, capsys):
    config = tmp_path / "config.json"
    config.write_text('{"num_attention_heads": 4, "rms_norm_eps": 1e-6, "rope_theta": 10000}')
    weights = GOLDEN / "weights.safetensors"
    _run(
        "--from", "ltu-as", "--weights", weights, "--llama", config, "--audio-layers", 6,
        "--dtype", "bfloat16", "--out", tmp_path / "ours",
    )  # fmt: skip
    assert "48 tensors rounded from float32 to bfloat16" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        convert.main(["info", str(weights)])
    assert caught.value.code == 0
    assert "LTU-AS" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        convert.main(["info", str(tmp_path / "none")])
    assert "does not exist" in "".join(capsys.readouterr())
