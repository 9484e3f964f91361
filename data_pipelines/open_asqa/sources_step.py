"""Print the sources of Open-ASQA: which published files each needs, its tasks and licence.

python -m data_pipelines.open_asqa sources
python -m data_pipelines.open_asqa sources --example > sources.toml
"""

import argparse

from data_pipelines.open_asqa.published_counts import POSTER
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.text_tables import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this step."""
    parser.add_argument(
        "--example", action="store_true", help="print a sources.toml to fill in instead"
    )


def run(flags: argparse.Namespace) -> int:
    """Print the table, or the example."""
    print(_example() if flags.example else _table())
    return 0


def _table() -> str:
    rows = [
        (
            name,
            POSTER[name].clips if name in POSTER else "-",
            " ".join(source.tasks) or "open-ended only",
            source.licence,
        )
        for name, source in SOURCES.items()
    ]
    lines = [table(("source", "clips (poster)", "closed-ended tasks", "licence"), rows), ""]
    files = [(name, _files(name)) for name in SOURCES]
    return "\n".join([*lines, table(("source", "files of `metadata`"), files)])


def _files(name: str) -> str:
    source = SOURCES[name]
    files = [file.replace("|", " or ") for file in source.files]
    files += [f"({file})" for file in source.optional]
    if source.folders:
        files.append("the folders of the published archives")
    return ", ".join(files)


def _example() -> str:
    lines = []
    for name in SOURCES:
        lines += [f"[{name}]  # {_files(name)}", 'metadata = ""', 'audio = ""', ""]
    lines += ["[benchmarks]  # folders as `evaluate --data` takes them", '# esc50 = ""']
    lines += ["", "[leakage]", "lists = []  # files with names of your own test recordings"]
    return "\n".join(lines)
