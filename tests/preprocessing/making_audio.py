"""Audio files for the tests: encoded by libsndfile and by FFmpeg's libraries, tagged and bent."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import soundfile

_KINDS = ("fltp", "flt", "s32p", "s32", "s16p", "s16", "dbl")
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 7: "6.1", 8: "7.1"}


def tone(*, rate: int, seconds: float, channels: int = 1, hertz: float = 440.0) -> np.ndarray:
    """A tone of amplitude 0.5, [frames, channels], of another pitch in every channel."""
    time = np.arange(round(rate * seconds)) / rate
    pitches = hertz * np.arange(1, channels + 1)
    return 0.5 * np.sin(2 * np.pi * time[:, None] * pitches)


def by_libsndfile(samples: np.ndarray, rate: int, form: str, **options) -> bytes:
    """A file of the format `form`, or format and subtype: "WAV PCM_24"."""
    file = io.BytesIO()
    form, _, subtype = form.partition(" ")
    soundfile.write(file, samples, rate, format=form, subtype=subtype or None, **options)
    return file.getvalue()


def by_ffmpeg(
    samples: np.ndarray,
    rate: int,
    codec: str,
    form: str,
    *,
    video: bool = False,
    bit_rate: int = 128_000,
    **options: str,
) -> bytes:
    """A file of the container `form`; `options` are the container's."""
    file = io.BytesIO()
    with av.open(file, "w", format=form, container_options=options) as container:
        if video:
            picture = container.add_stream("mpeg4", rate=10, width=32, height=32)
            picture.pix_fmt = "yuv420p"
        stream = container.add_stream(codec, rate=rate, layout=LAYOUTS[samples.shape[1]])
        if codec != "libopus":
            stream.codec_context.bit_rate = bit_rate
        stream.codec_context.options = {"strict": "experimental"}
        known = {one.name for one in stream.codec_context.codec.audio_formats}
        kind = next(kind for kind in _KINDS if kind in known)
        stream.codec_context.format = kind
        if container.format.flags & 0x40:  # a global header
            stream.codec_context.flags |= 0x400000
        stream.codec_context.open()
        if video:
            for number in range(round(10 * len(samples) / rate)):
                image = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number, np.uint8))
                image.pts = number
                container.mux(picture.encode(image))
            container.mux(picture.encode(None))
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(samples), size):
            frame = _frame(samples[start : start + size], kind)
            frame.sample_rate, frame.pts = rate, start
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def _frame(samples: np.ndarray, kind: str) -> av.AudioFrame:
    layout, planar = LAYOUTS[samples.shape[1]], kind.endswith("p")
    kinds = {"s16": np.int16, "s32": np.int32, "flt": np.float32, "dbl": np.float64}
    dtype = np.dtype(kinds[kind.removesuffix("p")])
    if dtype.kind == "i":
        full = -float(np.iinfo(dtype).min)
        samples = np.clip(np.round(samples * full), -full, full - 1)
    array = samples.astype(dtype).T if planar else samples.astype(dtype).reshape(1, -1)
    return av.AudioFrame.from_ndarray(np.ascontiguousarray(array), format=kind, layout=layout)


def remuxed(content: bytes, form: str) -> bytes:
    """The packets of the audio track in another container, as they are."""
    file = io.BytesIO()
    with av.open(io.BytesIO(content)) as given, av.open(file, "w", format=form) as made:
        track = given.streams.audio[0]
        stream = made.add_stream_from_template(track)
        for packet in given.demux(track):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return file.getvalue()


def decoded_by_ffmpeg(content: bytes) -> tuple[np.ndarray, int]:
    """(float64 [frames, channels], rate) as FFmpeg's libraries find and decode them."""
    blocks = []
    with av.open(io.BytesIO(content)) as container:
        resampler = av.AudioResampler(format="dbl")
        for frame in container.decode(audio=0):
            rate = frame.sample_rate
            for block in resampler.resample(frame):
                blocks.append(block.to_ndarray().reshape(-1, block.layout.nb_channels))
    return np.concatenate(blocks), rate


def chunk(name: bytes, body: bytes, *, pad: bool = True) -> bytes:
    """A RIFF chunk."""
    return name + struct.pack("<I", len(body)) + body + (bytes(len(body) % 2) if pad else b"")


def wav(
    data: bytes, *, rate: int = 16_000, channels: int = 1, bits: int = 16, tag: int = 1,
    front: bytes = b"", behind: bytes = b"", size: int | None = None, kind: bytes = b"RIFF",
    riff_size: int | None = None, pad: bool = True,
) -> bytes:  # fmt: skip
    """A WAV put together by hand; `size` is what its data chunk states."""
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", tag, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF,
                      bits)  # fmt: skip
    stated = len(data) if size is None else size
    body = b"WAVE" + front + chunk(b"fmt ", fmt) + b"data" + struct.pack("<I", stated)
    body += data + (bytes(len(data) % 2) if pad else b"") + behind
    return kind + struct.pack("<I", len(body) if riff_size is None else riff_size) + body


def id3v2(body: bytes = b"", *, footer: bool = False) -> bytes:
    """An ID3v2.4 tag around `body`."""
    size = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    flags = b"\x04\0\x10" if footer else b"\x04\0\0"
    return b"ID3" + flags + size + body + (b"3DI" + flags + size if footer else b"")


def cover(size: int = 60_000) -> bytes:
    """A picture in a frame of ID3v2: noise, in which some bytes look like an MPEG frame."""
    picture = b"\xff\xd8\xff" + np.random.default_rng(5).bytes(size) + b"\xff\xfb\x90\xc4Xing"
    frame = b"\0image/jpeg\0\3\0" + picture
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"APIC" + size + b"\0\0" + frame


def ape_tag(value: bytes, *, header: bool = True) -> bytes:
    """An APEv2 tag of one item, with its footer."""
    item = struct.pack("<II", len(value), 2) + b"Cover Art (Front)\0" + value

    def end(flags: int) -> bytes:
        return b"APETAGEX" + struct.pack("<IIII8x", 2000, len(item) + 32, 1, flags)

    flags = 0x8000_0000 if header else 0
    return (end(flags | 0x2000_0000) if header else b"") + item + end(flags)


def lyrics3(text: bytes = b"la la") -> bytes:
    """A Lyrics3v2 tag."""
    body = b"LYRICSBEGIN" + b"LYR%05d" % len(text) + text
    return body + b"%06dLYRICS200" % len(body)


ID3V1 = b"TAG" + b"Title".ljust(124, b"\0") + b"\xff"


def faststart(content: bytes) -> bytes:
    """An MP4 with its index in front of the samples."""
    boxes, offset = [], 0
    while offset < len(content):
        size = int.from_bytes(content[offset : offset + 4], "big")
        boxes.append(content[offset : offset + size])
        offset += size
    moov = next(box for box in boxes if box[4:8] == b"moov")
    place = moov.index(b"stco") + 8  # past version and flags
    count = int.from_bytes(moov[place : place + 4], "big")
    table = struct.unpack(f">{count}I", moov[place + 4 : place + 4 + 4 * count])
    moved = struct.pack(f">{count}I", *(offset + len(moov) for offset in table))
    moov = moov[: place + 4] + moved + moov[place + 4 + 4 * count :]
    kept = [box for box in boxes if box[4:8] != b"moov"]
    return kept[0] + moov + b"".join(kept[1:])


def video_only() -> bytes:
    """An MP4 of one picture, without a sound track."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        picture = container.add_stream("mpeg4", rate=10, width=32, height=32)
        picture.pix_fmt = "yuv420p"
        container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(picture.encode(None))
    return file.getvalue()
