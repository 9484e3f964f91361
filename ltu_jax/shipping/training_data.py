"""What a model learnt from, by package and licence, as the corpus and the table of recordings say.

Weights that are given away may rest on recordings of `ships` alone (`real/recording_table`).
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_pipelines.manifests import corpus_folders
from data_pipelines.real import recording_table
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError, shorten
from ltu_jax.sources import packages

_TRAIN = "train"
_BOUND = (
    "weights that rest on them must not be given away; train on a corpus made with --ships-only"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackageUse:
    """A package of which a corpus has something in its training split.

    Attributes:
        name, version: of the package.
        holds: recordings that were learnt from; or clips that were made with it.
        what: "recordings" or "clips".
        licences: of them.
    """

    name: str
    version: str
    holds: int
    what: str
    licences: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What the training split of a corpus holds.

    Attributes:
        clips: how many.
        uses: packages that they are made of.
        by_licence: clips by licence.
        by_class: clips by class of sound, where the corpus tells.
    """

    clips: int
    uses: tuple[PackageUse, ...]
    by_licence: Mapping[str, int]
    by_class: Mapping[str, int]


def read(corpus: Path) -> TrainingData:
    """Read what the training split of a corpus folder rests on.

    Raises:
        UserError: no corpus there, or clips or recordings that weights must not be given away for.
    """
    if not (corpus / corpus_folders.CLIPS).is_file():
        raise UserError(
            f"--corpus {corpus} has no {corpus_folders.CLIPS}: give the folder that the records of "
            "the run were written from"
        )
    clusters: set[str] = set()
    bound: list[str] = []
    made_with, licences, classes = Counter(), Counter(), Counter()
    for _, entry in corpus_folders.corpus_entries(corpus):
        if isinstance(entry, RecordError):
            raise entry
        if entry["split"] != _TRAIN:
            continue
        source = entry.get("source") if isinstance(entry.get("source"), Mapping) else {}
        clusters |= set(map(str, source.get("clusters", ())))
        made_with.update(source.get("packages", ()))
        licences[corpus_folders.corpus_licence(entry)] += 1
        labels = entry.get("labels") if isinstance(entry.get("labels"), Mapping) else {}
        classes.update(labels.get("classes", ()))
        if labels.get("ships", True) is not True:  # of a voice, too, which no table here knows
            bound.append(str(entry["clip_id"]))
    if bound:
        raise UserError(
            f"--corpus {corpus} has {len(bound)} clips to learn from ({shorten(bound)}) whose "
            f"`ships` is not true: {_BOUND}"
        )
    uses = [*_recordings(clusters), *_made_with(made_with)]
    return TrainingData(
        clips=licences.total(), uses=tuple(uses), by_licence=licences, by_class=classes
    )


def _recordings(clusters: Iterable[str]) -> list[PackageUse]:
    """Return the packages of the recordings that clusters name."""
    wanted = set(clusters)
    by_cluster: dict[str, list[recording_table.Recording]] = {}
    for one in recording_table.recordings():
        if one.cluster in wanted:
            by_cluster.setdefault(one.cluster, []).append(one)
    strange = sorted(wanted - set(by_cluster))
    if strange:
        raise UserError(
            f"the corpus has recordings of {shorten(strange)}, which the table of recordings does "
            "not have, so nothing says whether weights may rest on them: build it again with this "
            "version"
        )
    used: dict[str, list[recording_table.Recording]] = {}
    for cluster in sorted(by_cluster):
        # A recording that two packages hold ships by the licence of the one that lets it.
        free = [one for one in by_cluster[cluster] if one.ships]
        for one in free or by_cluster[cluster]:
            used.setdefault(one.package, []).append(one)
    bound = sorted(name for name, found in used.items() if not all(one.ships for one in found))
    if bound:
        raise UserError(
            f"the corpus has recordings of {shorten(bound)} whose `ships` is no: {_BOUND}"
        )
    known = recording_table.recording_packages()
    return [
        PackageUse(
            name=name,
            version=known[name].version,
            holds=len(found),
            what="recordings",
            licences=tuple(sorted({one.licence for one in found})),
        )
        for name, found in sorted(used.items())
    ]


def _made_with(names: Mapping[str, int]) -> list[PackageUse]:
    return [
        PackageUse(
            name=name,
            version=packages.package(name).version,
            holds=count,
            what="clips",
            licences=(packages.package(name).license,),
        )
        for name, count in sorted(names.items())
    ]
