"""Every hostile file is refused by name, at once, in little memory, and none of its code runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_files
import pytest

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 2.0  # of processor time, for one file
MEGABYTES = 500
# What `info` reads of these (names and shapes of the tensors) is in order; only importing notices.
SOUND_TO_INFO = {"gguf": "gguf_", "hf-whisper": "whisper_", "orbax": "checkpoint_base"}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/weights/hostile_worker.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    # nothing is left on the terminal of a process that met all of them
    assert "Traceback" not in done.stderr
    return {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}


def test_there_are_many_and_each_has_its_own_name():
    names = [case.name for case in hostile_files.CORPUS]
    assert len(names) == len(set(names)) >= 140


def test_the_builders_can_also_build_what_is_in_order(tmp_path):
    """The corpus is refused for its lies, not because everything built this way is refused."""
    from ltu_jax.convert import import_weights
    from ltu_jax.weights.files import torch_file

    found = torch_file.read_torch(hostile_files.harmless(tmp_path / "harmless.bin"))
    assert {name: tensor.read().shape for name, tensor in found.items()} == {"w": (4, 4)}
    for name, build in (("hf-llama", hostile_files.hf_llama), ("gguf", hostile_files.gguf_llama)):
        (tmp_path / name).mkdir()
        import_weights(name, weights=[build(tmp_path / name)], out=tmp_path / "out" / name)


def test_table(results, capsys):
    with capsys.disabled():
        print(f"\n\n{'file':<44}{'offered as':<16}{'verdict':<9}  message")
        for case in hostile_files.CORPUS:
            found = results[case.name]
            told = found["import"]["message"].replace(found["given"], "PATH")
            told = told if len(told) <= 150 else f"{told[:147]}..."
            print(f"{case.name:<44}{case.offered_as:<16}{found['import']['verdict']:<9}  {told}")
        refused = sum(found["import"]["verdict"] == "refused" for found in results.values())
        print(f"{refused} of {len(results)} refused")
    assert set(results) == {case.name for case in hostile_files.CORPUS}


@pytest.mark.parametrize("case", hostile_files.CORPUS, ids=lambda case: case.name)
def test_it_is_refused_by_name(results, case):
    found = results[case.name]
    imported = found["import"]
    assert imported["verdict"] == "refused", imported["message"]
    assert found["given"] in imported["message"] or case.name == "adapter_base_leads_out"
    assert case.says in imported["message"]
    assert len(imported["message"]) < 1000
    assert found["left"] == []  # neither output nor what its code would have made
    assert imported["seconds"] < SECONDS and imported["megabytes"] < MEGABYTES


@pytest.mark.parametrize("case", hostile_files.CORPUS, ids=lambda case: case.name)
def test_info_says_what_is_wrong(results, case):
    told = results[case.name]["info"]
    assert told["verdict"] == "done", told["message"]
    rows = [line.split(None, 1) for line in told["message"].splitlines()]
    names = [row[0] for row in rows]
    assert names[:2] == ["path", "format"]
    sound = SOUND_TO_INFO.get(case.offered_as)
    assert "problem" in names or (sound is not None and case.name.startswith(sound))
    assert told["seconds"] < SECONDS and told["megabytes"] < MEGABYTES
