"""Paths that people give: of a bucket where a thing can be there, refused by name elsewhere."""

import argparse
from pathlib import Path

import pytest
from etils import epath

from configs import stage3
from data_pipelines import build_mini, token_lengths, write_records
from data_pipelines.doctor import __main__ as doctor
from ltu_jax import ask, evaluate, plan
from ltu_jax.core import paths
from ltu_jax.core.errors import UserError
from ltu_jax.preprocessing.audio import load_audio
from ltu_jax.train import resolve
from ltu_jax.training.stage_config import stage_settings

ADDRESS = "gs://some-bucket/a/b"


def test_local_paths_stay_what_they_were():
    """No local path becomes another class, whatever its name looks like."""
    for path in ("runs/a", "/runs/a", "a:b/c", "gs/b", "12:30/clip.wav", Path("x"), ""):
        assert type(paths.as_path(path)) is type(Path())
        assert paths.as_path(path) == paths.local_only(path, option="--x") == Path(path)


def test_an_address_keeps_both_slashes():
    """What is joined to a bucket's path is in the bucket, and is no `pathlib.Path`."""
    path = paths.as_path(ADDRESS)
    assert isinstance(path, epath.Path)
    assert str(path / "c") == f"{ADDRESS}/c"
    assert paths.is_remote(path / "c")
    assert not paths.is_remote("/gs/b")


@pytest.mark.parametrize(
    "wrong", ["s3://bucket/x", "https://host/x", "gs://", "gs:///", Path(ADDRESS)]
)
def test_an_address_of_nothing_known_is_refused(wrong):
    """Another scheme, no bucket, or an address that pathlib has spoiled."""
    with pytest.raises(UserError) as error:
        paths.as_path(wrong, option="--x")
    assert str(wrong) in str(error.value)


COMMANDS = {
    "ask AUDIO": lambda: ask.main([ADDRESS, "What?", "--checkpoint", "x"]),
    "evaluate --out": lambda: evaluate.main(["--benchmark", "mini", "--out", ADDRESS]),
    "plan --json": lambda: plan.main(["--slice", "v5e-16", "--json", ADDRESS]),
    "build_mini --out": lambda: build_mini.run(["--out", ADDRESS]),
    "write_records --out": lambda: write_records.command(["--json", "x.json", "--out", ADDRESS]),
    "token_lengths --records": lambda: token_lengths.command(
        ["--records", ADDRESS, "--tokenizer", "x"]
    ),
    "doctor DATA": lambda: doctor.command([ADDRESS]),
    "load_audio": lambda: load_audio(ADDRESS),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_cannot_be_remote_is_refused_by_name(name, capsys, tmp_path, monkeypatch):
    """One error has the address as it was given, and no folder called "gs:" appears."""
    monkeypatch.chdir(tmp_path)
    try:
        COMMANDS[name]()
    except UserError as error:
        said = str(error)
    except SystemExit as error:
        assert error.code == 2
        said = capsys.readouterr().err
    else:
        pytest.fail("it was taken")
    assert ADDRESS in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "key",
    ["run_dir", "init_from", "data.records", "weights.llama", "weights.tltr",
     "compute.compilation_cache"],
)  # fmt: skip
def test_train_takes_no_address_that_it_cannot_reach(key):
    """A path of the config is of a known kind, or refused with its key."""
    config = stage3.get_config("mini")
    with config.unlocked():
        config.update_from_flattened_dict({key: "s3://bucket/x"})
    (plain,) = resolve(config)
    with pytest.raises(UserError, match=key) as error:
        stage_settings(plain)
    assert "s3://bucket/x" in str(error.value)


def test_options_that_may_be_remote_pass():
    """An option of a bucket is no `pathlib.Path`, and a question is no path."""
    given = argparse.Namespace(out=paths.as_path(ADDRESS), audio=Path("x.wav"), question=ADDRESS)
    assert paths.local_arguments(given) is given
