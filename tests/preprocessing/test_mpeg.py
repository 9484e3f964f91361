"""MP3 files as libmpg123's own encoder wrote them, whole, cut between frames, and broken."""

import io

import numpy as np
import pytest
import soundfile

from ltu_jax.preprocessing.audio import AudioError, load_audio
from ltu_jax.preprocessing.formats.mpeg import frame_length


def test_an_mp3_whose_chain_of_frames_breaks_is_refused():
    for rate, channels in ((16_000, 1), (44_100, 2)):
        file = io.BytesIO()
        samples = 0.1 * np.random.default_rng(rate).standard_normal((2 * rate, channels))
        soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE")
        content = file.getvalue()
        offsets = [0]
        while offsets[-1] < len(content):
            offsets.append(offsets[-1] + frame_length(content, offsets[-1]))
        assert offsets[-1] == len(content) and len(offsets) > 25  # the chain ends with the file
        tagged = b"ID3\x04\0\0\0\0\1\2" + bytes(130) + content + b"TAG" + bytes(125)
        for whole in (content, tagged, content[: offsets[-2]], content + bytes(999)):
            assert load_audio(whole).seconds == pytest.approx(2, abs=0.08)
        start = offsets[9]
        for broken in (
            content[:start] + content[start + 7 :],
            content[:start] + b"\xff" * 3 + content[start:],
            content[:start] + bytes(300) + content[start + 300 :],
            content[: start + 1] + bytes([content[start + 1] ^ 8]) + content[start + 2 :],
        ):
            with pytest.raises(AudioError, match=f"damaged MP3: .* at byte {start} "):
                load_audio(broken)
