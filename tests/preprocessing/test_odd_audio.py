"""Files as people have them: each gives its sound, or a refusal that names what is wrong.

The sound is a tone of 440 Hz: its length, its level in every stretch, and its pitch are checked.
"""

import io
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

import making_audio as make
import numpy as np
import pytest
import soundfile

from ltu_jax.preprocessing.audio import AudioError, load_audio, probe
from ltu_jax.preprocessing.formats.mpeg import frame_length

RATE = 16_000
TONE = make.tone(rate=RATE, seconds=1.0)
PCM = np.round(TONE * 32767).astype("<i2").tobytes()
MP3 = make.by_libsndfile(make.tone(rate=44_100, seconds=2), 44_100, "MP3")
AT = max(MP3.find(b"Info"), MP3.find(b"Xing"))  # of the tag that states its length
BARE = MP3[frame_length(MP3, 0) :]  # no frame that states the length
MP3_16 = make.by_libsndfile(TONE, RATE, "MP3")
STEREO = make.by_libsndfile(np.repeat(make.tone(rate=44_100, seconds=2), 2, 1), 44_100, "MP3")
FLAC = make.by_libsndfile(TONE, RATE, "FLAC")
OGG = make.by_libsndfile(TONE, RATE, "OGG")
OPUS = make.by_libsndfile(TONE, RATE, "OGG OPUS")
AIFF = make.by_libsndfile(TONE, RATE, "AIFF")
M4A = make.by_ffmpeg(make.tone(rate=48_000, seconds=1), 48_000, "aac", "ipod")
ADTS = make.by_ffmpeg(make.tone(rate=48_000, seconds=1), 48_000, "aac", "adts")
WEBM = make.by_ffmpeg(make.tone(rate=48_000, seconds=1), 48_000, "libopus", "webm")
SLACK = 0.06  # seconds of priming and padding that lossy files may keep


def patched(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def counted(frames: int) -> bytes:
    """The MP3 with another number of frames in its first frame."""
    return patched(MP3, AT + 8, frames.to_bytes(4, "big"))


def vbri() -> bytes:
    first = bytearray(frame_length(MP3, 0))
    first[:4] = MP3[:4]
    frames = struct.unpack(">I", MP3[AT + 8 :][:4])[0]
    first[36:62] = b"VBRI" + struct.pack(">HHHIIHHHH", 1, 0, 75, len(BARE), frames, 0, 1, 2, 1)
    return bytes(first) + BARE


def cbr() -> bytes:
    """Frames of one size, and nothing else."""
    samples = make.tone(rate=48_000, seconds=1)  # at 48 kHz no frame is padded
    content = bytearray(make.by_ffmpeg(samples, 48_000, "libmp3lame", "mp3"))
    while content[:3] == b"ID3" or b"Info" in content[:64] or b"Xing" in content[:64]:
        tag = content[:3] == b"ID3"
        size = 10 + int.from_bytes(content[6:10], "big") if tag else frame_length(content, 0)
        del content[:size]
    return bytes(content)


def free_format() -> bytes:
    """Frames whose bit rate is not written in the header."""
    content, offset = bytearray(cbr()), 0
    while (size := frame_length(bytes(content), offset)) and offset + size <= len(content):
        content[offset + 2] &= 0x0F
        offset += size
    return bytes(content[:offset])


def dead_rf64() -> bytes:
    content = bytearray(make.by_libsndfile(TONE, RATE, "RF64"))
    at = content.index(b"ds64")
    content[at + 8 : at + 32] = bytes(24)
    return bytes(content)


def flac_total(samples: int) -> bytes:
    head = bytearray(FLAC)
    head[21] &= 0xF0
    head[22:26] = samples.to_bytes(4, "big")
    return bytes(head)


def live_webm() -> bytes:
    """As a browser records it: the segment states no size, and there is no duration."""
    at = WEBM.index(b"\x18\x53\x80\x67") + 4
    content = patched(WEBM, at, b"\x01" + b"\xff" * 7)
    at = content.index(b"\x44\x89\x88")
    return patched(content, at, b"\xec\x89" + content[at + 2 : at + 3])  # a void of one byte more


@dataclass(frozen=True)
class Sounds:
    """What a file gives: seconds, how exactly, and how many of its stretches may differ."""

    seconds: float
    slack: float = 1e-3
    gaps: int = 0
    level: float = 0.5


@dataclass(frozen=True)
class Refused:
    """What the error says behind the file's name."""

    says: str


def pcm(form: str, **options) -> Callable[[], bytes]:
    return lambda: make.by_libsndfile(TONE, RATE, form, **options)


def ffmpeg(codec: str, form: str, *, rate: int = 48_000, channels: int = 1, **options):
    sound = np.repeat(make.tone(rate=rate, seconds=1), channels, axis=1)
    return lambda: make.by_ffmpeg(sound, rate, codec, form, **options)


WAVE = make.wav(PCM)
LIST = make.chunk(b"LIST", b"INFOISFT\x05\0\0\0abcd\0\0")
ODD = make.chunk(b"LIST", b"INFOx", pad=False)
HALF = len(PCM) // 2
LOUD = (TONE * 3).astype("<f4").tobytes()

CASES: dict[str, tuple[bytes | Callable[[], bytes], Sounds | Refused]] = {
    # mp3: tags
    "mp3": (MP3, Sounds(2)),
    "mp3, cover in an APE tag behind": (MP3 + make.ape_tag(make.cover()), Sounds(2)),
    "mp3, APE tag without header, ID3v1": (
        MP3 + make.ape_tag(make.cover(), header=False) + make.ID3V1,
        Sounds(2),
    ),
    "mp3, cover in ID3v2 behind": (MP3 + make.id3v2(make.cover()), Sounds(2)),
    "mp3, ID3v2 with footer behind": (MP3 + make.id3v2(make.cover(), footer=True), Sounds(2)),
    "mp3, Lyrics3 and ID3v1": (MP3 + make.lyrics3() + make.ID3V1, Sounds(2)),
    "mp3, large cover in front": (make.id3v2(make.cover(200_000)) + MP3, Sounds(2)),
    "mp3, two tags in front": (2 * make.id3v2(make.cover(500)) + MP3, Sounds(2)),
    "mp3, APE tag in front": (make.ape_tag(make.cover()) + MP3, Sounds(2)),
    "mp3, tag and zeros in front": (make.id3v2(bytes(50)) + bytes(700) + MP3, Sounds(2)),
    "mp3, zeros in front": (bytes(4096) + MP3, Sounds(2)),
    "mp3, zeros behind": (MP3 + bytes(3_000), Sounds(2)),
    "mp3, cut off behind a large cover": (
        make.id3v2(make.cover(200_000)) + MP3[: len(MP3) // 2],
        Refused(r"damaged or cut off: 0\.[89]\d s of 2\.00 s"),
    ),
    "mp3, cut off in its tag": (make.id3v2(make.cover())[:9_000], Refused("cut off in its tags")),
    # mp3: lengths
    "mp3, no length": (BARE, Sounds(2, SLACK)),
    "mp3, no length, cover behind": (BARE + make.id3v2(make.cover()), Sounds(2, SLACK)),
    "mp3, length by VBRI": (vbri, Sounds(2, SLACK)),
    "mp3, length 0": (counted(0), Sounds(2, SLACK)),
    "mp3, length of half": (counted(39), Sounds(2, SLACK)),
    "mp3, begins within a frame": (lambda: cbr()[200:], Sounds(1, SLACK)),
    "mp3, ends within a frame": (lambda: cbr()[:-100], Sounds(1, SLACK)),
    "mp3, a hole": (MP3[:3_000] + MP3[3_500:], Refused(r"damaged MP3: .* break off at byte \d+")),
    "mp3, joined": (MP3 + MP3, Sounds(4, gaps=2)),
    "mp3, joined, tagged": (2 * (make.id3v2(make.cover()) + MP3 + make.ID3V1), Sounds(4, gaps=2)),
    "mp3, joined, no lengths": (BARE + BARE, Sounds(4, 2 * SLACK, gaps=3)),
    "mp3, joined mono and stereo": (MP3 + STEREO, Sounds(4, gaps=2)),
    "mp3, joined rates": (MP3 + MP3_16, Sounds(3, gaps=2)),
    # mp3: kinds
    "mp3, MPEG-2": (pcm("MP3"), Sounds(1)),
    "mp3, MPEG-2.5": (
        lambda: make.by_libsndfile(make.tone(rate=8_000, seconds=1), 8_000, "MP3"),
        Sounds(1),
    ),
    "mp3, free format": (free_format, Sounds(1, SLACK)),
    "mp2": (ffmpeg("mp2", "mp2"), Sounds(1, SLACK)),
    "mp3 in wav": (ffmpeg("libmp3lame", "wav"), Sounds(1, SLACK)),
    # wav: sizes
    "wav": (WAVE, Sounds(1)),
    "wav, size 0": (make.wav(PCM, size=0, riff_size=0), Sounds(1)),
    "wav, size 0 behind JUNK": (
        make.wav(PCM, size=0, front=make.chunk(b"JUNK", bytes(4044)), riff_size=4088),
        Sounds(1),
    ),
    "wav, size FFFFFFFF": (make.wav(PCM, size=0xFFFF_FFFF, riff_size=0xFFFF_FFFF), Sounds(1)),
    "wav, size 7FFFFFFF": (make.wav(PCM, size=0x7FFF_FFFF), Sounds(1)),
    "wav, RIFF size 0": (make.wav(PCM, riff_size=0), Sounds(1)),
    "wav, size 0, no whole sample": (make.wav(PCM + b"\1", size=0), Sounds(1)),
    "wav, header says half": (make.wav(PCM, size=HALF), Refused(r".*\(0\.50 s of 1\.00 s\)")),
    "wav, cut off": (WAVE[: 44 + HALF], Refused(r"cut off: 16000 of 32000 bytes .*0\.50 s of 1")),
    "wav, two data chunks": (
        make.wav(PCM, behind=make.chunk(b"data", PCM)),
        Refused(r".*\(1\.00 s of 2\.\d+ s\)"),
    ),
    "wav, no data": (WAVE[:36], Refused("damaged or cut off: holds no samples")),
    "wav, no format": (
        b"RIFF\x50\0\0\0WAVE" + make.chunk(b"data", PCM),
        Refused("damaged: samples without a format"),
    ),
    "wav, empty": (make.wav(b""), Refused(r"holds no audio \(0 s\)")),
    "wav, empty with LIST": (make.wav(b"", behind=LIST), Refused(r"holds no audio \(0 s\)")),
    "wav, 5 ms": (make.wav(PCM[:160]), Refused(r"lasts 5\.0 ms")),
    # wav: chunks
    "wav, LIST behind": (make.wav(PCM, behind=LIST), Sounds(1)),
    "wav, LIST in front": (make.wav(PCM, front=LIST), Sounds(1)),
    "wav, odd chunk without padding": (make.wav(PCM, front=ODD), Sounds(1)),
    "wav, odd samples, LIST behind": (make.wav(PCM[:-1], behind=LIST), Sounds(1, 2e-3)),
    "wav, odd samples unpadded": (make.wav(PCM[:-1], behind=LIST, pad=False), Sounds(1, 2e-3)),
    "wav, broadcast": (
        make.wav(
            PCM,
            front=make.chunk(b"bext", bytes(602)) + make.chunk(b"fact", bytes(4)),
            behind=make.chunk(b"iXML", b"<a/>"),
        ),
        Sounds(1),
    ),
    "wav, ID3v2 behind": (make.wav(PCM) + make.id3v2(make.cover()), Sounds(1)),
    "wav, ID3v2 in front": (make.id3v2(make.cover()) + WAVE, Sounds(1)),
    "wav, zeros behind": (WAVE + bytes(4096), Sounds(1)),
    # wav: kinds
    "RF64": (pcm("RF64"), Sounds(1)),
    "RF64, sizes 0": (dead_rf64, Sounds(1)),
    "BW64": (lambda: patched(make.by_libsndfile(TONE, RATE, "RF64"), 0, b"BW64"), Sounds(1)),
    "RIFX": (pcm("WAV", endian="BIG"), Sounds(1)),
    "wav, 8 bit": (pcm("WAV PCM_U8"), Sounds(1)),
    "wav, 24 bit": (pcm("WAV PCM_24"), Sounds(1)),
    "wav, 64-bit floats": (pcm("WAV DOUBLE"), Sounds(1)),
    "wav, extensible": (pcm("WAVEX PCM_24"), Sounds(1)),
    "wav, a-law": (pcm("WAV ALAW"), Sounds(1)),
    "wav, mu-law": (pcm("WAV ULAW"), Sounds(1)),
    "wav, MS ADPCM": (pcm("WAV MS_ADPCM"), Sounds(1, SLACK)),
    "wav, IMA ADPCM": (pcm("WAV IMA_ADPCM"), Sounds(1, SLACK)),
    "wav, GSM": (
        lambda: make.by_libsndfile(make.tone(rate=8_000, seconds=1), 8_000, "WAV GSM610"),
        Sounds(1, SLACK),
    ),
    "wav, floats above 1": (make.wav(LOUD, bits=32, tag=3), Sounds(1, level=1.5)),
    "wav, a NaN": (
        make.wav(patched(LOUD, 400, b"\0\0\xc0\x7f"), bits=32, tag=3),
        Refused("sample 100 of channel 0 is nan"),
    ),
    "wav, no whole block": (
        patched(WAVE, 22, b"\x05\0"),
        Refused("damaged: 2 bytes for 5 channels of 16 bits"),
    ),
    # other containers of PCM
    "aiff": (AIFF, Sounds(1)),
    "aiff, cut off": (AIFF[: len(AIFF) // 2], Refused(r"cut off: \d+ of 32008 bytes")),
    "aifc, floats": (pcm("AIFF FLOAT"), Sounds(1)),
    "aiff, header says half": (
        patched(patched(AIFF, 22, b"\0\0\x1f\x40"), AIFF.index(b"SSND") + 4, b"\0\0\x3e\x88"),
        Refused(r".*its header states 0\.50 s of 1\.00 s"),
    ),
    "aiff, sizes 0": (
        patched(patched(AIFF, 22, bytes(4)), AIFF.index(b"SSND") + 4, b"\0\0\0\x08"),
        Refused(r".*its header states 0\.00 s of 1\.00 s"),
    ),
    "aiff, ID3v2 behind": (AIFF + make.id3v2(make.cover()), Sounds(1)),
    "au, header says half": (
        lambda: patched(make.by_libsndfile(TONE, RATE, "AU"), 8, b"\0\0\x3e\x80"),
        Refused(r"its header states 0\.50 s of 1\.00 s"),
    ),
    "au": (pcm("AU"), Sounds(1)),
    "au, no size": (
        lambda: patched(make.by_libsndfile(TONE, RATE, "AU"), 8, b"\xff" * 4),
        Sounds(1),
    ),
    "au, cut off": (lambda: pcm("AU")()[:9_000], Refused(r"cut off: \d+ of 32000 bytes")),
    "caf": (pcm("CAF ALAC_16"), Sounds(1)),
    "w64": (pcm("W64"), Sounds(1)),
    "w64, cut off": (lambda: pcm("W64")()[:9_000], Refused(r"cut off: \d+ of \d+ bytes")),
    "sphere": (pcm("NIST"), Sounds(1)),
    # flac
    "flac, no length": (flac_total(0), Sounds(1)),
    "flac, header says half": (flac_total(RATE // 2), Sounds(1)),
    "flac, header says double": (flac_total(2 * RATE), Refused("damaged")),
    "flac, no MD5": (patched(FLAC, 26, bytes(16)), Sounds(1)),
    "flac, ID3v2 in front": (make.id3v2(make.cover()) + FLAC, Sounds(1)),
    "flac, ID3v1 behind": (FLAC + make.ID3V1, Sounds(1)),
    "flac, no length, ID3v1 behind": (flac_total(0) + make.ID3V1, Sounds(1)),
    "flac, cut off": (FLAC[: len(FLAC) // 2], Refused("damaged after")),
    # ogg
    "ogg, chained": (3 * OGG, Sounds(3, 2e-3, gaps=4)),
    "ogg, chained codecs": (OGG + OPUS, Sounds(2, 2e-3, gaps=2)),
    "ogg, chained rates": (
        lambda: OGG + make.by_libsndfile(make.tone(rate=8_000, seconds=1), 8_000, "OGG"),
        Sounds(2, 2e-3, gaps=2),
    ),
    "ogg, opus at 48 kHz": (ffmpeg("libopus", "ogg"), Sounds(1, 2e-3)),
    "ogg, flac": (ffmpeg("flac", "ogg"), Sounds(1)),
    "ogg, cut off": (OGG[: len(OGG) * 2 // 3], Refused(r"damaged or cut off")),
    "ogg, last page gone": (OGG[: OGG.rindex(b"OggS")], Refused("damaged or cut off")),
    # by FFmpeg's libraries
    "m4a": (M4A, Sounds(1, SLACK)),
    "m4a, index in front": (make.faststart(M4A), Sounds(1, SLACK)),
    "m4a, in fragments": (
        ffmpeg("aac", "mp4", movflags="empty_moov+frag_keyframe"),
        Sounds(1, SLACK),
    ),
    "m4a, cut off": (
        make.faststart(M4A)[:5_000],
        Refused(r"cut off: its part 'mdat' has \d+ of \d+ bytes"),
    ),
    "m4a, never closed": (M4A[: M4A.index(b"moov") - 4], Refused("cut off, .*'moov'")),
    "m4a, ALAC": (ffmpeg("alac", "ipod"), Sounds(1)),
    "mp4 with a picture": (ffmpeg("aac", "mp4", video=True), Sounds(1, SLACK)),
    "mp4 without sound": (make.video_only, Refused("holds no audio track")),
    "aac": (ADTS, Sounds(1, SLACK)),
    "aac, ID3v2 in front": (make.id3v2(make.cover()) + ADTS, Sounds(1, SLACK)),
    "aac, LATM": (ffmpeg("aac", "latm"), Sounds(1, SLACK)),
    "webm, opus": (WEBM, Sounds(1, 2e-3)),
    "webm, recorded live": (live_webm, Sounds(1, SLACK)),
    "webm, vorbis": (ffmpeg("vorbis", "webm", channels=2), Sounds(1, SLACK)),
    "webm, cut off": (WEBM[:5_000], Refused(r"cut off: \d+ of \d+ bytes")),
    "webm, joined": (WEBM + WEBM, Refused("goes on with another file at byte")),
    "mka, flac": (ffmpeg("flac", "matroska"), Sounds(1)),
    "avi, mp3": (ffmpeg("libmp3lame", "avi"), Sounds(1, SLACK)),
    "ts, aac": (ffmpeg("aac", "mpegts"), Sounds(1, SLACK)),
    "flv, aac": (ffmpeg("aac", "flv"), Sounds(1, SLACK)),
    "wma": (ffmpeg("wmav2", "asf", rate=44_100), Sounds(1, SLACK)),
    "wma, cut off": (
        lambda: ffmpeg("wmav2", "asf", rate=44_100)()[:9_000],
        Refused(r"cut off: 9000 of \d+ bytes"),
    ),
    "ac3": (ffmpeg("ac3", "ac3"), Sounds(1, SLACK)),
    "wavpack": (ffmpeg("wavpack", "wv"), Sounds(1)),
    "tta": (ffmpeg("tta", "tta"), Sounds(1)),
    # rates and channels
    **{
        f"wav, {rate} Hz": (
            lambda rate=rate: make.by_libsndfile(make.tone(rate=rate, seconds=1), rate, "WAV"),
            Sounds(1),
        )
        for rate in (2_000, 11_025, 37_800, 192_000, 384_000)
    },
    **{
        f"{form}, {channels} channels": (
            lambda form=form, channels=channels: make.by_libsndfile(
                np.repeat(TONE, channels, axis=1), RATE, form
            ),
            Sounds(1),
        )
        for form in ("WAV", "FLAC")
        for channels in (3, 7, 8)
    },
    # no sound at all
    "empty": (b"", Refused(r"empty \(0 bytes\)")),
    "zeros": (bytes(5_000), Refused("holds nothing but zeros")),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", Refused("is text, not audio")),
    "an error page": (b"<!DOCTYPE html><html><body>404</body></html>", Refused("is text")),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), Refused("not audio of a known format")),
    "noise": (np.random.default_rng(1).bytes(5_000), Refused("not audio of a known format")),
    "a tag alone": (make.id3v2(make.cover()), Refused("cut off in its tags|not audio|holds")),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_odd_file(name: str, tmp_path):
    content, expected = CASES[name]
    content = content if isinstance(content, bytes) else content()
    path = tmp_path / "clip"
    path.write_bytes(content)
    if isinstance(expected, Refused):
        for source, called in ((content, "<bytes>"), (path, str(path))):
            with pytest.raises(AudioError) as error:
                load_audio(source)
            message = str(error.value)
            assert message.startswith(f"{called}: ")
            assert re.match(expected.says, message.removeprefix(f"{called}: ")), message
        return
    clip = load_audio(path)
    assert clip.seconds == pytest.approx(expected.seconds, abs=expected.slack)
    np.testing.assert_array_equal(load_audio(content).samples, clip.samples)
    assert probe(path).seconds == pytest.approx(clip.seconds, abs=1e-3)
    blocks = clip.samples[: len(clip.samples) // 800 * 800].reshape(-1, 800).astype(float)
    blocks = blocks[2:-2]  # 50 ms each, without the ends
    wave = np.exp(2j * np.pi * 440 / 16_000 * np.arange(800))
    levels = np.abs(blocks @ wave) / 400  # of 440 Hz: 22 periods
    loud = np.sqrt(2 * np.mean(blocks**2, axis=1))  # of anything
    assert (abs(levels - expected.level) > 0.08 * expected.level).sum() <= expected.gaps
    assert (abs(loud - expected.level) > 0.08 * expected.level).sum() <= expected.gaps


@pytest.mark.parametrize("level", [0.0, 0.25])
def test_silence_and_a_constant_are_audio(level: float):
    sound = np.full((RATE, 1), level)
    samples = load_audio(make.by_libsndfile(sound, RATE, "WAV FLOAT")).samples
    np.testing.assert_array_equal(samples, sound[:, 0])


def test_a_stated_length_is_checked_before_anything_is_decoded():
    file = io.BytesIO()
    soundfile.write(file, TONE, RATE, format="FLAC")
    with pytest.raises(AudioError, match="lasts at least 1.0 s; the limit is 0.5 s"):
        load_audio(file.getvalue(), max_seconds=0.5)
    with pytest.raises(AudioError, match="lasts at least .* s; the limit is 2.5 s"):
        load_audio(3 * OGG, max_seconds=2.5)
