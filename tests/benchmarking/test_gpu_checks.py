"""The checks for a GPU: their plan, what a failing or slow one costs, and how parts are joined."""

import dataclasses
import json

import psutil
import pytest

from benchmarks import certificate, generate, gpu_checks, joined, train_step
from benchmarks.model_sizes import SIZES
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json

PARSERS = {
    "certificate": certificate.command_line,
    "generate": generate.command_line,
    "train_step": train_step.command_line,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script(gpu_checks.Check):
    """A check that runs a shell script; --out is its "$1"."""

    code: str

    @property
    def command(self):
        return ["sh", "-c", self.code]


def script(name, code, *, seconds=60.0):
    return Script(name=name, benchmark="certificate", arguments=(), seconds=seconds, code=code)


@pytest.mark.parametrize("size", SIZES)
def test_every_benchmark_understands_its_check(size):
    for check in gpu_checks.checks(size):
        PARSERS[check.benchmark]().parse_args([*check.arguments, "--out", "x"])
    rows = [
        row
        for check in gpu_checks.checks(size)
        if check.benchmark == "train_step"
        for row in PARSERS["train_step"]().parse_args(check.arguments).rows
    ]
    assert len(rows) == len(set(rows))
    kinds = {joined.STEPS[row][0] for row in rows}
    assert kinds == {"torch", "jax", "jax int8"} | ({"jax cudnn"} if size == "7b" else set())


def test_a_check_that_fails_or_hangs_costs_its_own_result(tmp_path):
    started = tmp_path / "child"
    hang = f"sleep 600 & echo $! > {started}; wait"
    write = """echo '{"date": "d"}' > "$1/certificate_x.json" """
    planned = [
        script("breaks", "echo so far; echo no such thing >&2; exit 3"),
        script("hangs", hang, seconds=1.5),
        script("works", write),
    ]
    reports = []

    def report(outcomes, written):
        reports.append([outcome.status for outcome in outcomes])
        gpu_checks.write_results(outcomes, written, out=tmp_path, about={"size": "tiny"})

    gpu_checks.run_all(planned, out=tmp_path, seconds=300.0, report=report)
    assert reports[-1] == [gpu_checks.FAILED, gpu_checks.OUT_OF_TIME, gpu_checks.PASSED]
    assert [len(statuses) for statuses in reports] == [1, 2, 3]
    assert not psutil.pid_exists(int(started.read_text())) or (
        psutil.Process(int(started.read_text())).status() == psutil.STATUS_ZOMBIE
    )
    found = read_json(tmp_path / "on_gpu.json")
    assert found["checks"][0]["reason"] == "no such thing"
    assert found["files"] == {"certificate": "certificate_x.json"} and found["date"] == "d"
    assert read_json(tmp_path / "certificate_x.json") == {"date": "d"}
    log = (tmp_path / "on_gpu.log").read_text()
    assert "=== breaks" in log and "so far" in log


def test_what_no_time_is_left_for_is_not_begun(tmp_path):
    touch = f"touch {tmp_path / 'begun'}"
    planned = [script("first", touch, seconds=300.0), script("second", touch, seconds=300.0)]
    seen = []
    gpu_checks.run_all(planned, out=tmp_path, seconds=1.0, report=lambda *all: seen.append(all))
    assert [one.status for one in seen[-1][0]] == [gpu_checks.NOT_BEGUN] * 2
    assert not (tmp_path / "begun").exists()


def part(row, rate, *, losses):
    return {
        "tolerance": 1e-4,
        "losses": losses,
        "rows": [{"contender": row, "samples_per_second": rate}],
        "timings": {row: {}},
    }


def test_train_steps_of_several_processes_become_one_table():
    ours = part("ltu_jax grouped", 8.0, losses={"grouped": {"jax": 9.0001}})
    small = part("ltu_jax int8, grouped", 4.0, losses={"grouped": {"jax int8": 9.1}})
    theirs = part("PyTorch, random", 2.0, losses={"grouped": {"torch": 9.0}})
    found = joined.join_steps([ours, small, theirs])
    assert [row["contender"] for row in found["rows"]] == [
        "PyTorch, random",
        "ltu_jax grouped",
        "ltu_jax int8, grouped",
    ]
    assert [row["x fastest PyTorch"] for row in found["rows"]] == [1.0, 4.0, 2.0]
    assert found["losses"]["grouped"] == {"torch": 9.0, "jax": 9.0001, "jax int8": 9.1}
    assert joined.join_steps([ours])["rows"][0]["x fastest PyTorch"] is None
    wrong = part("ltu_jax grouped", 8.0, losses={"grouped": {"jax": 9.01}})
    with pytest.raises(UserError, match="torch 9.000000, jax 9.010000"):
        joined.join_steps([wrong, theirs])
    nothing = part("ltu_jax grouped", 8.0, losses={"grouped": {"jax": float("nan")}})
    with pytest.raises(UserError, match="jax nan"):
        joined.join_steps([nothing, theirs])


def test_decoding_of_several_processes_becomes_one_table():
    def part(name, rate, ids, *, dtype="bfloat16"):
        rows = [{"contender": name, "batch": 1, "tokens_per_second": rate}]
        return {"dtype": dtype, "rows": rows, "timings": {name: {}}, "ids": {"1": {name: ids}}}

    parts = [
        part("ltu_jax int8", 9.0, [[5, 6, 8, 8]]),
        part("ltu_jax", 6.0, [[5, 6, 7, 8]]),
        part("transformers", 3.0, [[5, 6, 0, 0]]),
    ]
    found = joined.without_ids(joined.join_decoding(parts))
    assert [row["x fastest PyTorch"] for row in found["rows"]] == [1.0, 2.0, 3.0]
    assert found["equal_ids"] == {"1": 0.5} and found["equal_ids_int8"] == {"1": 0.75}
    assert json.dumps(found)
    exact = [dict(one, dtype="float32") for one in parts]
    with pytest.raises(UserError, match="only 50% of the ids agree"):
        joined.join_decoding(exact)
    assert joined.without_ids(joined.join_decoding(exact[:1]))["equal_ids"] == {"1": None}
