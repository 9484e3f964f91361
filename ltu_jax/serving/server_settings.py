"""What a server is told: its address, its key, and its limits."""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from ltu_jax.core.errors import UserError, spell
from ltu_jax.core.values import number, text, whole

MEGABYTE = 1_000_000
LONGEST_NAME = 256  # characters of a model's name


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits of a server; a request beyond one is refused with a status of 4xx.

    Attributes:
        model_name: under which it offers its model.
        keys: SHA-256 of the API keys that are let in; empty lets in everybody.
        most_body: bytes of a request.
        most_audio: bytes of one audio file.
        most_clips: clips of one conversation.
        most_chat_seconds: of one clip in a conversation.
        most_transcription_seconds: of one file to transcribe.
        most_requests: worked at or waiting at once; one more gets a 429.
        deadline: seconds in which a request is answered, or else ends.
        decode_workers: processes that decode audio.
        cache_bytes: memory for what was heard of clips.
        drain: seconds that running requests get after SIGTERM.
        idle: seconds in which the next bytes of a request have to come.
        slowest: bytes a second that a request has to come with, on the whole.
    """

    model_name: str
    keys: frozenset[bytes] = frozenset()
    most_body: int = 36 * MEGABYTE  # 25 MB in base64, and text
    most_audio: int = 25 * MEGABYTE
    most_clips: int = 4
    most_chat_seconds: float = 600.0
    most_transcription_seconds: float = 7_200.0
    most_requests: int = 96
    deadline: float = 600.0
    decode_workers: int = 1
    cache_bytes: int = 256 * MEGABYTE
    drain: float = 30.0
    idle: float = 10.0
    slowest: float = 16_384.0

    def __post_init__(self) -> None:
        if not 1 <= len(text("model_name", self.model_name)) <= LONGEST_NAME:
            raise UserError(
                f"{spell('model_name')} has {len(self.model_name)} characters: give 1 to "
                f"{LONGEST_NAME}"
            )
        counts = ("most_body", "most_audio", "most_clips", "most_requests", "decode_workers")
        for name in counts:
            whole(name, getattr(self, name))
        whole("cache_bytes", self.cache_bytes, least=0)
        seconds = ("most_chat_seconds", "most_transcription_seconds", "deadline", "drain", "idle")
        for name in (*seconds, "slowest"):
            number(name, getattr(self, name), above=0, most=1e9, rule="must be above 0")

    def admits(self, key: bytes | None) -> bool:
        """Tell whether a key opens the server; takes as long for a wrong key as for a right one."""
        if not self.keys:
            return True
        given, known = digest(key or b""), False
        for one in self.keys:
            known |= hmac.compare_digest(given, one)
        return known and key is not None


def digest(key: bytes) -> bytes:
    """Return what is kept of a key."""
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> frozenset[bytes]:
    """Return the digests of the keys in a file, one a line.

    Raises:
        UserError: no such file, or no key in it.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UserError(f"{spell('api_key_file')} {path}: {error.strerror}") from None
    keys = frozenset(digest(line.strip()) for line in lines if line.strip())
    if not keys:
        raise UserError(f"{spell('api_key_file')} {path} holds no key; write one on a line")
    return keys
