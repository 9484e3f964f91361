"""The ASGI application: routes, the key, admission, errors in OpenAI's shape, counts, readiness."""

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from ltu_jax.core.errors import UserError
from ltu_jax.serving.answer_explanations import AnswerExplanations
from ltu_jax.serving.api_error import ApiError, log, log_error
from ltu_jax.serving.chat_answers import ChatAnswers
from ltu_jax.serving.decode_pool import DecodePool
from ltu_jax.serving.engine_types import AnswerEngine
from ltu_jax.serving.http_body import ClientGone, Incoming
from ltu_jax.serving.server_settings import ServerSettings
from ltu_jax.serving.serving_metrics import CONTENT_TYPE, ServingMetrics
from ltu_jax.serving.speech_texts import SpeechTexts

OPEN = ("/livez", "/readyz")  # without a key: they hold nothing of anybody
_LINGER_BODIES = 4  # times the largest body that a refused sender is listened to at most
_ENDING = 2.0  # seconds in which what was ended says so


@dataclass(kw_only=True, eq=False)
class HttpApp:
    """The server of one model.

    Attributes:
        warm: compiles everything; called once, in a thread that the end of the server does not wait
            for: compiling cannot be called off.
        describe: what `/v1/models` says of the model under "ltu".
        explanations: of answers; None where the model has none.
        pages: files of the page by their paths, each with body, media_type and etag; and the
            headers that they go with.
        on_ready: called when requests are taken.
        on_failure: called when `warm` failed, as `failure` then says.
        draining: no new work is taken.
    """

    settings: ServerSettings
    engine: AnswerEngine
    pool: DecodePool
    chat: ChatAnswers
    speech: SpeechTexts
    metrics: ServingMetrics
    warm: Callable[[], None]
    describe: Mapping[str, Any]
    explanations: AnswerExplanations | None = None
    pages: Mapping[str, Any] = field(default_factory=dict)
    page_headers: Mapping[str, str] = field(default_factory=dict)
    on_ready: Callable[[], None] = lambda: None
    on_failure: Callable[[], None] = lambda: None
    draining: bool = False
    ready: bool = False
    failure: str | None = None
    _ended: bool = False
    _working: set[asyncio.Task] = field(default_factory=set)
    _created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        chat = "/v1/chat/completions"
        self._work = {
            self.chat.create: (chat, "POST"),
            self.speech.transcriptions: ("/v1/audio/transcriptions", "POST"),
            self.speech.translations: ("/v1/audio/translations", "POST"),
        }
        if self.explanations is not None:
            self._work[self.explanations.create] = ("/v1/ltu/explain", "POST")
        self._paths = self._work | {
            self.chat.resume: (f"{chat}/{{id}}/stream", "GET"),
            self.chat.stop: (f"{chat}/{{id}}", "DELETE"),
            self._models: ("/v1/models", "GET"),
            self._model: ("/v1/models/{id:path}", "GET"),
            self._metrics: ("/metrics", "GET"),
            self._livez: ("/livez", "GET"),
            self._readyz: ("/readyz", "GET"),
        }
        self._router = Router(
            [
                Route(path, self._counted(endpoint), methods=[method])
                for endpoint, (path, method) in self._paths.items()
            ]
            + [Route(path, self._page, methods=["GET"]) for path in self.pages],
            redirect_slashes=False,
        )

    @property
    def routes(self) -> list[tuple[str, str]]:
        """Return path and method of every route."""
        return list(self._paths.values())

    @property
    def active(self) -> int:
        """Return how many requests are worked at."""
        return len(self._working)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    # --- one request ------------------------------------------------------------------------------

    async def _http(self, scope: Any, receive: Any, send: Any) -> None:
        begun, status = time.monotonic(), 0
        id = f"req_{uuid.uuid4().hex}"

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                extra = [(b"x-request-id", id.encode()), (b"x-content-type-options", b"nosniff")]
                if incoming.more:  # which nobody will read
                    extra.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", ()), *extra]}
            await send(message)

        scope = {**scope, "app": self}  # so that the router raises what it does not find
        incoming = Incoming(scope, receive)
        try:
            self._check_key(scope)
            await self._router(scope, incoming, sending)
        except ClientGone:
            status = 499
        except Exception as error:
            self._working.discard(asyncio.current_task())  # it is over, but for being told
            refused = _as_api_error(error)
            if status == 0:
                if refused.status != 408:
                    await incoming.linger(most=_LINGER_BODIES * self.settings.most_body)
                await _respond(refused)(scope, incoming, sending)
        except asyncio.CancelledError:
            if status or not self._ended:
                raise
            refused = ApiError(503, self._why_not_ready(), code="draining")
            await _respond(refused)(scope, incoming, sending)
        finally:
            self._working.discard(asyncio.current_task())
            # A path may hold what a user wrote; that of the route does not.
            route = scope.get("ltu_route", "other")
            self.metrics.responses.labels(route, str(status)).inc()
            log.info("%s %s %d %.0f ms", id, route, status, 1000 * (time.monotonic() - begun))

    def _check_key(self, scope: Any) -> None:
        if scope["path"] in OPEN or scope["path"] in self.pages:
            return
        headers = dict(scope["headers"])
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        given = key.strip() if kind.lower() == b"bearer" else None
        if not self.settings.admits(given):
            raise ApiError(
                401, "the API key is missing or wrong; send Authorization: Bearer KEY",
                code="invalid_api_key", headers={"www-authenticate": "Bearer"},
            )  # fmt: skip
        if headers.get(b"sec-fetch-site") == b"cross-site":
            raise ApiError(403, "requests of other sites' pages are not taken", code="cross_site")

    def _counted(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Let an endpoint name its route; let work in only while there is room."""
        path, _ = self._paths[endpoint]

        async def plain(request: Request) -> Response:
            request.scope["ltu_route"] = path
            return await endpoint(request)

        async def work(request: Request) -> Response:
            request.scope["ltu_route"] = path
            self._admit(request)
            self._working.add(asyncio.current_task())  # until `_http` has sent the answer
            return await endpoint(request)

        return work if endpoint in self._work else plain

    def _admit(self, request: Request) -> None:
        if not self._takes_work():
            raise ApiError(
                503, self._why_not_ready(), code="not_ready", headers={"retry-after": "5"}
            )
        if self.active >= self.settings.most_requests:
            raise ApiError(
                429, f"{self.active} requests are worked at, the most that may; ask again later",
                code="queue_full", headers={"retry-after": "1"},
            )  # fmt: skip
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        wanted = "multipart/form-data" if "audio" in request.url.path else "application/json"
        if kind != wanted:
            raise ApiError(
                415, f"the content type is {kind[:80]!r}; send {wanted}", code="content_type"
            )

    # --- small endpoints --------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._described()]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["id"] != self.settings.model_name:
            raise ApiError(404, "there is no such model", param="model", code="model_not_found")
        return JSONResponse(self._described())

    def _described(self) -> dict[str, Any]:
        return {
            "id": self.settings.model_name,
            "object": "model",
            "created": self._created,
            "owned_by": "ltu_jax",
            "ltu": dict(self.describe),
        }

    async def _metrics(self, request: Request) -> Response:
        text = self.metrics.text(self.engine.stats(), replaced=self.pool.replaced)
        return Response(text, media_type=CONTENT_TYPE)

    async def _page(self, request: Request) -> Response:
        request.scope["ltu_route"] = "page"
        file = self.pages[request.url.path]
        headers = {**self.page_headers, "etag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return Response(status_code=304, headers=headers)
        return Response(file.body, headers=headers, media_type=file.media_type)

    async def _livez(self, request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _readyz(self, request: Request) -> Response:
        if self._takes_work():
            return PlainTextResponse("ready")
        return PlainTextResponse(self._why_not_ready(), 503)

    def _takes_work(self) -> bool:
        return self.ready and not self.draining and self.engine.stats().ready

    def _why_not_ready(self) -> str:
        if self.failure:
            return f"the server could not get ready: {self.failure}"
        if self.draining:
            return "the server is about to end"
        return "its engine has failed" if self.ready else "the server is getting ready"

    # --- beginning and end ------------------------------------------------------------------------

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        try:
            await self.pool.start()
        except (RuntimeError, OSError) as error:
            self.failure = str(error)
            await self.pool.close()
            await send({"type": "lifespan.startup.failed"})
            return
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._get_ready, args=[loop], name="warming", daemon=True).start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self.engine.close)
        await self.pool.close()
        await send({"type": "lifespan.shutdown.complete"})

    def _get_ready(self, loop: asyncio.AbstractEventLoop) -> None:
        failure = None
        try:
            self.warm()
        except Exception as error:
            failure = str(error) if isinstance(error, UserError) else type(error).__name__
            log_error(error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            loop.call_soon_threadsafe(self._warmed, failure)

    def _warmed(self, failure: str | None) -> None:
        self.failure, self.ready = failure, failure is None
        (self.on_ready if self.ready else self.on_failure)()

    async def drain(self, hurry: asyncio.Event) -> None:
        """Take no more work, and wait for what there is: `settings.drain` seconds, or `hurry`.

        What then still runs is ended: streams get their last events, other requests a 503.
        """
        self.draining = True
        await self._wait_for_work(self.settings.drain, until=hurry)
        self.chat.streams.cancel_all()
        await asyncio.to_thread(self.engine.close)
        await self._wait_for_work(_ENDING)
        self._ended = True
        for task in list(self._working):
            task.cancel()  # a clip being heard, a file being transcribed
        await self._wait_for_work(_ENDING)

    async def _wait_for_work(self, seconds: float, *, until: asyncio.Event | None = None) -> None:
        end = time.monotonic() + seconds
        while self._working and time.monotonic() < end and not (until and until.is_set()):
            await asyncio.sleep(0.02)


def _respond(error: ApiError) -> Response:
    return Response(
        error.body(), error.status, headers=error.headers, media_type="application/json"
    )


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        words = {404: "there is nothing at this address", 405: "this method is not allowed here"}
        text = words.get(error.status_code, "the request cannot be served")
        return ApiError(error.status_code, text, code="not_found", headers=error.headers)
    if isinstance(error, RecursionError):  # of JSON that could just be read
        return ApiError(400, "the body is nested too deeply", code="invalid_json")
    log_error(error)
    return ApiError(500, "an error of the server; its log says where")
