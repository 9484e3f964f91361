"""A server put together of a model: its engine, its workers, its threads, its routes."""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np

from ltu_jax.core.kept_programs import ProgramStore
from ltu_jax.generation import explain
from ltu_jax.generation.request import AnswerMode
from ltu_jax.generation.text_loading import LanguageModel
from ltu_jax.inference import Model
from ltu_jax.preprocessing.audio import SAMPLE_RATE, from_samples
from ltu_jax.serving.answer_explanations import AnswerExplanations
from ltu_jax.serving.chat_answers import ChatAnswers
from ltu_jax.serving.chat_template import ChatTemplate
from ltu_jax.serving.clip_batches import ClipBatches, batch_sizes
from ltu_jax.serving.clip_cache import ClipCache
from ltu_jax.serving.decode_pool import DecodePool
from ltu_jax.serving.engine_types import AnswerEngine
from ltu_jax.serving.http_app import HttpApp
from ltu_jax.serving.page import FILES, HEADERS
from ltu_jax.serving.server_settings import ServerSettings
from ltu_jax.serving.serving_metrics import ServingMetrics
from ltu_jax.serving.speech_texts import SpeechTexts


def app_of(
    model: Model | LanguageModel,
    engine: AnswerEngine,
    settings: ServerSettings,
    *,
    dtype: str,
    programs: ProgramStore,
    on_ready: Callable[[], None] = lambda: None,
) -> HttpApp:
    """Return the application that serves a model by an engine over it.

    Args:
        model: what is served.
        engine: answers by it.
        settings: limits.
        dtype: of the language model, as it was loaded.
        programs: keep what is compiled; see `store_of`.
        on_ready: called when requests are taken.

    Raises:
        UserError: a language model alone, without a chat template.
    """
    alone = isinstance(model, LanguageModel)
    metrics, pool = ServingMetrics(settings.model_name), DecodePool(workers=settings.decode_workers)
    fingerprint = fingerprint_of(model, dtype=dtype)
    executor = ThreadPoolExecutor(1, thread_name_prefix="hearing", initializer=programs.use)
    hearing, sizes = None, ()
    if not alone:
        sizes = batch_sizes(model.whispers)
        hearing = ClipCache(
            batches=ClipBatches(whispers=model.whispers, executor=executor, most=sizes[-1]),
            fingerprint=fingerprint,
            pool=pool,
            metrics=metrics,
            most_bytes=settings.cache_bytes,
            most_seconds=settings.most_chat_seconds,
        )
    chat = ChatAnswers(
        engine=engine,
        tokenizer=model.tokenizer,
        hearing=hearing,
        ends=frozenset((model.tokenizer.eos_id, *(model.ends if alone else ()))),
        settings=settings,
        metrics=metrics,
        fingerprint=f"ltu_{fingerprint[:16]}",
        template=ChatTemplate.of(model.tokenizer_dir) if alone else None,
    )
    speech = SpeechTexts(
        transcriber=None if alone else model.transcriber,
        pool=pool,
        executor=ThreadPoolExecutor(1, thread_name_prefix="transcribing", initializer=programs.use),
        settings=settings,
        metrics=metrics,
        streams=chat.streams,
    )

    def warm() -> None:
        with programs.used():
            _warm(model, engine, sizes=sizes)
        for source in ("kept", "compiled"):
            metrics.programs.labels(source).set(programs.counts[source])

    describe = {"modes": ["text"], "dtype": dtype}
    explanations = None
    if not alone:
        modes = [str(mode) for mode in AnswerMode]
        describe |= {"modes": modes, "window_seconds": model.window_seconds}
        explanations = AnswerExplanations(chat=chat, model=model, executor=executor)
    return HttpApp(
        settings=settings,
        engine=engine,
        pool=pool,
        chat=chat,
        speech=speech,
        metrics=metrics,
        warm=warm,
        describe=describe,
        explanations=explanations,
        pages=FILES,
        page_headers=HEADERS,
        on_ready=on_ready,
    )


def _warm(model: Model | LanguageModel, engine: AnswerEngine, *, sizes: Sequence[int]) -> None:
    """Compile what answers need, and explanations of them; `sizes` of batches of clips."""
    if isinstance(model, Model):
        model.whispers.warm(rows=sizes)
    if isinstance(model, Model) and model.listener is not None:
        silence = from_samples(np.zeros(SAMPLE_RATE, np.float32), rate=SAMPLE_RATE, name="silence")
        explain.warm(
            model.model,
            model.params,
            audio_features=model.listen(silence, mode=AnswerMode.AUDIO).features[None],
            longest=engine.stats().slot_tokens - model.config.audio_tokens,
        )
    engine.warm()  # last: it counts what is compiled from then on


def store_of(model: Model | LanguageModel, *, dtype: str) -> ProgramStore:
    """Return where the compiled programs of a model are kept."""
    return ProgramStore.of(fingerprint_of(model, dtype=dtype))


def fingerprint_of(model: Model | LanguageModel, *, dtype: str) -> str:
    """Return a hash of all that decides what a model hears and answers: weights, rule, precision.

    The same weights elsewhere have the same.
    """
    rule = {} if isinstance(model, LanguageModel) else asdict(model.rule)
    facts = json.dumps([model.weights_sha256, dtype, rule], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()
