"""`ltu_jax.evaluate` that is killed as by the machine: WHEN ARGUMENTS...

WHEN is "never", "scoring" (metrics.json is due), or the number of the sample in the middle of whose
line it dies.
"""

import os
import signal
import sys

from ltu_jax import evaluate
from ltu_jax.core.jsonl import JsonlWriter
from ltu_jax.evaluation.run import answers, results


def die_at_sample(number: int) -> None:
    seen = []

    class Dying(JsonlWriter):
        def append(self, record):
            seen.append(record)
            if len(seen) == number:
                with open(self.path, "ab", buffering=0) as file:
                    file.write(b'{"item_id": "half a li')
                os.kill(os.getpid(), signal.SIGKILL)
            super().append(record)

    answers.JsonlWriter = Dying


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
