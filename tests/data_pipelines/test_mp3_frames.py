"""MP3 files as libmpg123's own encoder wrote them, whole, cut between frames, and broken."""

import io

import pytest
import records_corpus
import soundfile

from data_pipelines import mp3_frames
from data_pipelines.record_builder import to_flac
from data_pipelines.schema import RecordError

RATE = 16000


def test_an_mp3_whose_chain_of_frames_breaks_is_refused():
    for rate, sound in ((RATE, 1), (44100, 2)):
        file = io.BytesIO()
        samples = records_corpus.samples(sound, seconds=2)
        soundfile.write(file, samples, rate, format="MP3", bitrate_mode="VARIABLE")
        content = file.getvalue()
        offsets = [0]
        while offsets[-1] < len(content):
            offsets.append(offsets[-1] + mp3_frames.frame_length(content, offsets[-1]))
        assert offsets[-1] == len(content) and len(offsets) > 25  # the chain ends with the file
        tagged = b"ID3\x04\0\0\0\0\1\2" + bytes(130) + content + b"TAG" + bytes(125)
        for whole in (content, tagged, content[: offsets[-3]], content + bytes(999)):
            assert mp3_frames.problem(whole) is None
        start = offsets[9]
        for broken in (
            content[:start] + content[start + 7 :],
            content[:start] + b"\xff" * 3 + content[start:],
            content[:start] + bytes(300) + content[start + 300 :],
            content[: start + 1] + bytes([content[start + 1] ^ 8]) + content[start + 2 :],
        ):
            with pytest.raises(RecordError, match=r"clip: .*|damaged MP3: its frames break off"):
                to_flac(broken, where="clip")
            assert f"at byte {start} " in mp3_frames.problem(broken)
