"""The end of a command line: what a reader that goes away leaves of it."""

import signal
import subprocess
import sys

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
