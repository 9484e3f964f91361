"""What a client got wrong, or the server cannot do now, in the shape of OpenAI's API."""

import contextlib
import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

from ltu_jax.core.errors import UserError
from ltu_jax.serving.decode_pool import WorkerKilled

log = logging.getLogger("ltu_jax.serving")
_TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An error that a client is told: status, and the four keys of OpenAI's error object."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def content(self) -> dict[str, Any]:
        """Return the object that is sent, `{"error": {...}}`."""
        server = "server_error" if self.status >= 500 else "invalid_request_error"
        return {
            "error": {
                "message": self.message,
                "type": _TYPES.get(self.status, server),
                "param": self.param,
                "code": self.code,
            }
        }

    def body(self) -> bytes:
        """Return `content` as JSON."""
        return json.dumps(self.content()).encode()


def bad(param: str, message: str, *, code: str = "invalid_value") -> ApiError:
    """Return a 400 that names the field: "temperature: ..."."""
    return ApiError(400, f"{param}: {message}", param=param, code=code)


def of_user_error(error: UserError, *, param: str | None, code: str | None = None) -> ApiError:
    """Return a 400 of what the library says."""
    return ApiError(400, str(error), param=param, code=code or "invalid_value")


@contextlib.contextmanager
def audio_errors(param: str) -> Iterator[None]:
    """Name the field whose audio cannot be used."""
    try:
        yield
    except WorkerKilled as error:
        raise ApiError(500, str(error), param=param, code="decoder_killed") from None
    except UserError as error:
        raise of_user_error(error, param=param, code="invalid_audio") from None


def log_error(error: BaseException) -> None:
    """Log where an error came from; its text may hold what a user sent."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s\n%s", type(error).__name__, frames)
