"""SPICE 1.0 by its authors' program: F-score of the objects, attributes and relations of captions.

It needs Stanford CoreNLP 3.6.0, which no package ships. Where that is not found the figure is not
computed: scores by another parser are another metric.
"""

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ltu_jax.evaluation.metrics import java
from ltu_jax.evaluation.scoring.interface import NotComputedError

_SPICE = "spice-1.0.jar"
_CORENLP = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
# SPICE writes its results through a JavaScript engine that Java has had up to this version.
_LAST_JAVA_WITH_SCRIPTS = 14
_GET_CORENLP = (
    "SPICE needs Stanford CoreNLP 3.6.0, which no package ships; this command puts "
    "it into the folder spice of pycocoevalcap, which is used by default: "
    "python -m pycocoevalcap.spice.get_stanford_models"
)

# SPIDEr asks for the same scores again, and parsing takes minutes.
_known: dict[tuple[Path, java.Pair], float] = {}


def spice_scores(pairs: Sequence[java.Pair], *, jars: Path | None) -> list[float]:
    """Return SPICE of each (caption, references), 0 to 1, by its authors' program.

    An empty caption has no proposition and so 0, without being sent.

    Args:
        pairs: tokens of captions and references.
        jars: folder with spice-1.0.jar and, there or in its `lib`, the jars that it needs, Stanford
            CoreNLP 3.6.0 and its models among them; None is the folder inside `pycocoevalcap`.

    Raises:
        NotComputedError: a jar or Java is missing, this Java is too new, or SPICE failed.
    """
    folder = jars if jars is not None else java.package("SPICE") / "spice"
    classes = class_path(folder)

    def run(keys: Sequence[tuple[Path, java.Pair]]) -> list[float]:
        return _propositions([pair for _, pair in keys], classes)

    sent = [(folder, pair) for pair in pairs if pair[0]]
    scores = dict(zip(sent, java.once(_known, sent, run), strict=True))
    return [scores[folder, pair] if pair[0] else 0.0 for pair in pairs]


def class_path(folder: Path) -> list[Path]:
    """Return the jars of SPICE in `folder` and its `lib`, CoreNLP 3.6.0 before the others.

    Raises:
        NotComputedError: a jar is missing, or Java is missing or newer than SPICE can use.
    """
    jars = sorted([*folder.glob("*.jar"), *(folder / "lib").glob("*.jar")])
    names = {jar.name: jar for jar in jars}
    if _SPICE not in names:
        raise NotComputedError(
            f"SPICE should be in {folder}, which has no {_SPICE}: give the folder "
            "spice of the installed package pycocoevalcap, or none"
        )
    if missing := [name for name in _CORENLP if name not in names]:
        raise NotComputedError(f"{_GET_CORENLP} ({folder} lacks {' and '.join(missing)})")
    version = java.java_version()
    if version > _LAST_JAVA_WITH_SCRIPTS and not any(name.startswith("nashorn") for name in names):
        raise NotComputedError(
            f"SPICE 1.0 needs Java 8 to {_LAST_JAVA_WITH_SCRIPTS} (it writes its "
            f"results through Java's JavaScript engine) and this is Java {version}: set JAVA_HOME "
            f"to such a Java, or put nashorn-core-15.4.jar and its asm jars into {folder}"
        )
    first = [names[_SPICE], *(names[name] for name in _CORENLP)]
    return first + [jar for jar in jars if jar not in first]


def parse_spice(text: str, *, count: int) -> list[float]:
    """Return F-scores over all propositions from SPICE's JSON, in the order of image ids.

    Args:
        text: a list of {"image_id": 0 to count - 1, "scores": {"All": {"f", "pr", ...}, ...}}.
        count: captions that were sent.

    Raises:
        NotComputedError: an id is missing, or has no score.
    """
    scores: dict[int, float] = {}
    for entry in json.loads(text):
        value = entry["scores"]["All"]["f"]
        if value is not None and math.isfinite(value):
            scores[entry["image_id"]] = float(value)
    if missing := sorted(set(range(count)) - scores.keys()):
        raise NotComputedError(
            f"SPICE gave no score for {len(missing)} of {count} captions (the first "
            f"is number {missing[0]}): run it again, with another Java if it stays so"
        )
    return [scores[number] for number in range(count)]


def _propositions(pairs: Sequence[java.Pair], jars: Sequence[Path]) -> list[float]:
    request = [
        {
            "image_id": number,
            "test": " ".join(caption),
            "refs": [" ".join(words) for words in references],
        }
        for number, (caption, references) in enumerate(pairs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "captions.json"), Path(folder, "scores.json")
        question.write_text(json.dumps(request), encoding="utf-8")
        # Without its cache of parses: that needs a native library which some systems lack.
        java.run_java(
            [
                *("-Xmx8G", "-cp", os.pathsep.join(map(str, jars))),
                *("edu.anu.spice.SpiceScorer", str(question), "-out", str(answer), "-silent"),
            ],
            program="SPICE",
            stdin="",
            seconds=java.PATIENCE + sum(1 + len(references) for _, references in pairs),
        )
        return parse_spice(answer.read_text(encoding="utf-8"), count=len(pairs))
