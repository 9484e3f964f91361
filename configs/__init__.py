"""The recipes: a file for each stage, and `common.py`, which comments every key."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def installed(argument: str) -> str:
    """Return a `--config=configs/NAME.py[:PRESET]` whose file exists, wherever a command runs.

    A path that the working directory does not have is that of the installed package. Every other
    argument is returned as it is.
    """
    option, _, value = argument.partition("=")
    path, colon, preset = value.partition(":")
    file = (_HERE.parent / path).resolve()
    ours = file.is_file() and file.is_relative_to(_HERE)
    if option != "--config" or Path(path).is_file() or not ours:
        return argument
    return f"{option}={file}{colon}{preset}"
