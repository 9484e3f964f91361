"""Counts of a server, by vLLM's names where it has them: what dashboards know."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ltu_jax.serving.engine_types import EngineStats as Stats
from ltu_jax.serving.engine_types import Finished, FinishReason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SHORT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 30)
_LONG = (0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 60, 120, 300, 600)


class ServingMetrics:
    """The metrics of one server; they hold numbers, and names of routes, and nothing of anybody."""

    def __init__(self, model_name: str):
        self.registry, self._model = CollectorRegistry(), model_name
        self.running = self._gauge("num_requests_running", "requests being answered")
        self.waiting = self._gauge("num_requests_waiting", "requests waiting for a slot")
        self.prompt_tokens = self._counter("prompt_tokens", "tokens of prompts")
        self.prefix_queries = self._counter("prefix_cache_queries", "tokens of prompts looked for")
        self.prefix_hits = self._counter("prefix_cache_hits", "tokens of prompts not read again")
        self.generation_tokens = self._counter("generation_tokens", "tokens made")
        self.success = self._counter(
            "request_success", "answers that ended", labels=("finished_reason",)
        )
        self.first_token = self._histogram("time_to_first_token_seconds", "to the first token")
        self.per_token = self._histogram("time_per_output_token_seconds", "of a token behind it")
        self.queue_time = self._histogram("request_queue_time_seconds", "waiting for a slot")
        self.latency = self._histogram(
            "e2e_request_latency_seconds", "from a request to its end", buckets=_LONG
        )
        # Of ours:
        self.slots = self._gauge("slots", "answers made at once", prefix="ltu")
        self.compiled = self._gauge("compiled_programs", "since warm; 0 is right", prefix="ltu")
        self.programs = self._gauge(
            "start_programs", "programs of the start, by where they came from", prefix="ltu",
            labels=("source",),
        )  # fmt: skip
        self.audio_seconds = self._counter("audio_seconds", "audio heard", prefix="ltu")
        self.heard = self._counter("heard", "clips asked for", prefix="ltu", labels=("cache",))
        self.workers_replaced = self._gauge(
            "decode_workers_replaced", "decoding processes that were replaced", prefix="ltu"
        )
        self.responses = Counter(
            "ltu:http_responses", "responses by route and status",
            ("route", "status"), registry=self.registry,
        )  # fmt: skip

    def finished(self, event: Finished) -> None:
        """Count an answer that ended."""
        self.prompt_tokens.inc(event.usage.prompt)
        self.prefix_queries.inc(event.usage.prompt)
        self.prefix_hits.inc(event.usage.cached)
        self.generation_tokens.inc(event.usage.completion)
        reason = "abort" if event.reason is FinishReason.CANCELLED else str(event.reason)
        self.success.labels(reason).inc()
        times = event.timings
        self.queue_time.observe(times.queued)
        if event.usage.completion > 0:
            self.first_token.observe(times.queued + times.first_token)
        if event.usage.completion > 1:
            self.per_token.observe(times.decoding / (event.usage.completion - 1))

    def text(self, stats: Stats, *, replaced: int) -> bytes:
        """Return everything in the text format of Prometheus."""
        self.running.set(stats.busy)
        self.waiting.set(stats.queued)
        self.slots.set(stats.slots)
        self.compiled.set(stats.compiled)
        self.workers_replaced.set(replaced)
        return generate_latest(self.registry)

    def _named(self, kind, name, text, labels=(), prefix="vllm", **options):
        made = kind(
            f"{prefix}:{name}", text, ("model_name", *labels), registry=self.registry, **options
        )
        return _Labelled(made, self._model) if labels else made.labels(self._model)

    def _gauge(self, name: str, text: str, **options):
        return self._named(Gauge, name, text, **options)

    def _counter(self, name: str, text: str, **options):
        return self._named(Counter, name, text, **options)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SHORT):
        return self._named(Histogram, name, text, buckets=buckets)


class _Labelled:
    """A metric whose first label is the model's name."""

    def __init__(self, metric, model: str):
        self._metric, self._model = metric, model

    def labels(self, *values: str):
        return self._metric.labels(self._model, *values)
