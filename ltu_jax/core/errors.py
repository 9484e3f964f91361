"""The error type for what a user, a file or a config got wrong, and how a command shows it.

An error names an argument as its caller knows it: Python code calls it `max_new_tokens`, a command
line `--max-new-tokens`. `spell` gives the name; `command_line` marks a running command.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

_FLAGS: ContextVar[Mapping[str, str] | None] = ContextVar("flags", default=None)
_NO_VALUE = object()


class UserError(ValueError):
    """Bad input: the message names the offender, the value found and what to do."""


@contextlib.contextmanager
def command_line(**names: str) -> Iterator[None]:
    """Name arguments as options of a command within the block: `--max-new-tokens`.

    Args:
        names: argument -> what messages call it, where it is no option of that name
            (question="question 2").
    """
    token = _FLAGS.set({**(_FLAGS.get() or {}), **names})
    try:
        yield
    finally:
        _FLAGS.reset(token)


def on_command_line() -> bool:
    """Tell whether a command is running, not Python code of the user."""
    return _FLAGS.get() is not None


def spell(name: str, value: Any = _NO_VALUE) -> str:
    """Name an argument as its caller knows it, with its value if one is given."""
    flags = _FLAGS.get()
    if flags is None:
        return name if value is _NO_VALUE else f"{name}={brief(value)}"
    flag = flags.get(name, f"--{name.replace('_', '-')}")
    return flag if value is _NO_VALUE else f"{flag} {value}"


def brief(value: Any) -> str:
    """Return the value as a message shows it: at most 60 characters, arrays by their shape."""
    if hasattr(value, "dtype") and hasattr(value, "shape") and value.shape != ():
        return f"<{type(value).__name__} {value.dtype} {list(value.shape)}>"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def shorten(names: Iterable[object], *, most: int = 10, separator: str = ", ") -> str:
    """Join the first `most` names for a message, and say how many more there are.

    Lists and tuples keep their order, everything else is sorted.
    """
    texts = [str(name) for name in names]
    if not isinstance(names, list | tuple):
        texts.sort()
    more = len(texts) - most
    end = " " if separator == ", " else separator
    return separator.join(texts[:most]) + (f"{end}and {more} more" if more > 0 else "")


def arguments(given: Sequence[str]) -> list[str]:
    """Return the arguments of a command as text.

    Python keeps bytes that are not text in the locale's encoding as half characters. UTF-8 bytes
    are decoded; the name of an existing file stays as it is.

    Raises:
        UserError: an argument of another encoding.
    """
    return [_decoded(number, argument) for number, argument in enumerate(given, start=1)]


def _decoded(number: int, given: str) -> str:
    if not any("\ud800" <= sign <= "\udfff" for sign in given):
        return given
    try:
        data = os.fsencode(given)
    except UnicodeEncodeError:
        data = given.encode("utf-8", "surrogatepass")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if os.path.lexists(given) or os.path.lexists(given.partition("=")[2]):
            return given
        raise UserError(
            f"argument {number}, {data.decode('latin-1')!a}, is not UTF-8 (byte "
            f"0x{data[error.start]:02X}): set the terminal and the locale (LC_ALL) to UTF-8, or to "
            "the encoding that the terminal writes"
        ) from None


def lossless_output() -> None:
    """Let stdout and stderr spell out what their encoding lacks (\\u266b) instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def main(run: Callable[[], int | None]) -> None:
    """Run a command line; a `UserError` becomes one line on stderr and exit status 2."""
    lossless_output()
    try:
        sys.argv[1:] = arguments(sys.argv[1:])
        with command_line():
            status = run()
        sys.stdout.flush()  # here, where a reader that is gone can still be dealt with
    except BrokenPipeError:
        # `| head` has seen enough. The interpreter would flush once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 128 + signal.SIGPIPE
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        status = 130
    sys.exit(status or 0)
