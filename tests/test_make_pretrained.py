"""The job that makes the package's model: its steps, and where each reads what another wrote."""

import tomllib

from ltu_jax import make_pretrained
from ltu_jax.make_pretrained import JobFolders


def folders(folder):
    return JobFolders(
        assets=folder / "assets", data=folder / "da ta", run=folder / "run", out=folder / "out"
    )


def test_each_step_reads_what_one_before_it_wrote(tmp_path):
    given = folders(tmp_path)
    steps = {step.name: step.commands for step in make_pretrained.steps(given, sentences=7)}
    assert list(steps) == [
        *("weights", "recordings", "voices", "windows", "questions", "records", "train"),
        *("evaluate", "ship"),
    ]
    written = set()
    for commands in steps.values():
        for command in commands:
            options = dict(zip(command, command[1:], strict=False))
            read = {"--recordings", "--speech", "--corpus", "--questions", "--data"} & set(command)
            assert {options[name] for name in read} <= written, command
            written |= {options[name] for name in ("--out",) if name in command}
    (train,) = steps["train"]
    assert f"--config.records={given.data / 'real_records'}" in train
    (ship,) = steps["ship"]
    assert ship[ship.index("--run") + 1] == str(given.run / "stage3")
    assert "--ships-only" in steps["windows"][0]  # weights are given away


def test_the_windows_are_the_source_of_the_questions(tmp_path):
    given = folders(tmp_path)
    make_pretrained.write_sources(given)
    listed = tomllib.loads(given.sources.read_text())
    folder = str(given.data / "real")
    assert listed == {"real_windows": {"metadata": folder, "audio": folder}}
