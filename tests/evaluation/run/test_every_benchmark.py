"""Each benchmark end to end: its layout in miniature, answers that are known, figures by hand.

The witness in the model's place knows every item and says in turn what is right, wrong, a refusal
and nonsense; one clip of each benchmark is lost. Expected figures are counted here from that plan
and from samples.jsonl, without the code that scores.
"""

import functools
import json
import random
import statistics
from collections import Counter
from pathlib import Path

import miniatures
import numpy as np
import pytest
import soundfile
from sklearn.metrics import f1_score

import ltu_jax.inference
from ltu_jax import evaluate
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.evaluation import command_options
from ltu_jax.evaluation.datasets.benchmarks import BENCHMARKS
from ltu_jax.evaluation.datasets.dataset import read_dataset
from ltu_jax.evaluation.datasets.item import Item, Task

KINDS = ("right", "wrong", "refused", "nonsense", "right")
FIGURE = {
    *("metric", "name", "rule", "system", "mode", "decoding", "value", "low", "high", "n", "draws"),
    *("spread", "missing", "unparsed", "refused", "left_out", "differ", "higher", "not_computed"),
}
DECODINGS, RULES = ("greedy", "sampling"), ("paper", "strict")
# Metrics whose figure is the mean of what each answer scores.
MEANS = {
    *("accuracy", "both right", "MAE", "judge score", "embedding similarity", "refusal rate"),
    *("SPICE", "CIDEr-D", "SPIDEr", "ROUGE-L", "group accuracy", "nothing invented"),
}
# How many questions each miniature holds, by row.
SIZES = {
    "mini": dict.fromkeys(("sound", "gender", "spoken_text", "joint_questions"), 12),
    "real": {
        **{"sound": 4, "presence_affirmed": 5, "presence_denied": 5, "spoken_text": 4},
        **{"gender": 4, "joint_questions": 3, "silence": 3},
    },
    "voxceleb2": {"voxceleb2_gender": 4, "voxceleb2_age": 3},
    "jsonl": dict.fromkeys(map(str, Task), 3),
    **{
        name: {name: size}
        for name, size in (
            *(("esc50", 20), ("audiocaps", 4), ("librispeech", 5), ("iemocap", 10)),
            *(("gtzan", 15), ("vggsound", 3), ("fsd50k", 2), ("clotho", 2), ("fma", 3)),
            *(("mosei", 3), ("mmau", 2), ("air_bench", 3), ("open_asqa", 4)),
        )
    },
}


class Tones:
    """Renders audio; each file is a tone of its own, so that the witness knows what it hears."""

    def __init__(self):
        self.paths: dict[Path, int] = {}
        self.made = 0

    def __call__(self, path: Path, *, seconds: float = 0.2, rate: int = 16_000) -> Path:
        index = self.made % 70  # up to 7.1 kHz
        self.made += 1
        time = np.arange(round(max(seconds, 0.2) * rate)) / rate
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.3 * np.sin(2 * np.pi * (200 + 100 * index) * time), rate)
        self.paths[path.resolve()] = index
        return path


class Letters:
    """Texts as letter counts: an embedder without weights."""

    name = "letters"

    def __call__(self, texts):
        counts = np.array([[text.lower().count(c) for c in "abcdefghijklmnop"] for text in texts])
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


class Stern:
    """A judge: full marks for what repeats the reference, no reply to nonsense."""

    name = "judge stern"

    def __call__(self, questions):
        return [None if answer == "Hmm." else float(ref in answer) for _, ref, answer in questions]


def said(item: Item, kind: str, words: str, *, task: Task) -> str:
    """An answer of one kind to an item of a task."""
    if kind in ("refused", "nonsense"):
        return {"refused": "I'm sorry, I cannot tell.", "nonsense": "Hmm."}[kind]
    right = kind == "right"
    other = next((one for one in item.choices if one != item.label), "something else")
    label = item.label if right else other
    match task:
        case Task.CHOICE if item.row.startswith("presence"):
            return f"{label.capitalize()}, I would say."
        case Task.OPEN if item.row == "silence":
            return item.label if right else "A dog is heard."
        case Task.CHOICE:
            return f"{'ABCDE'[item.choices.index(label)]}. {label}"
        case Task.MULTILABEL:
            return " and ".join(item.references if right else [other])
        case Task.AGE:
            return f"The speaker is {int(item.label) + (0 if right else 7)} years old."
        case Task.SPOKEN_TEXT:
            return f"Spoken text: {item.label if right else 'nothing of this was said'}"
        case Task.CLASS_AND_WORDS:
            return f"Background sound: {label}. Spoken text: {words}"
        case Task.CAPTION:
            return f"Audio caption: {item.references[0] if right else 'People on a train'}"
        case _:
            return f"This is {label}."


@pytest.fixture
def bench(request, tmp_path, listener, monkeypatch):
    """The miniature of a benchmark and a command that evaluates it with the witness."""
    name, tones = request.param, Tones()
    if name != "mini":  # which has pictures of every kind
        request.getfixturevalue("undrawn")
    data = tmp_path / "data"
    data.mkdir()
    if name == "mini":
        request.getfixturevalue("corpus").rename(data / "mini")
        data = data / "mini"
        for path in sorted((data / "audio" / "test").iterdir()):
            tones(path, seconds=1)
    else:
        miniatures.FOLDERS[name](data, tones)
        data = data / "mine.jsonl" if name == "jsonl" else data
    return Bench(name, data, tones, tmp_path, listener, monkeypatch)


class Bench:
    def __init__(self, name, data, tones, place, listener, monkeypatch):
        self.name, self.data, self.out = name, data, place / "out"
        write_json(place / "weights" / "config.json", {"kind": "ltu-as", "sha256": {}})
        limit = 15 if name == "gtzan" else None
        questions = read_dataset(data, name=name, split=None, limit=limit)
        self.items, self.clips = questions.items, questions.clips
        self.modes = ("joint",) if name == "audiocaps" else ("joint", "silence")
        if limit is not None:  # there are more files than tones: each that is asked gets its own
            for item in self.items:
                tones(self.clips[item.clip_id].audio, rate=22_050)
        place_in_row: Counter[str] = Counter()
        self.planned: dict[tuple[str, int], tuple[Item, int]] = {}
        for item in self.items:
            heard = tones.paths[self.clips[item.clip_id].audio.resolve()]
            self.planned[item.question, heard] = (item, place_in_row[item.row])
            place_in_row[item.row] += 1
        self.arguments = [
            *("--checkpoint", str(place / "weights"), "--out", str(self.out)),
            *("--modes", ",".join(self.modes), "--embedder", "letters", "--judge", "stern"),
            *(("--jsonl", str(data)) if name == "jsonl" else
              ("--benchmarks", name, "--data", str(data))),
            *(() if limit is None else ("--limit", str(limit))),
        ]  # fmt: skip
        monkeypatch.chdir(place)
        monkeypatch.setattr(command_options, "open_embedder", lambda spec, *, cache: Letters())
        monkeypatch.setattr(command_options, "open_judge", lambda spec, *, cache: Stern())
        monkeypatch.setattr(ltu_jax.inference, "load", lambda *_, **__: self.witness(listener))
        if name != "audiocaps":  # METEOR takes seconds to start; elsewhere Java is missing
            monkeypatch.setenv("JAVA_HOME", str(place))

    def kind(self, place: int, draw: int | None) -> str:
        """What is planned for an item of a row: another thing in each draw but for captions."""
        turn = place if draw is None or self.name == "audiocaps" else place + draw
        return KINDS[turn % len(KINDS)]

    def witness(self, listener):
        class Witness(listener):
            def answer_batch(inner, requests, *, max_new_tokens, sampling, batch_size):
                seeds = [one.seed for one in sampling] if sampling else [None] * len(requests)
                pairs = zip(requests, seeds, strict=True)
                return [self.answer(inner, *pair) for pair in pairs]

        return Witness()

    def answer(self, witness, asked, seed):
        features = asked.audio_features
        heard = -1 if features is None else int(features[0, 0, 0])
        found = self.planned.get((asked.question, heard))
        if found is None:  # silence
            text = "Nothing."
        else:
            kind = self.kind(found[1], None if seed is None else seed % 3)
            task = BENCHMARKS[self.name].rows[found[0].row].task
            text = said(found[0], kind, asked.spoken_text, task=task)
        witness.answer = lambda *_: text
        return witness._answer(asked)

    def evaluate(self, *more: str) -> int:
        return evaluate.main([*self.arguments, *more])

    def samples(self):
        return list(map(json.loads, (self.out / "samples.jsonl").read_text().split("\n")[:-1]))


@pytest.mark.usefixtures("few_resamples")
@pytest.mark.parametrize("bench", BENCHMARKS, indirect=True)
def test_from_the_published_layout_to_the_report(bench, capsys):
    assert bench.evaluate("--check") == 0
    assert "0 of them missing or broken" in capsys.readouterr().out
    lost = bench.clips[bench.items[-1].clip_id].audio
    if bench.name == "voxceleb2":  # nothing lists its utterances but the folder
        lost.write_bytes(b"half a download")
    else:
        lost.unlink()
    gone = {name for name, clip in bench.clips.items() if clip.audio == lost}
    assert bench.evaluate("--check") == 1
    printed = capsys.readouterr().out
    assert f"{len(gone)} of them missing or broken" in printed and lost.stem in printed
    with pytest.raises(UserError, match="cannot be read:") as stopped:
        bench.evaluate()
    assert lost.stem in str(stopped.value)  # of VGGSound as .wav, where no format is there

    assert bench.evaluate("--allow-missing") == 0
    for name in ("results.txt", "results.png", "report.html", "clips.jsonl"):
        assert (bench.out / name).stat().st_size > 0
    page = (bench.out / "report.html").read_text()
    assert all(row in page for row in SIZES[bench.name])
    metrics = json.loads((bench.out / "metrics.json").read_text())
    assert {row: entry["n"] for row, entry in metrics["rows"].items()} == SIZES[bench.name]
    assert metrics["throughput"]["answers"] > 0
    for name, entry in metrics["rows"].items():
        check_row(bench, name, entry, gone)

    before = {path.name: path.read_bytes() for path in bench.out.iterdir()}
    (bench.out / "report.html").unlink()
    command = ["rescore", str(bench.out), "--embedder", "letters", "--judge", "stern"]
    assert evaluate.main(command) == 0
    assert {path.name: path.read_bytes() for path in bench.out.iterdir()} == before


def check_row(bench, name, entry, gone):
    row = BENCHMARKS[bench.name].rows[name]
    items = [item for item in bench.items if item.row == name]
    lines = [one for one in bench.samples() if one["row"] == name]
    answered = [item for item in items if item.clip_id not in gone]
    lost = len(items) - len(answered)
    assert lost > 0 or bench.name in ("jsonl", "real")  # whose rows ask about several clips
    wanted = Counter(
        (item.item_id, mode, decoding, draw)
        for item in answered
        for mode in bench.modes
        for decoding in DECODINGS
        for draw in range(row.draws if decoding == "sampling" else 1)
    )
    keys = ("item_id", "mode", "decoding", "draw")
    assert Counter(tuple(one[key] for key in keys) for one in lines) == wanted

    seen = set()
    for one in entry["figures"]:
        assert set(one) == FIGURE
        assert (one["value"] is None) == (one["not_computed"] is not None), one
        assert one["n"] == len(items)
        if one["value"] is not None and one["low"] is not None:
            assert one["low"] <= one["high"]
        if one["system"] == "model":
            seen.add((one["metric"], one["rule"], one["mode"], one["decoding"]))
            check_figure(one, [line for line in lines if in_figure(line, one)], len(items), row)
    metrics = [metric.name for metric in row.metrics]
    assert seen == {
        (m, r, o, d) for m in metrics for r in RULES for o in bench.modes for d in DECODINGS
    }
    check_plan(bench, row, entry, items, gone)
    check_tables(row, entry, items)


def in_figure(line, one):
    return (line["mode"], line["decoding"]) == (one["mode"], one["decoding"])


def check_figure(one, lines, n, row):
    """Counts, mean, spread and disagreement against the lines of samples.jsonl."""
    draws = row.draws if one["decoding"] == "sampling" else 1
    if one["not_computed"] is not None:
        assert one["not_computed"].startswith("not computed: ")
        return
    own = [line["scores"][one["metric"]] for line in lines]
    metric = next(metric for metric in row.metrics if metric.name == one["metric"])
    ours = metric.paper is metric.strict  # no paper has it
    assert one["draws"] == draws
    assert one["missing"] == n * draws - len(lines)
    for status in ("unparsed", "refused"):
        assert one[status] == sum(two[one["rule"]]["status"] == status for two in own)
    apart = {
        line["item_id"]
        for line, two in zip(lines, own, strict=True)
        if len(two) == 2 and different(two["paper"]["score"], two["strict"]["score"])
    }
    items_lost = n - len({line["item_id"] for line in lines})
    assert one["differ"] in (None, len(apart), len(apart) + items_lost)
    if one["metric"] in MEANS:
        values = []
        for draw in range(draws):
            scores = [
                two[one["rule"]]["score"]
                for line, two in zip(lines, own, strict=True)
                if line["draw"] == draw
            ]
            scores = [score for score in scores if score is not None]
            if one["rule"] == "strict" or ours:  # what is missing counts: wrong, or the worst
                scores += [None] * (n - len(scores))
            values.append(scores)
        if all(None not in scores for scores in values):
            means = [statistics.mean(scores) for scores in values]
            assert one["value"] == pytest.approx(statistics.mean(means))
            if draws > 1:
                assert one["spread"] == pytest.approx(statistics.stdev(means))
    assert (one["spread"] is None) == (draws == 1)


def different(a, b):
    return (a is None) != (b is None) if None in (a, b) else abs(a - b) > 1e-5


def check_plan(bench, row, entry, items, gone):
    """The strict greedy figure of joint input, from what was planned to be said."""
    kinds = [
        "missing" if item.clip_id in gone else bench.kind(place, None)
        for place, item in enumerate(items)
    ]
    one = next(
        one
        for one in entry["figures"]
        if [one[key] for key in ("rule", "system", "mode", "decoding")]
        == ["strict", "model", "joint", "greedy"]
        and one["metric"] == row.metrics[0].name
    )
    if one["not_computed"] is not None:
        assert row.task is Task.CAPTION  # no Java, or no jars of SPICE
        return
    labels = [item.label for item in items]
    match row.task:
        case Task.CLASSIFICATION | Task.CHOICE | Task.CLASS_AND_WORDS:
            expected = kinds.count("right") / len(items)
        case Task.GENDER:
            told = [
                {"right": label, "wrong": {"male": "female", "female": "male"}[label]}.get(kind, "")
                for label, kind in zip(labels, kinds, strict=True)
            ]
            expected = f1_score(
                labels, told, labels=sorted(set(labels) | set(told) - {""}), average="macro"
            )
        case Task.AGE:
            charge = [max(float(label), 100 - float(label)) for label in labels]
            off = {"right": 0, "wrong": 7}
            expected = statistics.mean(
                off.get(kind, most) for kind, most in zip(kinds, charge, strict=True)
            )
        case Task.OPEN:
            expected = kinds.count("right") / len(items)  # by the judge
        case _:
            return
    assert one["value"] == pytest.approx(expected)
    assert one["missing"] == kinds.count("missing")
    assert one["refused"] == kinds.count("refused")
    assert one["unparsed"] == kinds.count("nonsense")


def check_tables(row, entry, items):
    """Groups, classes and confusion matrices add up to the items."""
    for group in {name for item in items for name in item.groups}:
        sizes = Counter(item.groups[group] for item in items if group in item.groups)
        assert {name: one["n"] for name, one in entry["groups"][group].items()} == sizes
    closed = row.task in (Task.CLASSIFICATION, Task.GENDER, Task.CLASS_AND_WORDS)
    assert ("per_class" in entry) == ("confusion" in entry) == closed
    if closed:
        sizes = Counter(item.label for item in items)
        assert {name: one["n"] for name, one in entry["per_class"].items()} == sizes
        for rule, draws in (("paper", row.draws), ("strict", 1)):
            table = entry["confusion"][rule]
            assert {name: sum(line.values()) for name, line in table.items()} == {
                name: size * draws for name, size in sizes.items()
            }
    added = {(one["rule"], one["without"]) for one in entry["grounding"]}
    assert added <= {(rule, "silence") for rule in RULES}


@pytest.mark.parametrize("bench", ["esc50"], indirect=True)
def test_intervals_resample_recordings_not_clips(bench):
    """Both takes of a recording stand or fall together in a bootstrap written as a plain loop."""
    assert bench.evaluate() == 0
    metrics = json.loads((bench.out / "metrics.json").read_text())
    one = next(
        one
        for one in metrics["rows"]["esc50"]["figures"]
        if (one["rule"], one["mode"], one["decoding"]) == ("strict", "joint", "sampling")
    )
    right: dict[str, list[list[float]]] = {}
    for line in bench.samples():
        if (line["mode"], line["decoding"]) == ("joint", "sampling"):
            cluster = right.setdefault(bench.clips[line["clip_id"]].cluster, [[], [], []])
            cluster[line["draw"]].append(line["scores"]["accuracy"]["strict"]["score"])
    generator, values = random.Random(0), []
    for _ in range(4_000):
        drawn = generator.choices(list(right.values()), k=len(right))
        shares = [[score for two in drawn for score in two[draw]] for draw in range(3)]
        values.append(statistics.mean(map(statistics.mean, shares)))
    low, high = np.percentile(values, (2.5, 97.5))
    assert (one["low"], one["high"]) == pytest.approx((low, high), abs=0.02)
    single = functools.reduce(lambda a, b: a + b, (two[0] for two in right.values()))
    assert len(right) == 10 and len(single) == 20
