"""The tag head on real recordings that it has not heard: four rotations over folds of packages.

    python -m benchmarks.real_tags [--corpus data/real_folds] [--records data/real_folds_records]

`ltu_jax.train` (configs/tagging.py:real) learns from three folds, and the recordings of the fourth
are asked about, each alone in a window of its own: the group of the highest label counts, of 18
groups. A group that three folds have nothing of is left out of the fourth and named. Files of one
recording count together as one, and are drawn together for the intervals. This is done with all
licences, and with the recordings alone that weights which are given away may rest on.

Asked about are recordings that `window_plan.usable` takes: trusted ones of its 60 classes.

What packages hold differs, so a label's logit counts less half the log-odds that the label has on
the training side; "plain" is without. This and the recipe were chosen on the packages of split val,
before any fold was scored; these packages lie in the folds, too.

Controls: the same heads hear a recording of another group (shuffled), or silence. Beside them
stand the most frequent group of the training side, and the teacher's own classes.

A rotation that was stopped goes on; one that is there is only scored. Before it:

    python -m data_pipelines.real.build_windows --out data/real_folds --hold-out folds --of-class 0
    python -m data_pipelines.write_records --corpus data/real_folds --out data/real_folds_records \\
        --features assets/weights/whisper-base --no-tokens
"""

import argparse
import dataclasses
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import alternate
from data_pipelines.real import teacher_scores, window_corpus
from data_pipelines.real.recording_table import FOLDS
from data_pipelines.real.window_plan import CLASS_OF, CLASSES
from data_pipelines.real.window_sides import fold_dataset, is_alone
from data_pipelines.records.record_files import RecordStore
from data_pipelines.records.whisper_features import FeatureExtractor
from ltu_jax.checkpoint import reader
from ltu_jax.core import errors, provenance
from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json, write_json
from ltu_jax.core.jsonl import read_jsonl
from ltu_jax.evaluation.metrics import bootstrap
from ltu_jax.evaluation.scoring import sound_groups
from ltu_jax.models.tltr import Tagger, TaggerConfig, TLTRConfig
from ltu_jax.preprocessing import audio

OUT = Path("benchmarks/results/real_tags.json")
ALL, SHIPS = "all", "ships"
LEAST = {ALL: 0.62, SHIPS: 0.52}  # mean of four folds; fixed before anything was measured
_BATCH = 16
_SEED = 0
FREQUENT = 0.5  # of the log-odds of a label that are taken off its logit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """A held-out recording.

    Attributes:
        clip_id: of its window.
        group: right answer.
        cluster: of files of one recording.
        record: number in the store.
        ships: whether it may be learnt from for weights that are given away.
    """

    clip_id: str
    group: str
    cluster: str
    record: int
    ships: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """Windows of all folds and their records.

    Attributes:
        clips: lines of the corpus by id.
        store: their records, with features.
        records, folder: where these and the corpus lie.
    """

    clips: Mapping[str, Mapping[str, Any]]
    store: RecordStore
    records: Path
    folder: Path

    @classmethod
    def open(cls, folder: Path, records: Path) -> "Corpus":
        """Open the corpus and the records made of it.

        Raises:
            UserError: one is not there, or they do not belong together.
        """
        clips = {line["clip_id"]: line for _, line in read_jsonl(folder / window_corpus.CLIPS)}
        if not clips:
            raise UserError(f"--corpus {folder} has no windows: build it as the docstring says")
        store = RecordStore(records, split="train")
        if store.features_shape is None:
            raise UserError(f"--records {records}: write them with --features WHISPER")
        strange = {entry.clip_id for entry in store.entries} ^ clips.keys()
        if strange:
            raise UserError(f"{folder} and {records} do not belong together: {min(strange)}")
        return cls(clips=clips, store=store, records=records, folder=folder)

    def held_out(self, fold: int) -> list[Asked]:
        """Return the recordings of a fold that have a group, each once."""
        found = []
        for number in range(len(self.store)):
            clip = self.clips[self.store.entries[number].clip_id]
            if clip["labels"]["folds"] == [fold] and is_alone(clip["clip_id"]):
                found.append(
                    Asked(
                        clip_id=clip["clip_id"],
                        group=clip["labels"]["groups"][0],
                        cluster=clip["source"]["clusters"][0],
                        record=number,
                        ships=clip["labels"]["ships"],
                    )
                )
        return found

    def learnt(self, datasets: Sequence[str]) -> Counter[str]:
        """Count the windows of each group in some datasets."""
        return Counter(
            group
            for clip in self.clips.values()
            if clip["dataset"] in datasets
            for group in clip["labels"]["groups"]
        )

    def log_odds(self, datasets: Sequence[str], labels: Sequence[str]) -> Float[np.ndarray, "N"]:
        """Return the log-odds of labels among the targets of some datasets."""
        learnt = [clip for clip in self.clips.values() if clip["dataset"] in datasets]
        return log_odds(learnt, folder=self.folder, labels=labels)

    def features(self, asked: Sequence[Asked]) -> Float[np.ndarray, "N W A D"]:
        """Read the stored features of recordings."""
        return np.stack([self.store.read(one.record).features for one in asked])


def log_odds(
    learnt: Sequence[Mapping[str, Any]], *, folder: Path, labels: Sequence[str]
) -> Float[np.ndarray, "N"]:
    """Return the log-odds of labels among the targets of windows, with the teacher's scores.

    Args:
        learnt: lines of a corpus's clips.jsonl.
        folder: of the corpus.
        labels: names.
    """
    scores = teacher_scores.read_scores(folder / window_corpus.SCORES)
    place = {label: number for number, label in enumerate(labels)}
    targets = np.stack(
        [teacher_scores.soft_labels(scores[clip["clip_id"]], labels) for clip in learnt]
    )
    for row, clip in zip(targets, learnt, strict=True):
        row[[place[tag] for tag in clip["tags"]]] = 1
    frequency = (targets.sum(axis=0) + 0.5) / (len(targets) + 1)
    return np.log(frequency / (1 - frequency))


def train(corpus: Corpus, *, run: Path, datasets: Sequence[str], more: Sequence[str]) -> None:
    """Train a tag head by the ordinary command; a run that is there is gone on with.

    Raises:
        UserError: the command fails.
    """
    command = [
        *(sys.executable, "-m", "ltu_jax.train", "--config=configs/tagging.py:real"),
        f"--config.run_dir={run}",
        f"--config.data.records={corpus.records}",
        f"--config.data.teacher={corpus.folder / window_corpus.SCORES}",
        *(f"--config.data.datasets={name}" for name in datasets),
        "--config.log.validate_batches=0",
        *more,
    ]
    print(" ".join(command[1:]), flush=True)
    if (status := subprocess.run(command, check=False).returncode) != 0:
        raise UserError(f"{run}: training ended with status {status}; run the same command again")


def head(run: Path) -> tuple[tuple[str, ...], Callable[[np.ndarray], np.ndarray]]:
    """Return the labels of a trained head, and a function from features to their logits."""
    metadata, params = reader.load_adapter(run)
    labels = tuple(metadata["labels"])
    config = TaggerConfig(
        tltr=TLTRConfig(**metadata["model"]["tltr"]),
        labels=len(labels),
        d_input=None,
        audio_layers=None,
    )
    model = Tagger.functional(config)
    wanted = {name: params[name] for name in model.shapes}
    compiled = jax.jit(lambda params, features: model.bind(params)(features))

    def logits(features: np.ndarray) -> np.ndarray:
        spare = -len(features) % _BATCH
        rows = np.concatenate([features, np.zeros((spare, *features.shape[1:]), np.float32)])
        parts = [
            np.asarray(compiled(wanted, rows[first : first + _BATCH]))
            for first in range(0, len(rows), _BATCH)
        ]
        return np.concatenate(parts)[: len(features)]

    return labels, logits


def best_groups(scores: np.ndarray, names: Sequence[str]) -> list[str]:
    """Return, for each row of scores of `names`, the group of the highest class that has one."""
    groups = sound_groups.words().labels
    group_of = {name: groups[label] for label, name in CLASS_OF.items() if label in groups}
    places = [place for place, name in enumerate(names) if name in group_of]
    best = np.argmax(scores[:, places], axis=1)
    return [group_of[names[places[place]]] for place in best]


def silence(records: Path) -> Float[np.ndarray, "W A D"]:
    """Return the features of ten seconds of silence, by the encoder of the records."""
    whisper = RecordStore(records, split="train").manifest["features"]["whisper"]
    extractor = FeatureExtractor(Path("assets/weights") / whisper, batch_size=1)
    window = audio.model_log_mel(
        np.zeros(10 * audio.SAMPLE_RATE, np.float32), n_mels=extractor.n_mels, frames=1000
    )
    return extractor([window.log_mel])[0]


def of_another_group(asked: Sequence[Asked], *, seed: int) -> np.ndarray:
    """Return, for each recording, the place of one whose group is another; there are two groups."""
    rng = np.random.default_rng(seed)
    groups = np.asarray([one.group for one in asked])
    return np.asarray([rng.choice(np.flatnonzero(groups != one.group)) for one in asked])


def rotation(
    corpus: Corpus, *, fold: int, licences: str, run: Path, quiet: np.ndarray
) -> dict[str, Any]:
    """Score the head of a rotation: what it said of each recording, in three ways of hearing."""
    datasets = rotated(fold, licences)
    learnt = corpus.learnt(datasets)
    asked = [one for one in corpus.held_out(fold) if licences == ALL or one.ships]
    unlearnt = sorted({one.group for one in asked} - learnt.keys())
    asked = [one for one in asked if one.group in learnt]
    labels, logits = head(run)
    usual = FREQUENT * corpus.log_odds(datasets, labels)
    features = corpus.features(asked)
    heard = logits(features)
    order = of_another_group(asked, seed=_SEED)
    said = {
        "heard": best_groups(heard - usual, labels),
        "plain": best_groups(heard, labels),
        "shuffled": best_groups(heard[order] - usual, labels),
        "silent": best_groups(logits(quiet[None]) - usual, labels) * len(asked),
        "most frequent": [learnt.most_common(1)[0][0]] * len(asked),
        "teacher": teacher_says(corpus, asked),
    }
    rows = [
        {"clip": one.clip_id, "group": one.group, "cluster": one.cluster}
        | {way: answers[place] for way, answers in said.items()}
        for place, one in enumerate(asked)
    ]
    return {"fold": fold, "unlearnt": unlearnt, "rows": rows, "windows": windows(corpus, datasets)}


def windows(corpus: Corpus, datasets: Sequence[str]) -> int:
    """Count the windows that a rotation learns from."""
    return sum(clip["dataset"] in datasets for clip in corpus.clips.values())


def teacher_says(corpus: Corpus, asked: Sequence[Asked]) -> list[str]:
    """Return the groups of the teacher's highest classes."""
    scores = teacher_scores.read_scores(corpus.folder / window_corpus.SCORES)
    heard = [teacher_scores.soft_labels(scores[one.clip_id], CLASSES) for one in asked]
    return best_groups(np.stack(heard), CLASSES)


def rotated(fold: int, licences: str) -> list[str]:
    """Return the datasets that are learnt from while a fold is held out."""
    kinds = (True,) if licences == SHIPS else (True, False)
    return [
        fold_dataset(other, ships=ships) for other in range(FOLDS) if other != fold
        for ships in kinds
    ]  # fmt: skip


def scored(rotations: Sequence[Mapping[str, Any]], way: str) -> dict[str, Any]:
    """Return top-1 of each fold and their mean, with intervals over recordings."""
    rows = [(place, row) for place, one in enumerate(rotations) for row in one["rows"]]
    share = Counter((place, row["cluster"]) for place, row in rows)
    counts = np.zeros((len(rows), 2 * len(rotations)))
    for number, (place, row) in enumerate(rows):
        weight = 1 / share[place, row["cluster"]]
        counts[number, 2 * place : 2 * place + 2] = (row[way] == row["group"]) * weight, weight
    clusters = [f"{place} {row['cluster']}" for place, row in rows]

    def mean(sums: np.ndarray) -> np.ndarray:
        return np.mean([sums[..., 2 * k] / sums[..., 2 * k + 1] for k in range(len(rotations))], 0)

    found = {"mean": _interval(counts, clusters, mean), "folds": []}
    for place, one in enumerate(rotations):
        mine = [number for number, (where, _) in enumerate(rows) if where == place]
        own = counts[mine][:, 2 * place : 2 * place + 2]
        interval = _interval(own, [clusters[number] for number in mine], bootstrap.ratio)
        found["folds"].append({"fold": one["fold"], "recordings": len(mine), **interval})
    return found


def _interval(counts: np.ndarray, clusters: Sequence[str], statistic: Callable) -> dict[str, float]:
    found = bootstrap.bootstrap(counts, clusters=clusters, statistic=statistic, resamples=2_000)
    return {name: round(float(getattr(found, name)), 4) for name in ("value", "low", "high")}


def by_group(rotations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return, of each group, its recordings in all folds, how many are right, and what is said."""
    rows = [row for one in rotations for row in one["rows"]]
    found = {}
    for group in sound_groups.words().groups:
        own = Counter(row["heard"] for row in rows if row["group"] == group)
        if own:
            wrong = [(name, count) for name, count in own.most_common() if name != group]
            found[group] = {"recordings": own.total(), "right": own[group], "taken for": wrong[:3]}
    return found


def summary(rotations: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the figures of both licences from the answers of their rotations."""
    ways = ("heard", "plain", "shuffled", "silent", "most frequent", "teacher")
    found = {}
    for licences, of in rotations.items():
        figures = {way: scored(of, way) for way in ways}
        found[licences] = {
            "at_least": LEAST[licences],
            "reached": len(of) == FOLDS and figures["heard"]["mean"]["value"] >= LEAST[licences],
            "figures": figures,
            "groups": by_group(of),
            "unlearnt": {str(one["fold"]): one["unlearnt"] for one in of},
            "windows": {str(one["fold"]): one["windows"] for one in of},
        }
    return found


def main() -> None:
    """Run the command line; see the module's docstring."""
    arguments = _arguments()
    corpus = Corpus.open(arguments.corpus, arguments.records)
    quiet = silence(arguments.records)
    rotations: dict[str, list[dict[str, Any]]] = {}
    for licences in arguments.licences:
        for fold in arguments.folds:
            run = arguments.runs / f"{licences}_fold{fold}"
            alternate.show(f"{licences}, fold {fold}: {run}")
            train(corpus, run=run, datasets=rotated(fold, licences), more=arguments.set)
            done = rotation(corpus, fold=fold, licences=licences, run=run, quiet=quiet)
            rotations.setdefault(licences, []).append(done)
            write_json(run / "answers.json", done)
            _write(arguments, corpus, rotations)
    print(alternate.table(table(read_json(arguments.out))))


def _write(
    arguments: argparse.Namespace,
    corpus: Corpus,
    rotations: Mapping[str, Sequence[Mapping[str, Any]]],
) -> None:
    """Write what is known so far."""
    made = read_json(corpus.folder / window_corpus.MANIFEST)
    content = {
        "commit": provenance.git_state(),
        "corpus": {"options": made["options"], "plan": made["plan"]},
        "changed": list(arguments.set),
        "complete": all(len(of) == FOLDS for of in rotations.values()) and len(rotations) == 2,
        "licences": summary(rotations),
    }
    write_json(arguments.out, alternate.header() | content)


def table(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the printed table."""
    rows = []
    for licences, found in result["licences"].items():
        for way, figure in found["figures"].items():
            folds = {f"fold {one['fold']}": one["value"] for one in figure["folds"]}
            mean = figure["mean"]
            rows.append(
                {"licences": licences, "hearing": way, **folds, "mean": mean["value"]}
                | {"95 %": f"{mean['low']:.2f} to {mean['high']:.2f}"}
                | {"at least": found["at_least"] if way == "heard" else None}
            )
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_tags",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", type=Path, default=Path("data/real_folds"))
    parser.add_argument("--records", type=Path, default=Path("data/real_folds_records"))
    parser.add_argument("--runs", type=Path, default=Path("runs/real_tags"), help="folder of runs")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the result")
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--licences", nargs="+", choices=(ALL, SHIPS), default=[ALL, SHIPS])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="--config.KEY=VALUE", help="changes of the recipe"
    )
    return parser.parse_args()


if __name__ == "__main__":
    errors.main(main)
