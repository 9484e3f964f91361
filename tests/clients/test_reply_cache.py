"""The cache survives what happens to files: kills, damage, two writers."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ltu_jax.clients.reply_cache import ReplyCache, key
from ltu_jax.core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path):
    return ReplyCache(tmp_path / "folder" / "cache.sqlite")


def test_entries_come_back_in_another_process_too(cache):
    cache.put({"a": b"\x00\xff", "b": b""})
    cache.put({"a": b"new"})
    assert ReplyCache(cache.path).get(["a", "b", "c"]) == {"a": b"new", "b": b""}


def test_more_keys_than_a_query_takes(cache):
    entries = {key("k", str(number)): str(number).encode() for number in range(1234)}
    cache.put(entries)
    assert cache.get(list(entries)) == entries


def test_keys_tell_lists_of_parts_apart():
    assert len({key("ab", "c"), key("a", "bc"), key("abc"), key("ab", "c", "")}) == 4


KILLED = """
import os, signal, sys
from pathlib import Path
from ltu_jax.clients.reply_cache import ReplyCache
cache = ReplyCache(Path(sys.argv[1]))
cache.put({"before": b"1"})
def entries():
    for number in range(20_000):
        yield f"during{number}", b"x" * 1000
    os.kill(os.getpid(), signal.SIGKILL)
with cache._open() as file, file:
    file.executemany("INSERT INTO entries VALUES (?, ?, ?)", ((k, v, b"") for k, v in entries()))
"""


def test_a_kill_in_the_middle_of_a_write_leaves_what_was_written_before(cache):
    done = subprocess.run([sys.executable, "-c", KILLED, str(cache.path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert os.path.exists(f"{cache.path}-journal")  # it did die in the middle
    assert cache.get(["before", "during0", "during9999"]) == {"before": b"1"}
    cache.put({"after": b"2"})
    assert cache.get(["before", "after"]) == {"before": b"1", "after": b"2"}


def test_a_file_that_is_no_cache_is_an_error_that_says_to_delete_it(cache):
    cache.path.parent.mkdir()
    cache.path.write_text("not a database, but long enough to look like one at first sight" * 9)
    with pytest.raises(UserError, match=r"cache\.sqlite is damaged .*; delete it"):
        cache.get(["a"])


def test_a_damaged_page_is_an_error(cache):
    cache.put({key(str(number)): b"v" * 3000 for number in range(50)})
    content = bytearray(cache.path.read_bytes())
    content[4096 : 4096 * 6] = b"\xa5" * 4096 * 5
    cache.path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged .*; delete it"):
        cache.get([key(str(number)) for number in range(50)])


def test_a_changed_value_is_an_error_and_not_a_wrong_number(cache):
    cache.put({"a" * 64: b"right"})
    with sqlite3.connect(cache.path) as file:
        file.execute("UPDATE entries SET value = ?", (b"wrong",))
    file.close()
    with pytest.raises(UserError, match="entry aaaaaaaaaaaa... does not match its hash"):
        cache.get(["a" * 64])


def test_a_folder_in_the_caches_place_is_an_error(cache):
    cache.path.mkdir(parents=True)
    with pytest.raises(UserError, match="cannot be used .*; check the disk"):
        cache.put({"a": b""})


def test_two_writers_at_once_lose_nothing(cache):
    code = (
        "import sys; from pathlib import Path\n"
        "from ltu_jax.clients.reply_cache import ReplyCache\n"
        "for n in range(40): ReplyCache(Path(sys.argv[1])).put({f'{sys.argv[2]}{n}': b'v'})"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(cache.path), name], cwd=ROOT)
        for name in "ab"
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert len(cache.get([f"{name}{n}" for name in "ab" for n in range(40)])) == 80


def test_the_database_of_another_program_stays_as_it_is(tmp_path):
    path = tmp_path / "photos.sqlite"
    with sqlite3.connect(path) as file:
        file.execute("CREATE TABLE photos (name TEXT)")
    before = path.read_bytes()
    for use in (lambda: ReplyCache(path).get(["a"]), lambda: ReplyCache(path).put({"a": b""})):
        with pytest.raises(UserError, match="another program's database .*'photos'"):
            use()
    assert path.read_bytes() == before
