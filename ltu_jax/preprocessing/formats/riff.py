"""WAV by its chunks: RIFF, RIFX, RF64 and BW64, whatever stands around the samples.

Decoders get a plain file of the format and the samples: how they treat chunks without padding, a
size that was never filled in, or unknown chunks in between makes no difference then.
"""

from dataclasses import dataclass, field
from typing import Literal

from ltu_jax.preprocessing.formats import tags
from ltu_jax.preprocessing.formats.sound import LOST_SECONDS, AudioError, is_lost
from ltu_jax.preprocessing.formats.splice import Content, Piece

KINDS = (b"RIFF", b"RIFX", b"RF64", b"BW64")
MPEG = (0x50, 0x55)  # format tags of mp2 and mp3 in a wav
_PCM = (1, 3, 6, 7)  # integers, floats, a-law, mu-law
_STREAMED = 0x7FFF_0000  # a program that cannot know the size says 0 or about 2 or 4 GiB
_FULL32, _FULL64 = (1 << 32) - 1, (1 << 64) - 1
_LEAST_FMT, _MOST_FMT = 14, 4096
_MOST_CHUNKS = 10_000
_SCRAP = 128  # bytes behind the last chunk that are no matter


@dataclass
class Wav:
    """The format of a WAV, and where its samples lie."""

    kind: bytes
    fmt: bytes = b""
    fact: bytes = b""
    data: tuple[int, int] = (0, 0)
    order: Literal["little", "big"] = field(default="little")

    @property
    def tag(self) -> int:
        """The format tag; of WAVE_FORMAT_EXTENSIBLE, what it stands for."""
        tag = int.from_bytes(self.fmt[:2], self.order)
        return int.from_bytes(self.fmt[24:26], self.order) if tag == 0xFFFE else tag

    @property
    def block(self) -> int:
        """Bytes of a block, at least 1."""
        return max(1, int.from_bytes(self.fmt[12:14], self.order))

    @property
    def bytes_a_second(self) -> float:
        """Of PCM from rate and block, for the field of its own is often wrong; else that field."""
        rate, stated = (int.from_bytes(self.fmt[at : at + 4], self.order) for at in (4, 8))
        return max(1, rate * self.block if self.tag in _PCM else stated)

    def spans(self, size: int, other: int) -> str:
        """How long so many bytes last, and so many, in words, where the format says it."""
        if self.tag not in _PCM:
            return ""
        seconds, two = size / self.bytes_a_second, other / self.bytes_a_second
        return f" ({seconds:.2f} s of {two:.2f} s)"

    def pieces(self) -> list[Piece]:
        """A plain WAV of the same samples."""
        size = self.data[1] - self.data[0]
        head = b"fmt " + self._number(len(self.fmt)) + self.fmt + bytes(len(self.fmt) % 2)
        if self.fact:
            head += b"fact" + self._number(len(self.fact)) + self.fact + bytes(len(self.fact) % 2)
        pad = bytes(size % 2)
        whole = 4 + len(head) + 8 + size + len(pad)
        if whole <= _FULL32 or self.kind == b"RIFX":
            front = (self.kind if self.kind == b"RIFX" else b"RIFF") + self._number(whole)
            return [front + b"WAVE" + head + b"data" + self._number(size), self.data, pad]
        sizes = (whole + 36).to_bytes(8, "little") + size.to_bytes(8, "little") + bytes(12)
        front = b"RF64" + self._number(_FULL32) + b"WAVEds64" + self._number(28) + sizes
        return [front + head + b"data" + self._number(_FULL32), self.data, pad]

    def _number(self, value: int) -> bytes:
        return min(value, _FULL32).to_bytes(4, self.order)


def is_wav(content: Content, offset: int) -> bool:
    """Whether a WAV begins here."""
    head = content.at(offset, 12)
    return head[:4] in KINDS and head[8:12] == b"WAVE"


def parse(content: Content, start: int, *, name: str) -> Wav:
    """Follow the chunks from the one behind `WAVE`.

    Raises:
        AudioError: no format or no samples; samples that are cut off, or that go on behind their
            stated end.
    """
    kind = content.at(start, 4)
    wav = Wav(kind=kind, order="big" if kind == b"RIFX" else "little")
    sizes: dict[str, int] = {}
    offset = start + 12
    for _ in range(_MOST_CHUNKS):
        head = content.at(offset, 8)
        if len(head) < 8:
            break
        name4, size, body = head[:4], int.from_bytes(head[4:], wav.order), offset + 8
        if name4 == b"ds64" and kind in (b"RF64", b"BW64"):
            sizes["data"] = int.from_bytes(content.at(body + 8, 8), "little")
        elif name4 == b"fmt ":
            wav.fmt = content.at(body, min(size, _MOST_FMT))
        elif name4 == b"fact":
            wav.fact = content.at(body, min(size, 64))
        elif name4 == b"data":
            if len(wav.fmt) < _LEAST_FMT:
                raise AudioError(
                    f"{name}: damaged: samples without a format (no 'fmt ' chunk in front); "
                    "export the file again"
                )
            _check_format(wav, name=name)
            if size == _FULL32:
                size = sizes.get("data", _FULL32)
            _find_samples(wav, content, body, size, name=name)
            return wav
        elif not _is_name(name4):
            break
        offset = _behind(content, body + size)
    raise AudioError(
        f"{name}: damaged or cut off: holds no samples (no 'data' chunk); copy it again"
    )


def _check_format(wav: Wav, *, name: str) -> None:
    channels, bits = (int.from_bytes(wav.fmt[at : at + 2], wav.order) for at in (2, 14))
    if wav.tag in _PCM and channels and (wav.block % channels or wav.block * 8 < channels * bits):
        raise AudioError(
            f"{name}: damaged: {wav.block} bytes for {channels} channels of {bits} bits; "
            "copy it again, or export the file again"
        )


def _find_samples(wav: Wav, content: Content, body: int, size: int, *, name: str) -> None:
    """Set where the samples lie, against what the chunk states."""
    rest = content.size - body
    end = body + size
    if size == 0:
        unknown = not _only_chunks(content, body)
    else:
        unknown = size > rest and (_STREAMED <= size <= _FULL32 or size == _FULL64)
    if unknown:
        wav.data = (body, body + rest // wav.block * wav.block)
        return
    if size > rest:
        if is_lost(size - rest, of=size, rate=wav.bytes_a_second):
            raise AudioError(
                f"{name}: cut off: {rest} of {size} bytes of audio{wav.spans(rest, size)}; "
                "copy or download it again"
            )
        end = content.size
    elif not _only_chunks(content, end + size % 2) and not _only_chunks(content, end):
        behind = content.size - end
        if behind > max(_SCRAP, LOST_SECONDS * wav.bytes_a_second):
            raise AudioError(
                f"{name}: its header states {size} of {rest} bytes of audio"
                f"{wav.spans(size, rest)} (a recorder that died?). Write the length anew: "
                "ffmpeg -ignore_length 1 -i FILE new.wav, or sox --ignore-length FILE new.wav"
            )
    wav.data = (body, end)


def _only_chunks(content: Content, offset: int) -> bool:
    """Whether nothing but whole chunks other than samples, tags and zeros follows."""
    for _ in range(_MOST_CHUNKS):
        offset = tags.skip(content, offset)
        if offset >= content.size:
            return offset == content.size or offset == content.size + 1
        head = content.at(offset, 8)
        if len(head) < 8 or not _is_name(head[:4]):
            rest = content.size - offset
            return offset + content.zeros(offset) >= content.size and rest <= 1 << 16
        if head[:4] == b"data":
            return False
        end = offset + 8 + int.from_bytes(head[4:], "little")
        if end > content.size + 1:
            return False
        offset = _behind(content, end)
    return False


def _behind(content: Content, end: int) -> int:
    """Where the next chunk begins: chunks of odd size are padded, though not by everybody."""
    if end % 2 and not _is_name(content.at(end + 1, 4)) and _is_name(content.at(end, 4)):
        return end
    return end + end % 2


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name) and name != b"    "
