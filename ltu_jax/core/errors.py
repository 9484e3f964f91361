"""The one error type for what a user, a file or a config got wrong, and how a command shows it."""

import sys
from collections.abc import Callable


class UserError(ValueError):
    """Bad input: the message names the offender, the value found and what to do."""


def main(run: Callable[[], int | None]) -> None:
    """Run a command line; a `UserError` becomes one line on stderr and exit status 2."""
    try:
        status = run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
