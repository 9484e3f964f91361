"""sources.toml: where the metadata and the audio of the sources lie, and what is tested on.

    [clotho]
    metadata = "/data/clotho"            # published files, wherever below it
    audio = "/data/clotho"               # without it no audio is looked for
    clips = "lists/clotho.txt"           # take these alone, a name a line (see `ids`)

    [benchmarks]                         # folders as `evaluate --data` takes them
    esc50 = "/data/ESC-50-master"

    [leakage]
    lists = ["my_test_files.txt"]        # names of recordings or paths of files, one a line

Paths that do not begin with / are below the folder of the file.
"""

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.open_asqa.folders import GivenSource
from data_pipelines.open_asqa.registry import SOURCES
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.core.text_files import read_text
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS

_KEYS = ("metadata", "audio", "clips")
_OTHER = ("benchmarks", "leakage")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GivenData:
    """What sources.toml says.

    Attributes:
        path: the file.
        sources: name -> where it lies, in the order of the registry.
        benchmarks: name -> folder of its data.
        lists: files of a user's own test recordings.
    """

    path: Path
    sources: Mapping[str, GivenSource]
    benchmarks: Mapping[str, Path]
    lists: tuple[Path, ...]

    def only(self, names: tuple[str, ...]) -> dict[str, GivenSource]:
        """Return the sources of these names, all for ().

        Raises:
            UserError: a name that the file does not have.
        """
        unknown = [name for name in names if name not in self.sources]
        if unknown:
            raise UserError(
                f"--only {unknown[0]}: {self.path} has no table [{unknown[0]}]; it has "
                f"{', '.join(self.sources)}"
            )
        return {name: own for name, own in self.sources.items() if not names or name in names}


def read_sources(path: Path) -> GivenData:
    """Read sources.toml.

    Raises:
        UserError: no file, no TOML, or an unknown table, key or kind of value.
    """
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: write a table for each source, such as [clotho] with "
            "metadata = FOLDER and audio = FOLDER; docs/open_asqa.md has an example"
        )
    try:
        tables = tomllib.loads(read_text(path, expected="a TOML file of sources"))
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from None
    unknown = [name for name in tables if name not in (*SOURCES, *_OTHER)]
    if unknown:
        raise UserError(
            f"{path}: unknown table [{unknown[0]}]; there are {', '.join((*SOURCES, *_OTHER))}"
        )
    given = {name: _source(name, tables[name], path) for name in SOURCES if name in tables}
    if not given:
        raise UserError(f"{path} has no source: give one of {shorten(list(SOURCES), most=20)}")
    folders = _texts(tables.get("benchmarks", {}), path, "benchmarks", tuple(BENCHMARKS))
    leakage = tables.get("leakage", {})
    lists = leakage.get("lists", []) if isinstance(leakage, dict) else None
    if not isinstance(lists, list) or set(leakage) - {"lists"}:
        raise UserError(f'{path}: [leakage] has one key, lists = ["FILE", ...]')
    return GivenData(
        path=path,
        sources=given,
        benchmarks={name: _there(text, path, name) for name, text in folders.items()},
        lists=tuple(_there(str(text), path, "leakage.lists") for text in lists),
    )


def _source(name: str, table: Any, path: Path) -> GivenSource:
    texts = _texts(table, path, name, _KEYS)
    if "metadata" not in texts:
        raise UserError(f"{path}: [{name}] has no metadata = FOLDER")
    places = {key: _there(text, path, f"{name}.{key}") for key, text in texts.items()}
    for key in ("metadata", "audio"):
        if key in places and not places[key].is_dir():
            raise UserError(f"{path}: {name}.{key} is {places[key]}, which is no folder")
    return GivenSource(name=name, **places)


def _texts(table: Any, path: Path, name: str, keys: tuple[str, ...]) -> dict[str, str]:
    if not isinstance(table, dict):
        raise UserError(f"{path}: {name} is {table!r}: make it a table, [{name}]")
    for key, value in table.items():
        if key not in keys:
            raise UserError(f"{path}: [{name}] has the unknown key {key}; use {', '.join(keys)}")
        if not isinstance(value, str) or not value:
            raise UserError(f"{path}: {name}.{key} is {value!r}: give a path in quotes")
    return table


def _there(text: str, path: Path, name: str) -> Path:
    place = path.parent.absolute() / text
    if not place.exists():
        raise UserError(f"{path}: {name} is {text!r}, and {place} does not exist")
    return place
