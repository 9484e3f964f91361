"""Messages, and the end of a command line: what a reader that goes away leaves of it."""

import signal
import subprocess
import sys

from ltu_jax.core.errors import shorten

LONG = "from ltu_jax.core import errors; errors.main(lambda: print('x' * (1 << 20)))"


def test_a_reader_that_has_seen_enough_is_no_error():
    """As `| head -c 1` does; a pipe holds less than is printed."""
    with subprocess.Popen(
        [sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read()
    assert said == b"" and process.returncode == 128 + signal.SIGPIPE


def test_long_lists_are_shortened():
    names = [f"name{index:02d}" for index in range(13)]
    message = shorten(set(names))
    assert message.startswith("name00, name01") and message.endswith("name09 and 3 more")
    assert shorten(names[:2]) == "name00, name01" and shorten([]) == ""
    assert shorten(["b", "a", "c"], most=2, separator="; ") == "b; a; and 1 more"
