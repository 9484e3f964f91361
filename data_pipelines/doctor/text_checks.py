"""What questions and answers say: no answer at all, the same again, too long for the cut-off."""

import re
from collections import Counter, defaultdict
from typing import Any

from data_pipelines.doctor.checks import Findings
from data_pipelines.doctor.data_readers import Case
from data_pipelines.input.token_counts import pair_tokens
from ltu_jax.preprocessing.text import Tokenizer

_SPOKEN_WORDS = 5  # shorter texts recur by chance
_ANSWER_WORDS = 8
_UNANSWERABLE = re.compile(
    r"\b(can(no|')t|can not|could( no|n')t|unable to|(im|not )possible to|difficult to)\b.{0,30}"
    r"\b(determine|tell|answer|infer|identify|know|say)"
    r"|\b(not|n't) (be )?(specified|mentioned|provided|stated|determined|inferred|answered)\b"
    r"|\b(do|does)( no|n')t (know|specify|mention|provide|say)\b"
    r"|\bno (specific )?(information|details?|indication|mention)\b"
    r"|\b(insufficient|not enough) (information|context|details?)\b"
    r"|\bas an (ai|language model)\b|\bunanswerable\b",
    re.IGNORECASE,
)


def is_unanswerable(answer: str) -> bool:
    """Return whether an answer says that the question cannot be answered from the audio."""
    return _UNANSWERABLE.search(answer.replace("\u2019", "'")) is not None


class Texts:
    """Takes clips one by one; `finish` tells what only all of them together show."""

    def __init__(self, findings: Findings, *, tokenizer: Tokenizer | None, cutoff: int):
        self._findings = findings
        self._tokenizer, self._cutoff = tokenizer, cutoff
        self.lengths: Counter[int] = Counter()  # tokens, or characters without a tokenizer
        self._by_task: dict[str, Counter[str]] = defaultdict(Counter)
        self._tokens = self._lost = 0
        self._spoken: dict[int, set[str]] = defaultdict(set)  # hash of the text -> splits
        self._answers: dict[int, set[str]] = defaultdict(set)
        self._held_out: list[tuple[str, int, str, str]] = []

    def add(self, case: Case) -> None:
        """Look at the texts of a clip."""
        if not case.pairs:
            self._findings.add("no_pairs", where=case.where, detail=case.clip_id)
        self._remember("leaked_text", case.spoken_text, _SPOKEN_WORDS, self._spoken, case)
        answers: dict[str, set[str]] = defaultdict(set)
        for pair in case.pairs:
            question, answer = _plain(pair.instruction), _plain(pair.output)
            if answer in answers[question]:
                self._findings.add("repeated", where=case.where, detail=pair.instruction)
            elif answers[question]:
                detail = f"{pair.instruction} -> {pair.output}"
                self._findings.add("contradictions", where=case.where, detail=detail)
            answers[question].add(answer)
            if is_unanswerable(pair.output):
                detail = f"{pair.instruction} -> {pair.output}"
                self._findings.add("unanswerable", where=case.where, detail=detail)
            if not pair.closed_ended:
                self._remember("shared_answers", pair.output, _ANSWER_WORDS, self._answers, case)
            self._measure(case, pair)

    def _measure(self, case: Case, pair: Any) -> None:
        if self._tokenizer is None:
            self.lengths[len(pair.instruction) + len(case.spoken_text) + len(pair.output)] += 1
            return
        prompt, whole = pair_tokens(
            self._tokenizer,
            instruction=pair.instruction,
            spoken_text=case.spoken_text,
            output=pair.output,
        )
        self.lengths[whole] += 1
        self._tokens += whole
        self._by_task[pair.task]["pairs"] += 1
        if whole - 1 <= prompt:  # nothing but EOS
            self._findings.add("no_token", where=case.where, detail=repr(pair.output))
        if whole > self._cutoff:
            self._lost += whole - self._cutoff
            self._by_task[pair.task]["cut"] += 1
            detail = f"{whole} tokens, {prompt} of them the prompt: {pair.instruction}"
            self._findings.add("cut", where=case.where, detail=detail)
        if prompt >= self._cutoff:
            self._by_task[pair.task]["answers gone"] += 1
            detail = f"the prompt alone has {prompt} tokens: {pair.instruction}"
            self._findings.add("answers_gone", where=case.where, detail=detail)

    def _remember(
        self, check: str, text: str, words: int, places: dict[int, set[str]], case: Case
    ) -> None:
        plain = _plain(text)
        if plain.count(" ") + 1 < words:
            return
        key = hash(plain)
        places[key].add(case.split)
        if case.split != "train":
            self._held_out.append((check, key, case.where, text))

    def finish(self) -> None:
        """Count held-out texts that stand in the training split too."""
        for check, key, where, text in self._held_out:
            places = self._spoken if check == "leaked_text" else self._answers
            if "train" in places[key]:
                self._findings.add(check, where=where, detail=text)

    def tokens(self) -> dict[str, Any] | None:
        """Count what the cut-off takes of the pairs; None without a tokenizer."""
        if self._tokenizer is None:
            return None
        return {
            "cutoff": self._cutoff,
            "total": self._tokens,
            "lost": self._lost,
            "tasks": {task: dict(counts) for task, counts in sorted(self._by_task.items())},
        }


def _plain(text: str) -> str:
    """Return `text` in lower case, without punctuation, words one space apart."""
    return " ".join(re.findall(r"\w+", text.lower()))
