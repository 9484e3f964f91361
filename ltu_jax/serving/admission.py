"""Requests as the engine takes them: checked, with their sizes, before anything is computed."""

import time
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from ltu_jax.core.errors import UserError, brief, spell
from ltu_jax.core.values import number, text, whole
from ltu_jax.generation import arguments
from ltu_jax.generation.answer_text import AnswerText
from ltu_jax.generation.limits import USUAL
from ltu_jax.generation.loading import LoadedModel
from ltu_jax.generation.text_loading import LanguageModel
from ltu_jax.serving.engine_types import MOST_TOP_LOGPROBS, EngineRequest, JsonGrammar
from ltu_jax.serving.json_grammar import JsonGrammars
from ltu_jax.serving.running_row import RunningRow
from ltu_jax.serving.slot_choice import MOST_ENDS
from ltu_jax.serving.slot_programs import RowRequest, SlotPrograms, audio_ids
from ltu_jax.serving.tickets import Ticket
from ltu_jax.serving.token_texts import TokenTexts

MOST_STOPS = 16


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Turns requests into rows of one model."""

    model: LoadedModel | LanguageModel
    programs: SlotPrograms
    ends: tuple[int, ...]
    texts: TokenTexts
    grammars: JsonGrammars = field(repr=False)

    @classmethod
    def of(cls, model: LoadedModel | LanguageModel, programs: SlotPrograms) -> Self:
        """Prepare for a model.

        Raises:
            UserError: it has no tokenizer.
        """
        if model.tokenizer is None:
            raise UserError(f"{model.path} has no tokenizer, so it cannot answer in text")
        ends = (model.tokenizer.eos_id,)
        if isinstance(model, LanguageModel):
            ends = tuple(dict.fromkeys((*ends, *model.ends)))
        rows = programs.llama.vocab_size
        return cls(
            model=model,
            programs=programs,
            ends=ends,
            texts=TokenTexts(model.tokenizer),
            grammars=JsonGrammars(tokenizer=model.tokenizer, rows=rows, ends=ends),
        )

    def row(self, request: EngineRequest, *, ticket: Ticket) -> RunningRow:
        """Return a request as a row that waits for a slot.

        Raises:
            UserError: a field that cannot be used, by its name.
        """
        features = self._features(request)
        audio = len(features) * self.programs.audio_tokens
        limit = self._limit(request, places=audio + len(request.prompt))
        prompt = self._prompt(request)  # token by token: behind the check of their number
        top = whole("top_logprobs", request.top_logprobs, least=0, most=MOST_TOP_LOGPROBS)
        if top and not request.logprobs:
            raise UserError(f"{spell('top_logprobs', top)} without logprobs: set logprobs too")
        ends = tuple(dict.fromkeys((*self.ends, *request.end_ids)))
        if len(ends) > MOST_ENDS:
            raise UserError(
                f"end_ids {brief(request.end_ids)}: at most {MOST_ENDS - 1} besides EOS"
            )
        now, deadline = time.monotonic(), request.deadline
        if deadline is not None:
            rule = "give seconds above 0, at most 1e9"
            deadline = now + number("deadline", deadline, above=0, most=1e9, rule=rule)
        return RunningRow(
            ticket=ticket,
            program=RowRequest(
                ids=np.concatenate([audio_ids(audio), np.asarray(prompt, np.int32)]),
                limit=limit,
                ends=ends,
                sampling=arguments.one_config(request.sampling),
                logprobs=bool(request.logprobs),
                lookup=bool(request.prompt_lookup),
            ),
            features=features,
            audio=audio,
            top=top,
            text=AnswerText(self.model.tokenizer, stop=self._stop(request)),
            texts=self.texts,
            matcher=self._matcher(request.grammar),
            submitted=now,
            deadline=deadline,
        )

    def _features(self, request: EngineRequest) -> tuple[np.ndarray, ...]:
        config = self.model.model.config
        if request.clips and not self.programs.hears:
            raise UserError(f"clips: {self.model.path} is a language model alone and hears nothing")
        clips = [arguments.encoded_clip(one, config=config) for one in request.clips]
        heard = tuple(
            np.asarray(one.features, np.float32) for one in clips if one.features is not None
        )
        most = self.programs.sizes.clips
        if len(heard) > most:
            raise UserError(f"clips: {len(heard)} with audio; one request has at most {most}")
        return heard

    def _prompt(self, request: EngineRequest) -> tuple[int, ...]:
        most = self.programs.llama.vocab_size - 1
        prompt = tuple(request.prompt)
        if not prompt:
            raise UserError("prompt is empty; give the ids of the text behind the audio")
        for index, one in enumerate(prompt):
            whole(f"prompt[{index}]", one, least=0, most=most)
        return prompt

    def _limit(self, request: EngineRequest, *, places: int) -> int:
        slot = self.programs.sizes.slot_tokens
        bound = min(slot, self.model.positions or slot)
        left = bound - places
        if left < 1:
            raise UserError(
                f"prompt: {places:,} tokens of audio and text, and {bound:,} hold them and the "
                f"answer; at most {bound - 1:,} fit: ask shorter"
            )
        if request.max_new_tokens is None:
            return min(USUAL, left)
        given = whole("max_new_tokens", request.max_new_tokens)
        if given > left:
            raise UserError(
                f"{spell('max_new_tokens', given)}: {places:,} tokens of audio and text and the "
                f"answer must fit into {bound:,}; give at most {left:,}"
            )
        return given

    def _stop(self, request: EngineRequest) -> tuple[str, ...]:
        if isinstance(request.stop, str) or len(request.stop) > MOST_STOPS:
            raise UserError(f"stop {brief(request.stop)}: give at most {MOST_STOPS} strings")
        for index, one in enumerate(request.stop):
            if not text(f"stop[{index}]", one):
                raise UserError(f"stop[{index}] is empty; leave it out")
        return tuple(request.stop)

    def _matcher(self, grammar: Any) -> Any:
        if grammar is None:
            return None
        if not isinstance(grammar, JsonGrammar):
            raise UserError(f"grammar is {brief(grammar)}: give a JsonGrammar")
        return self.grammars.matcher(grammar)
