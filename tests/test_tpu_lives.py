"""tpu_scripts/ through whole lives of a slice: support/fake_gcloud.py, with real processes."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from ltu_jax import train
from tests.support.fake_gcloud import BUSY, Cloud, wait_for

ROOT = Path(__file__).resolve().parent.parent
STAGE = "stage3:v5e-16"
BUCKET = ("--bucket", "my-bucket")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The scripts as a repository of their own: setup.sh copies its last commit."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("tpu_scripts", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    author = ("-c", "user.name=t", "-c", "user.email=t@t")
    for command in (("init", "-q"), ("add", "-A"), (*author, "commit", "-qm", "all")):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with a terminal, a home, and one slice in the cloud."""

    checkout: Path
    home: Path
    cloud: Cloud
    env: dict[str, str]

    def start(self, script: str, *arguments: str) -> subprocess.Popen:
        command = [str(self.checkout / "tpu_scripts" / script), *arguments]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def call(self, script: str, *arguments: str, status: int = 0) -> str:
        running = self.start(script, *arguments)
        printed, _ = running.communicate(timeout=120)
        assert running.returncode == status, printed
        return printed

    def remembered(self, suffix: str) -> str:
        return (self.home / ".local/state/ltu_jax" / f"ltu-as.{suffix}").read_text()

    def starts(self) -> list[str]:
        """An x for every start of a trainer, of each host."""
        files = [host / "starts" for host in sorted(self.cloud.hosts.iterdir())]
        return [file.read_text() if file.exists() else "" for file in files]

    def step(self) -> int:
        """The step that training has come to."""
        for folder in (self.cloud.bucket, self.cloud.hosts / "0" / "ltu_jax"):
            if (folder / "runs" / "now").is_file():
                return int((folder / "runs" / "now").read_text() or 0)
        return 0

    def host(self, index: int = 0) -> Path:
        return self.cloud.hosts / str(index) / "ltu_jax"


@pytest.fixture
def user(checkout, tmp_path):
    cloud = Cloud(tmp_path / "cloud")
    tools, home = cloud.install(), tmp_path / "home"
    home.mkdir()
    quick = {name: "0.05" for name in ("TPU_POLL_SECONDS", "TPU_RETRY_SECONDS")}
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(home), "TPU_RETRIES": "3", **quick}
    yield User(checkout=checkout, home=home, cloud=cloud, env=env)
    cloud.kill()


@pytest.fixture
def trained(user) -> User:
    """The same with a slice that was set up, on which a long stage is running."""
    user.cloud.set(env={"STEPS": "100000"}, lives=[["ACTIVE"]])
    user.call("create.sh", "--wait")
    user.call("setup.sh")
    user.call("launch.sh", STAGE, "--detach")
    wait_for(lambda: user.step() > 1)
    return user


def test_a_spot_slice_is_preempted_and_comes_back_as_spot(user):
    """From the first command to the last: the same kind, type and bucket, from the saved step."""
    user.cloud.set(env={"STEPS": "100000"})
    asked = ("--spot", "--type", "v6e-16", "--zone", "us-east5-b")
    printed = user.call("create.sh", "--wait", *asked)
    assert "WAITING_FOR_RESOURCES" in printed and "PROVISIONING" in printed
    user.call("setup.sh", *BUCKET)
    user.call("launch.sh", STAGE, "--config.steps=9", "--detach")
    watching = user.start("watch.sh", "--resume")
    wait_for(lambda: user.step() > 5 and user.starts() == ["x", "x"])  # both hear SIGTERM
    seen = user.home / ".local/state/ltu_jax/ltu-as.log"
    wait_for(lambda: seen.is_file() and "checkpoints/4" in seen.read_text())
    user.cloud.set(env={})  # the next start comes to its end
    assert user.cloud.preempt() == [str(train.RESUME)] * 2  # each host saved
    saved = int((user.cloud.bucket / "runs" / "step").read_text())
    printed, _ = watching.communicate(timeout=120)
    assert watching.returncode == 0, printed
    first, second = user.cloud.calls("create")
    assert first == second and "--spot" in second.split() and "--zone=us-east5-b" in second.split()
    assert "--accelerator-type=v6e-16 --runtime-version=v2-alpha-tpuv6e" in second
    assert f"trained from step {saved} -m ltu_jax.train" in printed and saved > 5
    assert printed.count("--config.steps=9") >= 2 and "ltu-as: complete" in printed
    # An empty folder in place of the run would be an error now.
    first, *_, last = [line for line in printed.splitlines() if line.startswith("trained from")]
    must_exist = "--config.checkpoint.must_exist=True"
    assert must_exist not in first and must_exist in last
    assert {(host / "runs").resolve() for host in (user.host(0), user.host(1))} == {
        user.cloud.bucket / "runs"
    }


def test_what_was_asked_for_before_gives_way_to_what_is_said_now(user):
    user.call("create.sh", "--reserved")
    assert "kind=reserved" in user.remembered("slice")
    (user.home / ".local/state/ltu_jax/ltu-as.launch").write_text(f"{STAGE}\n")
    for given, kinds in ((), {"--reserved"}), (("--spot",), {"--spot"}), (("--on-demand",), set()):
        printed = user.call("resume.sh", "--dry-run", *given)
        (made,) = [line for line in printed.splitlines() if " create " in line]
        assert {"--spot", "--reserved"} & set(made.split()) == kinds


def test_launch_ends_with_the_status_of_the_stage(user):
    user.cloud.set(lives=[["ACTIVE"]])
    user.call("create.sh", "--wait")
    user.call("setup.sh", *BUCKET)
    for ends, status in (("0", 0), ("2", 2), ("1", 3)):  # gcloud itself ends with 1
        user.cloud.set(env={"ENDS": ends})
        printed = user.call("launch.sh", STAGE, "--config.run_dir=a b", status=status)
        assert "trained from step 0 -m ltu_jax.train --config=configs/stage3.py:v5e-16" in printed
        wait_for(lambda: not user.cloud.processes())
        (user.cloud.bucket / "runs" / "done").unlink()
    assert user.remembered("launch") == f"{STAGE} '--config.run_dir=a b'\n"


def test_a_launch_that_a_lost_connection_repeats_starts_nothing_twice(user):
    user.cloud.set(env={"STEPS": "100000"}, lives=[["ACTIVE"]])
    user.call("create.sh", "--wait")
    user.call("setup.sh")
    user.cloud.set(faults=[{"verb": "ssh", "times": 2, "late": True, "status": 255}])
    printed = user.call("launch.sh", STAGE, "--detach")
    assert len(user.cloud.calls("ssh")) == 1 + 3 and "was started before" in printed
    wait_for(lambda: user.starts() == ["x", "x"])
    printed = user.call("launch.sh", STAGE, "--detach", status=2)  # another launch is an error
    assert "a stage is running here" in printed and user.starts() == ["x", "x"]


def test_a_lost_connection_is_taken_up_again(trained):
    trained.cloud.set(env={})
    watching = trained.start("watch.sh")
    wait_for(lambda: trained.cloud.calls("ssh")[-1].endswith("follow"))
    wait_for(lambda: trained.cloud.runs("tail"))
    trained.cloud.cut()
    wait_for(lambda: len([1 for call in trained.cloud.calls("ssh") if "follow" in call]) == 2)
    (trained.host() / "runs" / "done").touch()
    printed, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0 and "connection lost (1 of 3)" in printed, printed
    assert len(trained.cloud.calls("create")) == 1


def test_stop_saves_on_every_host_and_does_nothing_where_nothing_runs(trained):
    printed = trained.call("stop.sh")
    assert printed.count("stopped with status 75") == 2
    assert trained.cloud.processes() == []
    assert trained.call("stop.sh").count("nothing is running here") == 2
    trained.call("watch.sh", status=75)
    trained.cloud.set(env={})
    (trained.host(1) / "runs").mkdir(exist_ok=True)
    (trained.host(1) / "runs" / "done").touch()
    printed = trained.call("resume.sh")
    saved = int((trained.host() / "runs" / "step").read_text())
    assert f"trained from step {saved} " in printed and "ltu-as: complete" in printed
    assert len(trained.cloud.calls("create")) == 1 and len(trained.cloud.calls("scp")) == 1


def test_a_stage_that_does_not_stop_is_killed(trained):
    (pid,) = [int((trained.host() / "launch" / "pid").read_text())]
    for other in trained.cloud.processes():
        os.kill(other, signal.SIGSTOP)  # it hears no signal but SIGKILL
    printed = trained.call("stop.sh", "--wait", "0")
    assert printed.count("stopped with status 137") == 2 and pid not in trained.cloud.processes()
    assert "137" in trained.call("watch.sh", status=137)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killing_the_wrapper_stops_the_trainer(trained, number):
    os.kill(int((trained.host() / "launch" / "pid").read_text()), number)
    wait_for(lambda: not trained.cloud.processes("0"))
    assert (trained.host() / "runs" / "step").is_file()  # it had the time to save
    trained.call("watch.sh", status=75 if number == signal.SIGTERM else 137)


def test_a_host_that_was_restarted_gets_its_mount_and_its_stage_again(user):
    user.cloud.set(env={"STEPS": "100000"}, lives=[["ACTIVE"]])
    user.call("create.sh", "--wait")
    user.call("setup.sh", *BUCKET)
    user.call("launch.sh", STAGE, "--detach")
    wait_for(lambda: user.step() > 1)
    user.cloud.kill()  # without notice
    for host in user.cloud.hosts.iterdir():
        (host / "bucket").unlink()
    user.cloud.boot()
    user.cloud.set(env={})
    user.call("watch.sh", status=143)
    printed = user.call("watch.sh", "--resume")
    assert "ltu-as: complete" in printed and user.starts() == ["xx", "xx"]
    assert [(host / "mounts").read_text() for host in user.cloud.hosts.iterdir()] == ["x\nx\n"] * 2
    assert len(user.cloud.calls("create")) == 1 and len(user.cloud.calls("scp")) == 1


def test_a_cloud_out_of_reach_is_asked_again_and_nothing_is_taken_to_be_gone(trained):
    trained.cloud.set(faults=[{"verb": "describe", "times": 2}])
    trained.cloud.set(env={"STEPS": "1"})
    assert "try 2 of 3" in trained.call("resume.sh")
    trained.cloud.set(faults=[{"verb": "describe", "times": 99}])
    printed = trained.call("resume.sh", status=1)
    assert "cannot tell how ltu-as" in printed and BUSY in printed
    trained.cloud.set(faults=[{"verb": "describe", "times": 1, "errors": "PERMISSION_DENIED"}])
    trained.call("resume.sh", status=1)  # is not asked again
    assert len(trained.cloud.calls("create")) == 1 and not trained.cloud.calls("delete")


@pytest.mark.parametrize(
    ("states", "deleted"),
    [
        (["DELETING", "DELETING", "GONE"], 0),
        (["SUSPENDING", "SUSPENDED"], 1),
        (["FAILED"], 1),
        (["PROVISIONING", "ACTIVE"], None),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_each_state_is_resumed_as_it_needs(user, states, deleted):
    user.cloud.give(states=tuple(states))
    (user.home / ".local/state/ltu_jax").mkdir(parents=True)
    (user.home / ".local/state/ltu_jax/ltu-as.launch").write_text(f"{STAGE}\n")
    printed = user.call("resume.sh", *BUCKET)
    assert "ltu-as: complete" in printed and "must_exist" not in printed  # nothing was seen
    assert len(user.cloud.calls("delete")) == (deleted or 0)
    assert len(user.cloud.calls("create")) == (0 if deleted is None else 1)


def test_a_request_that_fails_says_why_and_watch_asks_again(user):
    user.cloud.set(lives=[["WAITING_FOR_RESOURCES", "FAILED"]], why="no quota for spot")
    printed = user.call("create.sh", "--spot", "--wait", status=2)
    assert "FAILED (no quota for spot)" in printed
    (user.home / ".local/state/ltu_jax/ltu-as.launch").write_text(f"{STAGE}\n")
    user.cloud.set(lives=[["PROVISIONING", "FAILED"]])
    printed = user.call("watch.sh", "--resume", *BUCKET)
    assert "ltu-as: complete" in printed
    assert len(user.cloud.calls("create")) == 3 and len(user.cloud.calls("delete")) == 2


def test_a_creation_that_arrived_though_its_answer_was_lost(user):
    user.cloud.set(faults=[{"verb": "create", "times": 1, "late": True}])
    assert "asked for by an earlier try" in user.call("create.sh", "--spot", "--wait")
    assert "kind=spot" in user.remembered("slice")
    assert "ALREADY_EXISTS" in user.call("create.sh", status=1)  # what is there is not replaced


def test_giving_back_what_is_not_there_is_no_error(user):
    user.call("create.sh")
    user.cloud.set(states=["DELETING", "DELETING", "GONE"])
    assert "ltu-as is not there" in user.call("delete.sh")  # after a while
    user.call("create.sh")
    user.cloud.set(faults=[{"verb": "delete", "times": 1, "errors": "ERROR: PERMISSION_DENIED"}])
    assert "PERMISSION_DENIED" in user.call("delete.sh", status=1)


def test_resume_stops_at_the_first_refusal(user):
    user.cloud.give(states=("SUSPENDED",))
    (user.home / ".local/state/ltu_jax").mkdir(parents=True)
    (user.home / ".local/state/ltu_jax/ltu-as.launch").write_text(f"{STAGE}\n")
    refusal = {"verb": "delete", "times": 1, "errors": "ERROR: PERMISSION_DENIED", "status": 7}
    user.cloud.set(faults=[refusal])
    assert "PERMISSION_DENIED" in user.call("resume.sh", status=7)
    assert not user.cloud.calls("create") and not user.cloud.calls("ssh")


def test_a_slice_that_has_gone_is_said_to_be(trained):
    trained.cloud.set(node="PREEMPTED")
    printed = trained.call("watch.sh", status=255)
    assert "slice PREEMPTED" in printed
