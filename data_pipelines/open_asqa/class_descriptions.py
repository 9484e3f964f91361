"""How each class of sound sounds: acoustic descriptions in a few words, of classes by their name.

The files in descriptions/ say who made theirs. They describe a class, not the clip. Data sets write
one name in several ways ("Chirp, tweet", "Chirp and tweet", "chirp_and_tweet"), all of which are
found; what else a data set calls a class stands under `same_as`.
"""

import dataclasses
import functools
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable

_FOLDER = "descriptions"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """The descriptions of a class.

    Attributes:
        name: of the class, as its file has it.
        texts: its descriptions.
        made_by: who wrote them.
        version: file and its version.
    """

    name: str
    texts: tuple[str, ...]
    made_by: str
    version: str


class ClassDescriptions(Mapping[str, tuple[str, ...]]):
    """Class -> its descriptions, whatever commas, "and" and capitals its name is written with."""

    def __init__(self, classes: Mapping[str, Described]):
        """Take the classes by their `plain_name`, which is also what they are listed by."""
        self._classes = classes

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self._classes[plain_name(name)].texts

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def about(self, name: str) -> Described:
        """Return the descriptions of a class with who wrote them."""
        return self._classes[plain_name(name)]


@functools.cache
def plain_name(name: str) -> str:
    """Return the words of a class name: "Chirp, tweet" and "chirp_and_tweet" are the same."""
    return " ".join(word for word in re.findall(r"[a-z0-9]+", name.lower()) if word != "and")


def description_files() -> list[Traversable]:
    """Return the files of descriptions, by name."""
    folder = resources.files(__package__).joinpath(_FOLDER)
    files = (file for file in folder.iterdir() if file.name.endswith(".toml"))
    return sorted(files, key=lambda file: file.name)


@functools.cache
def class_descriptions() -> ClassDescriptions:
    """Return the descriptions of all files.

    Raises:
        ValueError: a class stands in two files, or is the same as one that is in none.
    """
    classes: dict[str, Described] = {}
    same: dict[str, str] = {}
    for file in description_files():
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        version = f"{file.name.removesuffix('.toml')}-{table['version']}"
        for name, texts in table["descriptions"].items():
            if plain_name(name) in classes:
                raise ValueError(f"{file.name}: {name!r} is described before")
            classes[plain_name(name)] = Described(
                name=name, texts=tuple(texts), made_by=table["made_by"], version=version
            )
        same |= table.get("same_as", {})
    for name, other in same.items():
        if plain_name(name) in classes or plain_name(other) not in classes:
            raise ValueError(f"same_as: {name!r} = {other!r}: the first is described, or no second")
    others = {plain_name(name): classes[plain_name(other)] for name, other in same.items()}
    return ClassDescriptions(classes | others)
