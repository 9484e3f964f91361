"""Free answers about real recordings, read as one of 18 groups of sounds.

`sound_groups.toml` has the words of each group. An answer that names no group or several is wrong:
nothing is guessed, and what a sentence denies or doubts is not named.
"""

import dataclasses
import functools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.metrics import scripts
from ltu_jax.evaluation.metrics.bootstrap import ratio
from ltu_jax.evaluation.metrics.words import around_words
from ltu_jax.evaluation.scoring import strict
from ltu_jax.evaluation.scoring.classification import words_quoted
from ltu_jax.evaluation.scoring.interface import Answered, AnswerScore, Metric, ScoringRule, Tools
from ltu_jax.evaluation.scoring.shared import named, one_by_one, right_or_wrong

_FILE = "sound_groups.toml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupWords:
    """The words of `sound_groups.toml`.

    Attributes:
        version: of the lists.
        labels: class of a recording -> its group.
        names: words that name a group -> the group; "" of what belongs to none.
        sounds: words that name a group where nothing else is named -> the group.
    """

    version: int
    labels: Mapping[str, str]
    names: Mapping[str, str]
    sounds: Mapping[str, str]

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order of the file."""
        return tuple(dict.fromkeys(self.labels.values()))


@functools.cache
def words() -> GroupWords:
    """Return the lists; each word stands in one of them."""
    table = tomllib.loads(resources.files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))
    names, sounds, labels = dict.fromkeys(table["others"], ""), {}, {}
    for group, lists in table["groups"].items():
        labels |= dict.fromkeys(lists["labels"], group)
        sounds |= dict.fromkeys(lists["sounds"], group)
        names |= dict.fromkeys(lists["names"], group)
    # A label that is also an unspecific word ("Howl", "Clang") stays one.
    spelled = {word.lower() for word in sounds}
    names |= {label: group for label, group in labels.items() if label.lower() not in spelled}
    return GroupWords(version=table["version"], labels=labels, names=names, sounds=sounds)


def named_groups(answer: str) -> tuple[str, ...]:
    """Return the groups that an answer says to be heard, in the order of the file."""
    known = words()
    said = strict.named_classes(answer, (*known.names, *known.sounds))
    groups = {known.names[word] for word in said if word in known.names} - {""}
    groups = groups or {known.sounds[word] for word in said if word in known.sounds}
    return tuple(group for group in known.groups if group in groups)


def named_group(answer: str) -> str | None:
    """Return the one group that an answer names; None when it names none or several."""
    groups = named_groups(answer)
    return groups[0] if len(groups) == 1 else None


def group_of(label: str) -> str:
    """Return the group of a class.

    Raises:
        UserError: the class is in none.
    """
    group = words().labels.get(label, label)
    if group not in words().groups:
        raise UserError(
            f"{label!r} is no class of the 18 groups and no group: give a label of {_FILE}, or "
            "leave the item out of this metric"
        )
    return group


def graded(answered: Answered) -> AnswerScore:
    """Score an answer by the one group that it names; the item's label is a class or a group."""
    label = group_of(answered.item.label)
    guess = None if answered.output is None else named_group(answered.output)
    return right_or_wrong(
        guess,
        right=guess == label,
        status=strict.status(answered.output, parsed=guess is not None),
    )


def group_metrics() -> tuple[Metric, ...]:
    """Return accuracy over the groups. No paper has it, so both readings are ours."""
    rule = ScoringRule(
        describe=named(f"accuracy over 18 groups, words v{words().version}"),
        grade=one_by_one(graded),
        statistic=ratio,
    )
    return (Metric(name="group accuracy", paper=rule, strict=rule, higher=True),)


def graded_with_words(answers: Sequence[Answered], tools: Tools) -> list[AnswerScore]:
    """Score the one group that each answer names outside the spoken text, with its words.

    The words are right within the tolerance that other joint answers have.
    """
    english = scripts.english([answered.spoken_text for answered in answers])
    scores = []
    for answered in answers:
        label = group_of(answered.item.label)
        guess = named_group(around_words(answered.output or ""))
        scores.append(
            right_or_wrong(
                guess,
                right=guess == label and words_quoted(answered, english=english),
                status=strict.status(answered.output, parsed=guess is not None),
            )
        )
    return scores


def group_and_words_metrics() -> tuple[Metric, ...]:
    """Return the share of joint answers with the right group and words. Both readings are ours."""
    rule = ScoringRule(
        describe=named(f"both right, groups by words v{words().version}"),
        grade=graded_with_words,
        statistic=ratio,
    )
    return (Metric(name="both right", paper=rule, strict=rule, higher=True),)
