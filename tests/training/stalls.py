"""A run of the toy model: FOLDER [stuck], whose third batch then never comes."""

import sys
import threading
from pathlib import Path

from tests.support.toy_step import make_toy, train


def never_comes(batches):
    """Two batches and then none, without an end."""
    yield next(batches)
    yield next(batches)
    threading.Event().wait()


if __name__ == "__main__":
    folder, *stuck = sys.argv[1:]
    outcome, _ = train(
        make_toy(),
        Path(folder),
        steps=40,
        through=never_comes if stuck else iter,
        stall_seconds=3.0,
        stall_busy_seconds=200.0,
    )
    print("done", outcome.steps)
