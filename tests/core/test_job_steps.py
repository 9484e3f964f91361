"""Steps of a long job are skipped when done, and go on after a failure."""

import json

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.core.job_steps import Step, run


def step(folder, *, code: str, product=True) -> Step:
    """A step whose command is a module of one line, run from `folder`."""
    (folder / "job.py").write_text(code)
    return Step(name="job", commands=(("job",),), product=folder / "out" if product else None)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


COUNT = "open('out', 'a').write('x')"


def test_a_step_whose_product_is_there_is_skipped(here):
    job, log = step(here, code=COUNT), here / "steps.json"
    first = run(job, log)
    assert run(job, log) == first > 0
    assert (here / "out").read_text() == "x"
    (here / "out").unlink()
    run(job, log)
    assert (here / "out").read_text() == "x"


def test_a_step_without_product_looks_at_its_own_output_each_time(here):
    job, log = step(here, code=COUNT, product=False), here / "steps.json"
    first = run(job, log)
    assert run(job, log) >= first
    assert (here / "out").read_text() == "xx"


def test_a_failed_step_keeps_its_seconds_and_runs_again(here):
    log = here / "steps.json"
    with pytest.raises(UserError, match="the step 'job' failed; its message is above"):
        run(step(here, code="raise SystemExit(2)"), log)
    spent = json.loads(log.read_text())["job"]
    assert spent["seconds"] > 0 and "commands" not in spent
    assert run(step(here, code=COUNT), log) > spent["seconds"]
