"""MPEG audio (mp3, mp2) by its chain of frames: how much there is, where it lies, what breaks it.

libmpg123, with which libsndfile reads MP3s, guesses a length that no frame states from the first
frame and the size of the file, stops where a stated length ends, and plays silence for what it
cannot read. The chain says what is there: it is followed before anything is decoded. (Damage
inside a frame that leaves its header whole cannot be told from sound: frames carry no checksum.)
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import soundfile

from ltu_jax.preprocessing.formats import ffmpeg, libsndfile, tags
from ltu_jax.preprocessing.formats.sound import AudioError, Sound, is_lost
from ltu_jax.preprocessing.formats.splice import Content, Piece, Spliced

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {  # by (MPEG 1?, layer)
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SURE = 4  # frames in a row that are no chance
_FIRST = 64  # frames that tell how long the rest of a frame in front of them can be
_SCRAP = 128  # bytes behind the last frame that are no matter
_LARGEST = 8_192  # bytes of a frame of free format
_DECODER_DELAY = 529  # samples
_OFF_BY = 1  # some encoders count the frame that states the number of frames


@dataclass(frozen=True)
class Frame:
    """A frame by its header; `length` is None in free format."""

    length: int | None
    padding: int
    layer: int
    samples: int
    rate: int
    channels: int
    side: int


@dataclass(frozen=True, kw_only=True)
class _Info:
    """What a first frame that holds no sound (Xing, Info, VBRI) says about its file."""

    frames: int | None  # behind it
    count_at: int | None  # where that number stands, for libmpg123
    bytes_at: int | None
    delay: int = 0  # samples at the start and at the end that the encoder added
    padding: int = 0


@dataclass
class _Stretch:
    """Frames of one kind, which may have tags among them."""

    first: Frame
    begin: int
    info: _Info | None = None
    frames: int = 0  # with sound
    holes: list[tuple[int, int]] = field(default_factory=list)
    end: int = 0

    def pieces(self, begin: int) -> Iterator[tuple[int, int]]:
        for start, behind in self.holes:
            yield begin, start
            begin = behind
        yield begin, self.end


def begins_at(content: Content, offset: int) -> int | None:
    """Where the chain of frames begins: at `offset`, or behind the rest of a frame cut in two."""
    first = _frame(content.at(offset, 4))
    if _chained(content, offset):
        return offset
    if first is not None and _plain_end(content, offset + _length(content, offset, first)):
        return offset
    for place in range(offset + 1, min(offset + _LARGEST, content.size - 3)):
        if content.at(place, 1) == b"\xff" and _chained(content, place):
            if first is not None:
                return offset  # the chain breaks behind it
            return place if place - offset < _largest(content, place) else None
    return None


def sounds(content: Content, start: int, *, name: str) -> Iterator[Sound]:
    """The stretches of an MPEG file whose first frame is at `start`, decoded by libsndfile."""
    end = tags.begin_of_trailers(content, start=start)
    for stretch in _stretches(content, start, end, name=name):
        first, info = stretch.first, stretch.info
        if info is not None and info.frames is not None:
            lag = info.delay + _DECODER_DELAY if info.delay else 0
            there = max(0, stretch.frames * first.samples - lag)
            stated = info.frames * first.samples - info.delay - info.padding
            missing = (info.frames - stretch.frames - _OFF_BY) * first.samples
            if is_lost(missing, of=stated, rate=first.rate):
                raise AudioError(
                    f"{name}: damaged or cut off: {there / first.rate:.2f} s of "
                    f"{stated / first.rate:.2f} s are there; copy or download it again"
                )
        part, stated = _part(content, stretch)
        try:
            yield from libsndfile.decode(part, name=name, stated=stated)
        except soundfile.LibsndfileError:  # free format of odd sizes, a file "._" in this folder
            part.seek(0)
            yield from ffmpeg.sounds(part, name=name, format="mp3", length_is_known=False)


def _part(content: Content, stretch: _Stretch) -> tuple[Spliced, int | None]:
    """The frames as libmpg123 decodes all of them, and how many samples these are.

    None is the number that the file states, less what its encoder added.
    """
    ranges = list(stretch.pieces(stretch.begin))
    info, samples = stretch.info, stretch.frames * stretch.first.samples
    if info is not None and info.count_at is not None:
        if info.frames is not None and abs(stretch.frames - info.frames) <= _OFF_BY:
            return content.part(*ranges), None
        size = sum(end - begin for begin, end in ranges)
        pieces: list[Piece] = [(stretch.begin, info.count_at), stretch.frames.to_bytes(4, "big")]
        behind = info.count_at + 4
        if info.bytes_at is not None:
            pieces.append(size.to_bytes(4, "big"))
            behind += 4
        return content.part(*pieces, *stretch.pieces(behind)), None
    if info is not None:  # libmpg123 could not use it: the frame is dropped
        begin = stretch.begin + _length(content, stretch.begin, stretch.first)
        ranges = list(stretch.pieces(begin))
    part = content.part(*ranges)
    if stretch.first.layer != 3 or libsndfile.length(part) >= samples:
        return part, samples
    size = sum(end - begin for begin, end in ranges)
    front = _stating(content.at(ranges[0][0], 4), frames=stretch.frames, size=size)
    return content.part(front, *ranges), samples - _DECODER_DELAY


def _stating(head: bytes, *, frames: int, size: int) -> bytes:
    """A frame like the one of this header that only states how many frames and bytes follow."""
    loud = bytes([head[0], head[1] | 1, head[2] & 0x0D | 0x90, head[3]])  # 128 or 80 kbit/s, no CRC
    frame = _frame(loud)
    assert frame is not None and frame.length is not None
    text = b"Xing" + (3).to_bytes(4, "big") + frames.to_bytes(4, "big")
    text += (size + frame.length).to_bytes(4, "big")
    return (loud + bytes(frame.side) + text).ljust(frame.length, b"\0")


def _stretches(content: Content, start: int, end: int, *, name: str) -> list[_Stretch]:
    stretches: list[_Stretch] = []
    offset, free = start, None
    stretch: _Stretch | None = None
    while offset + 4 <= end:
        head = content.at(offset, 40)
        frame = _frame(head[:4])
        length = None
        if frame is not None:
            if frame.length is None and free is None:
                free = _free_length(content, offset)
            length = frame.length or (free and free + frame.padding)
        if frame is None or length is None or length < 4 + frame.side:
            behind = _behind_tags(content, offset, end)
            if behind is None:
                _check_rest(content, offset, end, stretch, name=name)
                break
            if stretch is not None:
                stretch.holes.append((offset, behind))
            offset = behind
            continue
        if stretch is not None and not _same_kind(frame, stretch.first):
            if not _chained(content, offset):
                raise _broken(content, offset, name=name)
            stretch = None
        info = _info(content, offset, head, frame)
        if stretch is None or info is not None:
            stretch = _Stretch(first=frame, begin=offset, info=info)
            stretch.frames = 0 if info is None else -1
            stretches.append(stretch)
        if offset + length > end:
            if stretch.frames < 1:
                stretches.pop()
            break  # the end of a recording may lie in a frame
        stretch.frames += 1
        offset += length
        stretch.end = offset
    if not stretches:
        raise AudioError(f"{name}: holds no audio (0 s); record or export it again")
    for known in stretches:
        known.holes = [hole for hole in known.holes if hole[0] < known.end]
    return stretches


def _behind_tags(content: Content, offset: int, end: int) -> int | None:
    """Where frames go on behind tags, or behind zeros a file that states its length begins."""
    behind = tags.skip(content, offset)
    tagged = behind > offset
    behind += content.zeros(behind)
    behind = tags.skip(content, behind)
    if behind >= end or not (frame := _frame(content.at(behind, 4))):
        return None
    if tagged or _info(content, behind, content.at(behind, 40), frame) is not None:
        return behind if _chained(content, behind) else None
    return None


def _check_rest(
    content: Content, offset: int, end: int, stretch: _Stretch | None, *, name: str
) -> None:
    """Refuse what follows the last frame unless it is tags, zeros, a scrap, or no audio."""
    behind = tags.skip(content, offset)
    behind += content.zeros(behind)
    if behind >= end or end - behind <= _SCRAP:
        return
    stated = None if stretch is None or stretch.info is None else stretch.info.frames
    whole = stated is not None and stretch.frames >= stated - _OFF_BY
    if whole and not _resumes(content, behind):
        return
    raise _broken(content, offset, name=name)


def _resumes(content: Content, offset: int) -> bool:
    return any(
        content.at(place, 1) == b"\xff" and _chained(content, place)
        for place in range(offset, min(offset + 4 * _LARGEST, content.size - 3))
    )


def _broken(content: Content, offset: int, *, name: str) -> AudioError:
    return AudioError(
        f"{name}: damaged MP3: its frames break off at byte {offset} of {content.size}, where a "
        "decoder would play silence; copy it again, or save it anew with an audio editor"
    )


@functools.lru_cache(maxsize=4096)
def _frame(head: bytes) -> Frame | None:
    """What a header of four bytes says; None when it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbits, rate, mono = head[2] >> 4, head[2] >> 2 & 3, head[3] >> 6 == 3
    if version == 1 or layer == 4 or kbits == 15 or rate == 3:
        return None
    hertz, first = _RATES[version][rate], version == 3
    samples = 384 if layer == 1 else 1152 if layer == 2 or first else 576
    padding = (head[2] >> 1 & 1) * (4 if layer == 1 else 1)
    side = 0 if layer != 3 else (17 if mono else 32) if first else (9 if mono else 17)
    length = None
    if kbits:
        bits = _KBITS[first, layer][kbits - 1] * 1000
        length = 12 * bits // hertz * 4 if layer == 1 else samples // 8 * bits // hertz
        length += padding
    return Frame(length, padding, layer, samples, hertz, 1 if mono else 2, side)


def frame_length(content: bytes, offset: int) -> int | None:
    """Bytes of the frame that begins at `offset`; None when none does, or in free format."""
    frame = _frame(bytes(content[offset : offset + 4]))
    return None if frame is None else frame.length


def _same_kind(frame: Frame, other: Frame) -> bool:
    mine, its = (
        (header.layer, header.samples, header.rate, header.channels, header.length is None)
        for header in (frame, other)
    )
    return mine == its


def _length(content: Content, offset: int, frame: Frame) -> int:
    return frame.length or (_free_length(content, offset) or 0) + frame.padding


def _chained(content: Content, offset: int) -> bool:
    """Whether several frames of one kind follow one another from `offset` on."""
    first, free = _frame(content.at(offset, 4)), None
    if first is not None and first.length is None:
        free = _free_length(content, offset)
    for _ in range(_SURE):
        frame = _frame(content.at(offset, 4))
        if frame is None or not _same_kind(frame, first):
            return False
        length = frame.length or (free and free + frame.padding)
        if not length or length < 4 + frame.side:
            return False
        offset += length
    return True


def _largest(content: Content, offset: int) -> int:
    """Bytes of the largest of the first frames."""
    largest = 0
    for _ in range(_FIRST):
        frame = _frame(content.at(offset, 4))
        if frame is None or frame.length is None:
            break
        largest = max(largest, frame.length)
        offset += frame.length
    return largest


def _plain_end(content: Content, offset: int) -> bool:
    """Whether frames go on to an end too near for `_chained`: of the file, or at its tags."""
    for _ in range(_SURE):
        end = tags.begin_of_trailers(content, start=offset) if offset <= content.size else 0
        if offset == end:
            return True
        frame = _frame(content.at(offset, 4))
        if frame is None or frame.length is None:
            return False
        offset += frame.length
    return False


def _free_length(content: Content, offset: int) -> int | None:
    """Bytes of a frame of free format, without padding: up to where the next ones follow."""
    head = content.at(offset, 4)
    frame = _frame(head)
    data = content.at(offset, 4 * _LARGEST)
    place = 4
    while frame is not None and (place := data.find(head[:1], place)) > 0 and place < _LARGEST:
        size, behind, sure = place - frame.padding, 0, 0
        while (following := _frame(data[behind : behind + 4])) and _same_kind(following, frame):
            sure += 1
            behind += size + following.padding
            if sure == _SURE or behind == len(data):
                return size
        place += 1
    return None


def _info(content: Content, offset: int, head: bytes, frame: Frame) -> _Info | None:
    """What this frame states about its file; None where it is a frame of sound."""
    if frame.layer != 3:
        return None
    place = 4 + frame.side
    if head[36:40] == b"VBRI":
        count = int.from_bytes(content.at(offset + 50, 4), "big")
        return _Info(frames=count or None, count_at=None, bytes_at=None)
    if head[place : place + 4] not in (b"Xing", b"Info"):
        return None
    tag = content.at(offset + place, 144)
    flags = int.from_bytes(tag[4:8], "big")
    if not flags & 1 or any(head[6:place]):
        count = int.from_bytes(tag[8:12], "big") if flags & 1 else 0
        return _Info(frames=count or None, count_at=None, bytes_at=None)
    behind = 8 + sum(size for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)) if flags & bit)
    made_by, gap = tag[behind : behind + 9], tag[behind + 21 : behind + 24]
    delay, padding = 0, 0
    if made_by[:4] in (b"LAME", b"Lavf", b"Lavc", b"GOGO") and len(gap) == 3:
        delay, padding = gap[0] << 4 | gap[1] >> 4, (gap[1] & 15) << 8 | gap[2]
    return _Info(
        frames=int.from_bytes(tag[8:12], "big") or None,  # a program that writes to a pipe says 0
        count_at=offset + place + 8,
        bytes_at=offset + place + 12 if flags & 2 else None,
        delay=delay,
        padding=padding,
    )
