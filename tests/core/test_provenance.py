"""Where figures come from: the commit of this code, and of no other project around it."""

import subprocess

from ltu_jax.core.provenance import environment, git_state


def git(folder, *command):
    identity = ("-c", "user.name=n", "-c", "user.email=e@x")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *command], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_commit_and_whether_it_was_changed(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "code.py").write_text("1")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "m")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert git_state(tmp_path) == {"commit": head, "changed": False}
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path) == {"commit": head, "changed": True}


def test_a_copy_inside_another_project_has_no_commit(tmp_path):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "m")
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages") is None


def test_without_a_checkout_there_is_none(tmp_path):
    assert git_state(tmp_path) is None


def test_the_environment_tells_versions_and_devices():
    found = environment()
    assert found["devices"] >= 1 and found["processes"] == 1
    assert found["versions"]["jax"][0].isdigit()
