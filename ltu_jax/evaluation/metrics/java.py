"""Reference programs for captions that exist in Java only: the Stanford tokenizer and METEOR 1.5.

They lie in the package `pycocoevalcap`, of which only the jars are used. What cannot run raises
`NotComputedError`. (SPICE, which needs more than that package, is in `metrics/spice.py`.)
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import TypeVar

from ltu_jax.evaluation.scoring.interface import NotComputedError

Tokens = tuple[str, ...]
Pair = tuple[Tokens, tuple[Tokens, ...]]  # a caption and its references
METEOR_COUNTS = 23

_TOKENIZER = Path("tokenizer/stanford-corenlp-3.4.1.jar")
_METEOR = Path("meteor/meteor-1.5.jar")
# What coco-caption takes out of the tokenized captions. It lists brackets in upper case only, after
# everything was made lower case: they stay in, as "-lrb-" (kept, or figures would not compare).
_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
# A guard against a Java that hangs. On a loaded machine a run takes many times its usual seconds,
# and which figures there are must not depend on that.
PATIENCE = 3600  # seconds, besides those that the work itself may take
_INSTALL = "install Java (apt install default-jre-headless) and run: pip install pycocoevalcap==1.2"

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")

# Ten metrics score the same captions, and references come back in every mode and draw: each text
# is sent to Java once in a process.
_tokens: dict[str, Tokens] = {}
_meteor: dict[Pair, tuple[float, ...]] = {}


def ptb_tokens(texts: Sequence[str]) -> list[Tokens]:
    """Return lower-case tokens without punctuation, as coco-caption has them for its metrics.

    The Stanford Penn Treebank tokenizer of CoreNLP 3.4.1 cuts them ("don't" is "do", "n't"), and
    then marks that stand alone are taken out; brackets stay, as there.

    Raises:
        NotComputedError: no Java, no jar, or the tokenizer failed.
    """
    return once(_tokens, texts, _tokenize)


def meteor_counts(pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
    """Return 23 numbers that each (caption, references) adds to the sums of `captions.meteor`.

    METEOR 1.5 in English with `-norm`, as coco-caption runs it, which picks the best reference. An
    empty caption matches nothing but keeps the words of a reference in the sums. A caption that
    matches as one whole has no chunk, since the jar leaves that one out of its sums.

    Raises:
        NotComputedError: no Java, no jar, or METEOR failed.
    """
    return once(_meteor, pairs, _align)


def java_version() -> int:
    """Return major version of the Java that is used: 8, 11, 17.

    Raises:
        NotComputedError: there is no Java, or it does not tell.
    """
    done = run_java(["-version"], program="java -version", stdin="")
    if not (match := re.search(r'version "(?:1\.)?(\d+)', done.stderr)):
        raise NotComputedError(f"java -version says {done.stderr.strip()[:100]!r}: {_INSTALL}")
    return int(match[1])


def once(
    known: dict[_Key, _Value],
    wanted: Sequence[_Key],
    compute: Callable[[Sequence[_Key]], Sequence[_Value]],
) -> list[_Value]:
    """Return the values of `wanted`, computing those not known yet together."""
    if new := [key for key in dict.fromkeys(wanted) if key not in known]:
        known.update(zip(new, compute(new), strict=True))
    return [known[key] for key in wanted]


def _tokenize(texts: Sequence[str]) -> list[Tokens]:
    jar = _jar(_TOKENIZER, program="the Penn Treebank tokenizer")
    # One caption a line, whatever white space it has: a line feed inside would shift all that
    # follow, and the tokenizer takes more characters than one for the end of a line.
    lines = [" ".join(text.split()) for text in texts]
    done = run_java(
        ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"],
        program="the Penn Treebank tokenizer",
        stdin="".join(f"{line}\n" for line in lines),
    )
    cut = done.stdout.split("\n")[:-1]
    if len(cut) != len(texts):
        raise NotComputedError(
            f"the Penn Treebank tokenizer gave {len(cut)} lines for {len(texts)} "
            "captions: look for unusual characters in them"
        )
    return [
        tuple(
            token for word in line.split(" ") if word not in _PUNCTUATION for token in word.split()
        )
        for line in cut
    ]


def _align(pairs: Sequence[Pair]) -> list[tuple[float, ...]]:
    jar = _jar(_METEOR, program="METEOR")
    lines = [
        "SCORE ||| " + " ||| ".join(_line(words) for words in (*references, caption))
        for caption, references in pairs
    ]
    done = run_java(
        ["-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"],
        program="METEOR",
        stdin="".join(f"{line}\n" for line in lines),
        seconds=PATIENCE + len(pairs) // 10,
    )
    rows = [line.split() for line in done.stdout.splitlines()]
    if len(rows) != len(pairs) or any(len(row) != METEOR_COUNTS for row in rows):
        raise NotComputedError(
            f"METEOR gave {len(rows)} lines for {len(pairs)} captions, or not "
            f"{METEOR_COUNTS} numbers in each: reinstall it (pip install --force-reinstall "
            "--no-deps pycocoevalcap==1.2)"
        )
    return [_summable(tuple(map(float, numbers))) for numbers in rows]


def _summable(counts: tuple[float, ...]) -> tuple[float, ...]:
    words, matches, chunks = counts[0:2], counts[4:20], counts[20]
    matched = (sum(matches[0::2]), sum(matches[1::2]))
    return (*counts[:20], 0.0, *counts[21:]) if (matched, chunks) == (words, 1.0) else counts


def _line(words: Tokens) -> str:
    """Join words for METEOR's line protocol, whose separator must not occur in them."""
    return " ".join(words).replace("|||", " ")


def run_java(
    arguments: Sequence[str], *, program: str, stdin: str, seconds: int = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run Java to its end; `NotComputedError` when it is not there, fails or takes too long."""
    # English, UTF-8: METEOR reads its numbers and SPICE its files as the locale says otherwise.
    options = ["-Dfile.encoding=UTF-8", "-Duser.language=en", "-Duser.country=US"]
    try:
        done = subprocess.run(
            [_java(program), *options, *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # half a surrogate pair, from a predictions file
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NotComputedError(
            f"{program} did not end within {seconds} s: free this machine of other work and run "
            "again"
        ) from None
    if done.returncode:
        last = " | ".join(done.stderr.strip().splitlines()[:3])[:300]
        raise NotComputedError(
            f"{program} ended with status {done.returncode}: {last}; try another Java (set "
            "JAVA_HOME)"
        )
    return done


def _java(program: str) -> str:
    """Return the Java of JAVA_HOME, else of PATH."""
    if home := os.environ.get("JAVA_HOME"):
        binary = shutil.which("java", path=str(Path(home, "bin")))
        where = f"JAVA_HOME is {home}, which has no bin/java; correct it, or unset it and"
    else:
        binary, where = shutil.which("java"), "no java is on the PATH;"
    if binary is None:
        raise NotComputedError(f"{program} runs in Java and {where} {_INSTALL}")
    return binary


def package(program: str) -> Path:
    """Return folder of the installed `pycocoevalcap`, without importing it."""
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise NotComputedError(
            f"{program} lies in the package pycocoevalcap, which is not installed; {_INSTALL}"
        )
    return Path(list(spec.submodule_search_locations)[0])


def _jar(inside: Path, *, program: str) -> Path:
    jar = package(program) / inside
    if not jar.is_file():
        raise NotComputedError(f"{program} should be {jar}, which is missing; {_INSTALL}")
    return jar
