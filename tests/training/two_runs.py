"""Several runs of `ltu_jax.train` in one process: RUN ARGUMENTS -- RUN ARGUMENTS ..."""

import sys

from ltu_jax import train

if __name__ == "__main__":
    arguments = sys.argv[1:]
    while arguments:
        end = arguments.index("--") if "--" in arguments else len(arguments)
        status = train.main(arguments[:end])
        assert status == 0, status
        arguments = arguments[end + 1 :]
