"""Two processes of one host want the same copy, and the one that makes it is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CHILD = """
import sys
from ltu_jax.core import bucket_copies
bucket_copies._PIECE, bucket_copies._AHEAD = 5000, 1
make = bucket_copies._make
def told(*given, **how):
    print("copying", flush=True)
    make(*given, **how)
bucket_copies._make = told
print("begun", flush=True)
print(bucket_copies.local_copy(sys.argv[1], option="--weights"), flush=True)
"""


def start(address: str) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, address],
        stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert child.stdout.readline() == "begun\n"
    return child


def test_a_copying_that_is_killed_is_gone_on_with_by_who_waits(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    content = {"a.bin": os.urandom(12_000), "b.bin": os.urandom(2_000_000)}
    (tmp_path / "a").mkdir()
    for name, data in content.items():
        (tmp_path / "a" / name).write_bytes(data)
    address = bucket.take(tmp_path / "a", "a")
    bucket.delay = 0.05  # 20 s for b.bin
    killed = start(address)
    assert killed.stdout.readline() == "copying\n"
    waits = start(address)
    until = time.monotonic() + 30
    while not (whole := list(tmp_path.glob("cache/**/.part-*/a/a.bin"))):
        assert time.monotonic() < until
        time.sleep(0.01)
    before = whole[0].stat()
    killed.kill()
    assert killed.wait(30) == -signal.SIGKILL
    bucket.delay = 0.0
    told, _ = waits.communicate(timeout=60)
    assert waits.returncode == 0 and told.startswith("copying\n")
    copy = Path(told.splitlines()[-1])
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == content
    after = (copy / "a.bin").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # not again
    assert not list(tmp_path.glob("cache/**/*part*"))
    assert start(address).communicate(timeout=60)[0] == f"{copy}\n"  # and never again


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_killed_writing_to_a_bucket_leaves_no_gigabytes_here(bucket, tmp_path, kind):
    child = """
import os, sys
from ltu_jax.core import files, outputs
maker = outputs.Maker(name="`this test`", folder=sys.argv[2] == "folder")
made = files.atomic_dir if maker.folder else files.atomic_file
with made(sys.argv[1], maker) as path:
    (path / "a" if maker.folder else path).write_text("content")
    if sys.argv[3] == "kill":
        os.kill(os.getpid(), 9)
"""
    (tmp_path / "tmp").mkdir()
    for end, status in (("kill", -signal.SIGKILL), ("", 0)):
        done = subprocess.run(
            [sys.executable, "-c", child, "gs://test-bucket/out", kind, end],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": ".", "TMPDIR": str(tmp_path / "tmp")},
        )  # fmt: skip
        assert done.returncode == status
        assert bool(bucket.names()) == (status == 0)
    assert not list((tmp_path / "tmp").iterdir())
    assert bucket.content("out/a" if kind == "folder" else "out") == b"content"
