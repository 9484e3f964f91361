"""Tell what is there of the sources, what is missing, and how many clips have audio.

    python -m data_pipelines.open_asqa check --sources sources.toml

All metadata are read and all audio files are looked for; nothing is written. Exit status: 0 all
files of all sources are there, 1 some are missing or broken.
"""

import argparse
import tempfile
from pathlib import Path

from tqdm import tqdm

from data_pipelines.manifests.file_index import FileIndex
from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.open_asqa import clip_audio
from data_pipelines.open_asqa.folders import GivenSource, first_file
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_build import chosen_names
from data_pipelines.open_asqa.sources_file import read_sources
from data_pipelines.open_asqa.text_tables import table
from ltu_jax.core.errors import UserError

_EXAMPLES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument(
        "--sources", type=Path, required=True, help="TOML file with a table for each source"
    )


def run(flags: argparse.Namespace) -> int:
    """Check each source, and print a table and what is wrong."""
    given = read_sources(flags.sources)
    rows, remarks, whole = [], [], True
    with tempfile.TemporaryDirectory() as folder, tqdm(unit="clip", disable=None) as bar:
        for name, source in given.sources.items():
            bar.set_description(name)
            checked = _Checked(source)
            checked.look(Path(folder) / f"{name}.sqlite", bar)
            rows.append(checked.row)
            remarks += checked.remarks
            whole = whole and checked.whole
    print(table(("source", "files", "missing", "clips", "broken rows", "with audio"), rows))
    absent = [name for name in SOURCES if name not in given.sources]
    if absent:
        remarks.append(f"{flags.sources} has no table for {', '.join(absent)}")
    print("\n".join(remarks))
    return 0 if whole else 1


class _Checked:
    """What was found of a source."""

    def __init__(self, given: GivenSource):
        self._given, self._entry = given, SOURCES[given.name]
        self.remarks: list[str] = []
        self.clips, self.with_audio, self.broken = 0, 0, 0
        self.there, self.missing = [], []
        for files, needed in ((self._entry.files, True), (self._entry.optional, False)):
            for name in files:
                path = first_file(given.metadata, name.split("|"))
                if path is not None:
                    self.there.append(path.name)
                elif needed:
                    self.missing.append(name)
                else:
                    self._remark(f"without {name}, which adds to it")

    @property
    def whole(self) -> bool:
        """Whether nothing is missing that it needs, and its clips can be read."""
        return not self.missing and self.clips > 0

    @property
    def row(self) -> tuple[object, ...]:
        """Its row of the table."""
        audio = "-" if self._given.audio is None else self.with_audio
        name = self._given.name
        return name, len(self.there), len(self.missing), self.clips, self.broken, audio

    def _remark(self, text: str) -> None:
        self.remarks.append(f"{self._given.name}: {text}")

    def look(self, index: Path, bar: tqdm) -> None:
        """Read the metadata, and look for the audio of the clips."""
        if self.missing:
            for name in self.missing:
                self._remark(f"{name} is missing below {self._given.metadata}")
            return
        problems = RecordProblems()
        files = None
        if self._given.audio is not None:
            files = FileIndex(index, root=self._given.audio)
        try:
            self._count(problems, files, bar)
        except UserError as error:
            self._remark(str(error))
        finally:
            if files is not None:
                files.close()
        self.broken = len(problems.found)
        for text in problems.found[:_EXAMPLES]:
            self._remark(text)

    def _count(self, problems: RecordProblems, files: FileIndex | None, bar: tqdm) -> None:
        lacking = []
        chosen = None if self._given.clips is None else chosen_names(self._given.clips)
        for clip in self._entry.read(self._given.metadata, problems):
            if chosen is not None and chosen.isdisjoint((clip.clip_id, *clip.files)):
                continue
            bar.update()
            self.clips += 1
            if files is None:
                continue
            try:
                clip_audio.find(files, clip.files)
                self.with_audio += 1
            except clip_audio.NoAudio as error:
                lacking.append(f"{clip.where}: {error}")
                del lacking[_EXAMPLES:]
        for text in lacking:
            self._remark(text)
