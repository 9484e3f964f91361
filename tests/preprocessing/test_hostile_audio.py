"""Files made to harm: playlists, references, bit flips, bombs. Each is refused or decoded."""

import io

import av
import making_audio as make
import numpy as np
import pytest

from ltu_jax.preprocessing.audio import HOP, AudioError, load_audio
from ltu_jax.preprocessing.formats import boxes, ffmpeg
from ltu_jax.preprocessing.formats.splice import Content

TONE = make.tone(rate=48_000, seconds=0.5)
PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile '{}'\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{}\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\na={}\n",
    "dash": "<?xml version='1.0'?><MPD><Period><AdaptationSet><BaseURL>{}</BaseURL>"
    "</AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("front", [b"", b"\0" * 64, make.id3v2(b"")], ids=["", "zeros", "tag"])
def test_a_playlist_is_no_audio(kind: str, front: bytes, tmp_path):
    target = tmp_path / "secret.ts"
    target.write_bytes(make.by_ffmpeg(TONE, 48_000, "aac", "mpegts"))
    for name in ("list.m4a", "list.m3u8", "list.ffconcat"):
        path = tmp_path / name
        path.write_bytes(front + PLAYLISTS[kind].format(target).encode())
        with pytest.raises(AudioError, match="is text, not audio|not audio of a known format"):
            load_audio(path)


@pytest.mark.parametrize("kind", ["concat", "hls"])
def test_ffmpeg_opens_nothing_but_what_it_is_given(kind: str, tmp_path, monkeypatch):
    """Even when a playlist reached it: the second lock."""
    target = tmp_path / "secret.ts"
    target.write_bytes(make.by_ffmpeg(TONE, 48_000, "aac", "mpegts"))
    text = PLAYLISTS[kind].format(target).encode()
    options = {"safe": "0"} if kind == "concat" else {}
    (tmp_path / "list").write_bytes(text)
    with av.open(str(tmp_path / "list"), format=kind, options=options) as opened:
        assert opened.streams.audio  # so it would be followed
    monkeypatch.setattr(ffmpeg, "FORMATS", (*ffmpeg.FORMATS, kind))
    with pytest.raises(AudioError):
        list(ffmpeg.sounds(io.BytesIO(text), name="list", format=kind))


def test_every_format_and_codec_is_known_to_ffmpeg():
    for name in ffmpeg.FORMATS:
        assert av.ContainerFormat(name, "r").is_input
    playlists = {"hls", "dash", "concat", "sdp", "rtsp", "image2", "lavfi", "tedcaptions", "imf"}
    assert not playlists & set(ffmpeg.FORMATS)
    known = [name for name in ffmpeg._CODECS if name in av.codecs_available]
    assert len(known) > 40
    assert all(av.Codec(name, "r").type == "audio" for name in known)


def test_formats_are_found_by_structure_alone():
    whole = make.by_ffmpeg(TONE, 48_000, "aac", "adts")
    for content, name in ((whole, "aac"), (b"\xff\xf1" + whole[2:9] + bytes(99), None)):
        assert boxes.format_of(Content(io.BytesIO(content)), 0) == name


@pytest.mark.parametrize(
    ("codec", "form"),
    [("aac", "ipod"), ("libopus", "webm"), ("flac", "matroska"), ("aac", "adts"), ("alac", "caf")],
)
def test_damage_gives_an_audio_error_or_finite_samples(codec: str, form: str):
    whole = make.by_ffmpeg(TONE, 48_000, codec, form)
    generator, refused = np.random.default_rng(4), 0
    for number in range(24):
        content = bytearray(whole)
        if number % 2:
            del content[generator.integers(1, len(whole)) :]
        for place in generator.integers(0, len(content), generator.integers(1, 12)):
            content[place] ^= 1 << generator.integers(8)
        try:
            clip = load_audio(bytes(content), max_seconds=30)
        except AudioError as error:
            assert str(error).startswith("<bytes>: ")
            refused += 1
            continue
        assert np.isfinite(clip.samples).all() and HOP <= len(clip.samples) <= 30 * 16_000
    assert refused > 6


def test_what_is_small_and_decodes_to_hours_is_stopped():
    silence = make.by_ffmpeg(np.zeros((20 * 48_000, 1)), 48_000, "flac", "matroska")
    assert len(silence) < 20_000
    with pytest.raises(AudioError, match="lasts at least .* s; the limit is 2 s"):
        load_audio(silence, max_seconds=2)


def test_too_many_tracks_are_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        for _ in range(ffmpeg._MOST_STREAMS + 1):
            container.add_stream("pcm_s16le", rate=8_000, layout="mono")
        container.start_encoding()
    with pytest.raises(AudioError):
        load_audio(file.getvalue())


def test_without_pyav_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    content = b"\0\0\0\x20ftypM4A " + bytes(20)
    with pytest.raises(AudioError, match="needs PyAV .*pip install av"):
        load_audio(content)
