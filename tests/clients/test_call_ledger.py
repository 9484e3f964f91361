"""The ledger: what was sent, what it cost, and that nothing is lost or taken for something else."""

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ltu_jax.clients.call_ledger import open_ledger
from ltu_jax.clients.chat import ChatReply, CompletionRequest
from ltu_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
REPLY = ChatReply(content="caf\u00e9 \ud83d", finish_reason="stop", prompt_tokens=3)


def request(text="hello", **changes):
    values = {"prompt": "p 1", "model": "m", "parameters": {"seed": 1}, "most_tokens": 9}
    return CompletionRequest(**values | {"messages": (("user", text),)} | changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "replies.sqlite"


def test_a_call_is_known_by_how_it_ended(path):
    with open_ledger(path, send=True) as ledger:
        one, two, three = request("1"), request("2"), request("3")
        assert ledger.look_up([one.key])[one.key].answer is None
        calls = [ledger.reserve(one, 100), ledger.reserve(two, 200), ledger.reserve(two, 200)]
        assert (ledger.committed, ledger.cost) == (500, 0)
        ledger.settle(calls[0], state="answered", cost=40, reply=REPLY)
        ledger.settle(calls[1], state="refused", cost=50, reason="empty", reply=REPLY)
        ledger.settle(calls[2], state="failed", cost=0, reason="busy")
        ledger.reserve_batch("b.jsonl", [(three, 7)])
        assert (ledger.committed, ledger.cost) == (97, 90)
    with open_ledger(path, send=False) as ledger:
        found = ledger.look_up([one.key, two.key, three.key])
        assert found[one.key].answer == REPLY
        assert (found[two.key].answer, found[two.key].refused) == (None, 1)
        assert found[two.key].reason == "empty"
        assert found[three.key].batch == "b.jsonl"
        assert (ledger.committed, ledger.cost) == (97, 90)
        assert ledger.open_batches() == {"b.jsonl": 1}
        assert ledger.calls_by_state() == {"answered": 1, "batched": 1, "failed": 1, "refused": 1}
        assert ledger.asked(two.key) == {"subject": "", "prompt": "p 1", "model": "m", "asked": "2"}


def test_whatever_decides_a_reply_is_in_the_key():
    keys = {
        request(**change).key
        for change in (
            {}, {"text": "other"}, {"prompt": "p 2"}, {"model": "n"}, {"parameters": {"seed": 2}},
            {"messages": (("system", "hello"),)}, {"subject": "clip 2"},
        )
    }  # fmt: skip
    assert len(keys) == 7
    assert request(parameters={"a": 1, "b": 2}).key == request(parameters={"b": 2, "a": 1}).key


KILLED = """
import os, signal, sys
from pathlib import Path
from ltu_jax.clients.call_ledger import open_ledger
from tests.clients.test_call_ledger import request
with open_ledger(Path(sys.argv[1]), send=True) as ledger:
    ledger.reserve(request("in flight"), 300)
    ledger.settle(ledger.reserve(request("done"), 50), state="failed", cost=0)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_in_flight_at_a_kill_counts_as_paid(path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    with open_ledger(path, send=False) as ledger:
        assert (ledger.committed, ledger.cost) == (300, 0)
    with open_ledger(path, send=True) as ledger:
        assert (ledger.committed, ledger.cost) == (300, 300)
        assert ledger.calls_by_state() == {"failed": 1, "lost": 1}
        key = request("in flight").key
        assert ledger.look_up([key])[key].refused == 0  # to be sent again


def test_a_request_has_one_answer_at_most(path):
    with pytest.raises(UserError, match="damaged"), open_ledger(path, send=True) as ledger:
        for _ in range(2):
            ledger.settle(ledger.reserve(request(), 1), state="answered", cost=1, reply=REPLY)


def test_one_process_sends_at_a_time(path):
    with open_ledger(path, send=True):
        for send in (True, False):
            code = (
                "import sys; from pathlib import Path\n"
                "from ltu_jax.clients import call_ledger, sqlite_file\n"
                "sqlite_file._WAIT_SECONDS = 0.1\n"
                f"with call_ledger.open_ledger(Path(sys.argv[1]), send={send}): pass"
            )
            done = subprocess.run(
                [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True
            )
            assert done.returncode == 1 and "in use by another process" in done.stderr
    with open_ledger(path, send=True):
        pass


def test_a_changed_reply_is_an_error(path):
    with open_ledger(path, send=True) as ledger:
        ledger.settle(ledger.reserve(request(), 1), state="answered", cost=1, reply=REPLY)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE calls SET reply = replace(reply, 'stop', 'stop ')")
    file.close()
    changed = pytest.raises(UserError, match="does not match its hash")
    with changed, open_ledger(path, send=False) as ledger:
        ledger.look_up([request().key])


def test_the_database_of_another_program_stays_as_it_is(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE photos (name TEXT)")
    file.close()
    before = path.read_bytes()
    foreign = pytest.raises(UserError, match="another program's database .*'photos'")
    with foreign, open_ledger(path, send=True):
        pass
    assert path.read_bytes() == before
