"""`ltu_jax.evaluate` that is killed as by the machine: WHEN ARGUMENTS...

WHEN is "never", "scoring" (metrics.json is due), or the number of the sample in the middle of whose
line it dies.
"""

import os
import signal
import sys

from ltu_jax import evaluate
from ltu_jax.evaluation.run import answers, results


def die_at_sample(number: int) -> None:
    whole, seen = answers.append, []

    def append(file, record):
        seen.append(record)
        if len(seen) == number:
            file.write('{"item_id": "half a li')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        whole(file, record)

    answers.append = append


def die_in_scoring() -> None:
    whole = results.write_json

    def write_json(path, value):
        if path.name == "metrics.json":
            os.kill(os.getpid(), signal.SIGKILL)
        whole(path, value)

    results.write_json = write_json


if __name__ == "__main__":
    when, arguments = sys.argv[1], sys.argv[2:]
    if when == "scoring":
        die_in_scoring()
    elif when != "never":
        die_at_sample(int(when))
    sys.exit(evaluate.main(arguments))
