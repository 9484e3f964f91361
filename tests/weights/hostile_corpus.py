"""What the hostile files are registered with, and what several builders need."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CANARY = "CANARY"  # the file that code in a pickle makes
HUGE = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """One file: how it is made, what it is offered as, a word that its refusal must contain."""

    name: str
    build: Callable[[Path], Path]
    offered_as: str
    says: str


CORPUS: list[Hostile] = []


def hostile(offered_as: str, says: str = "") -> Callable:
    """Put a builder into the corpus."""

    def register(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CORPUS.append(
            Hostile(name=build.__name__.strip("_"), build=build, offered_as=offered_as, says=says)
        )
        return build

    return register


class Call:
    """Pickles into a call of a function with arguments."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def touch(folder: Path) -> str:
    """The shell command that makes the canary."""
    return f"touch {folder / CANARY}"


def write(path: Path, content: bytes) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content)
    return path
