"""The model card: each figure is from a file that a command wrote, or is said to be missing."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.core.files import read_json
from ltu_jax.shipping.held_out_answers import QUESTION, HeldOutAnswer
from ltu_jax.shipping.run_parity import ANSWERS
from ltu_jax.shipping.training_data import TrainingData
from ltu_jax.weights.parity import certificate
from ltu_jax.weights.pinned_weights import PINNED

FILE = "MODEL_CARD.md"
_NOT_MEASURED = "Not measured for this version."
_LIMITS = (
    "It hears the first 10 s of a clip, at 16 kHz, one channel; it says how much is dropped.",
    "It reads what is said from Whisper's transcript, so what Whisper mishears is misheard here.",
    "It knows the classes that it was trained on, named in the data above; of others it says the "
    "nearest, or denies them.",
    "Answers are short and may be wrong; nothing here is fit for decisions about people or safety.",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a card is made of; None is what nobody measured or told.

    Attributes:
        metadata: run.json of the shipped folder.
        parity: its certificate.
        sizes: bytes of each part.
        data: what it was trained on.
        scores: by title, the tasks of summaries that `evaluate --summary` wrote.
        answers: about six held-out clips.
        command: that trained it, from nothing.
        limits: further ones, as a person wrote them.
    """

    metadata: Mapping[str, Any]
    parity: Mapping[str, Any]
    sizes: Mapping[str, int]
    data: TrainingData | None
    scores: Mapping[str, Mapping[str, Any]]
    answers: Sequence[HeldOutAnswer]
    command: str | None
    limits: str | None


def read_scores(path: Path) -> Mapping[str, Any]:
    """Return the tasks of a summary of `evaluate --summary`.

    Raises:
        UserError: another file.
    """
    content = read_json(path)
    tasks = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(tasks, dict) or not all(isinstance(task, dict) for task in tasks.values()):
        raise UserError(
            f"--scores {path} has no tasks: give a file that `python -m ltu_jax.evaluate --summary "
            "FILE` wrote"
        )
    return tasks


def card(facts: CardFacts) -> str:
    """Return the card in Markdown."""
    parts = (
        ("The model", _model(facts)),
        ("Base weights", _bases(facts)),
        ("Trained on", _data(facts)),
        ("How it was trained", _training(facts)),
        ("Scores", _scores(facts)),
        (f"Six answers about held-out clips, to “{QUESTION}”", _answers(facts)),
        ("Parity with the run", _parity(facts)),
        ("What it cannot do", _limits(facts)),
    )
    text = "\n".join(f"## {title}\n" + "\n".join(lines) + "\n" for title, lines in parts)
    return f"# LTU-AS of ltu_jax: the model in the package\n\n{text}"


def _model(facts: CardFacts) -> Iterator[str]:
    model = facts.metadata["model"]
    lora, llama = model["lora"], model["llama"]
    yield (
        f"Whisper's layers ({model['audio_layers']}) go through a TLTR of width "
        f"{model['tltr']['d_model']} and a projection to {model['audio_tokens']} audio tokens; a "
        f"language model of {llama['num_hidden_layers']} layers and width {llama['hidden_size']} "
        "answers" + (f", with LoRA of rank {lora['rank']}." if lora else ", without LoRA.")
    )
    yield ""
    yield "Here are the trained parameters, in bfloat16:"
    yield ""
    yield from _table(
        ("part", "MB"), [(name, f"{size / 1e6:.2f}") for name, size in facts.sizes.items()]
    )


def _bases(facts: CardFacts) -> Iterator[str]:
    yield (
        "They are frozen, not in the package, and fetched on first use from these packages of the "
        "Python registry, each archive by its SHA-256. Another file of the same language model is "
        "taken where its numbers, settings and tokens are the same, of the same Whisper where it "
        "computes the same; others are refused with the reason."
    )
    yield ""
    rows = []
    for name, entry in facts.metadata["base"].items():
        held = entry["source"][PINNED]
        for package in held["packages"]:
            archive, digest = package["archives"][0]
            rows.append((name, held["name"], f"{package['name']} {package['version']}",
                         package["license"], f"`{archive}` {digest[:16]}..."))  # fmt: skip
    yield from _table(("for", "weights", "package", "licence", "archive and SHA-256"), rows)


def _data(facts: CardFacts) -> Iterator[str]:
    if facts.data is None:
        yield "Not told: the command that wrote this card was given no corpus (`--corpus`)."
        return
    yield f"{facts.data.clips:,} clips. No recording is in the package."
    yield ""
    if facts.data.by_class:
        named = "; ".join(f"{name} {count}" for name, count in sorted(facts.data.by_class.items()))
        yield f"Clips of {len(facts.data.by_class)} classes of sound: {named}."
        yield ""
    yield from _table(
        ("package", "version", "holds", "licences"),
        [
            (use.name, use.version, f"{use.holds:,} {use.what}", ", ".join(use.licences))
            for use in facts.data.uses
        ],
    )
    yield ""
    yield from _table(
        ("licence of a clip", "clips"),
        [(name, f"{count:,}") for name, count in sorted(facts.data.by_licence.items())],
    )


def _training(facts: CardFacts) -> Iterator[str]:
    metadata = facts.metadata
    yield f"{metadata['stage']}, step {metadata['step']}; all keys of the recipe are in run.json."
    yield ""
    if facts.command is None:
        yield "The command was not told (`--command`)."
    else:
        yield from ("```", facts.command, "```")


def _scores(facts: CardFacts) -> Iterator[str]:
    if not facts.scores:
        yield _NOT_MEASURED
        return
    for title, tasks in facts.scores.items():
        yield f"**{title}** (95 % intervals)"
        yield ""
        rows = [
            (task, mode, *_figure(figure))
            for task, modes in tasks.items()
            for mode, figure in modes.items()
            if isinstance(figure, Mapping) and "value" in figure
        ]
        yield from _table(("task", "given", "value", "interval", "questions"), rows)
        yield ""


def _figure(figure: Mapping[str, Any]) -> tuple[str, str, str]:
    value, low, high = (figure.get(key) for key in ("value", "low", "high"))
    shown = _NOT_MEASURED if value is None else f"{value:.3f}"
    interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
    return shown, interval, str(figure.get("n", ""))


def _answers(facts: CardFacts) -> Iterator[str]:
    if not facts.answers:
        yield _NOT_MEASURED
        return
    yield "Of packages held out for validation: the first clip of each of six groups by hash."
    yield ""
    yield from _table(
        ("group", "class", "clip", "package", "answer, unedited"),
        [(one.group, one.label, one.clip, one.package, one.answer) for one in facts.answers],
    )


def _parity(facts: CardFacts) -> Iterator[str]:
    answers = facts.parity[ANSWERS]
    same = answers["asked"] - len(answers["differing"])
    yield (
        f"{certificate.FILE}: {facts.parity['verdict']}. Of {answers['asked']} greedy answers to "
        f"questions about a fixed clip, {same} are those of the run in float32, token for token."
    )
    yield ""
    yield from ("```", certificate.table(facts.parity), "```")


def _limits(facts: CardFacts) -> Iterator[str]:
    yield from (f"- {line}" for line in _LIMITS)
    if facts.limits is not None:
        yield from ("", facts.limits.strip())


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|")
