"""The fourteen sources of Open-ASQA and three of ours: what they publish, who reads and asks it.

`SOURCES` is the table behind `sources`, `check` and `build`.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.open_asqa import read_audio, read_real, read_speech, window_questions
from data_pipelines.open_asqa.source_clip import SourceClip

Reader = Callable[[Path, RecordProblems], Iterator[SourceClip]]
STYLE = ("pitch_cla", "speed_cla", "energy_cla")
_SPEECH = ("gender_cla", *STYLE, "ASR")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipSource:
    """A source of clips.

    Attributes:
        read: reader of its metadata.
        files: published files that it needs, anywhere below the folder of its metadata; "A|B" is A,
            or B where A is missing.
        optional: files that add to it.
        datasets: names that its rows have: those of closed-ended rows, then of open-ended ones.
        tasks: closed-ended tasks.
        tasks_of: those of a dataset that has fewer.
        gender_with_emotion: share of the clips that are asked for gender and emotion in one.
        related_classes: reads class -> classes that it says something about; None where what is
            not labelled may be there all the same.
        folders: whether files of its metadata are found by folders, not by `files` alone.
        speech: whether somebody speaks, so that the speaking style is measured.
        copied_text: whether spoken text is asked for as Whisper wrote it, as the model has it in
            its input; what a person wrote stays beside it.
        licence: in a few words.
    """

    read: Reader
    files: tuple[str, ...]
    optional: tuple[str, ...] = ()
    datasets: tuple[str, str]
    tasks: tuple[str, ...]
    tasks_of: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    gender_with_emotion: float = 0.0
    related_classes: Callable[[Path], dict[str, list[str]] | None] | None = None
    folders: bool = False
    speech: bool = False
    copied_text: bool = False
    licence: str


SOURCES: Mapping[str, ClipSource] = {
    "as_strong": ClipSource(
        read=read_audio.as_strong,
        files=("audioset_train_strong.tsv", "mid_to_display_name.tsv"),
        optional=("as_final.json", "ontology.json"),
        datasets=("as_strong_train", "as_strong_train"),
        tasks=("cla_label", "cla_label_des", "caption", "temporal", "temporal_single",
               "temporal_order"),
        related_classes=read_audio.related_classes,
        licence="CC BY 4.0; WavCaps' captions academic",
    ),
    "audioset": ClipSource(
        read=read_audio.audioset,
        files=("balanced_train_segments.csv", "unbalanced_train_segments.csv",
               "class_labels_indices.csv"),
        datasets=("as_20k, as_2m", "as_20k"),
        tasks=("cla_label", "cla_label_des"),
        tasks_of={"as_2m": ("cla_label_des",)},
        licence="CC BY 4.0",
    ),
    "vggsound": ClipSource(
        read=read_audio.vggsound,
        files=("vggsound.csv",),
        datasets=("vggsound_train", "vggsound_train"),
        tasks=("cla_label", "cla_label_des"),
        licence="CC BY 4.0",
    ),
    "fsd50k": ClipSource(
        read=read_audio.fsd50k,
        files=("dev.csv", "vocabulary.csv"),
        optional=("collection_dev.csv",),
        datasets=("fsd50k_tr, fsd50k_val", "fsd50k_tr, fsd50k_val"),
        tasks=("cla_label", "cla_label_des"),
        licence="CC BY 4.0; CC by clip",
    ),
    "audiocaps": ClipSource(
        read=read_audio.audiocaps,
        files=("train.csv", "val.csv"),
        datasets=("audiocaps_train", "audiocaps_train"),
        tasks=("caption",),
        licence="academic",
    ),
    "freesound": ClipSource(
        read=read_audio.freesound,
        files=("fsd_final.json",),
        datasets=("freesound_10s", "freesound_10s"),
        tasks=("caption",),
        licence="academic; CC by clip",
    ),
    "clotho": ClipSource(
        read=read_audio.clotho,
        files=("clotho_captions_development.csv", "clotho_captions_validation.csv"),
        optional=("clotho_metadata_development.csv", "clotho_metadata_validation.csv"),
        datasets=("clotho_development", "clotho_development"),
        tasks=("caption",),
        licence="CC by clip; captions non-commercial",
    ),
    "soundbible": ClipSource(
        read=read_audio.soundbible,
        files=("sb_final.json",),
        datasets=("sound_bible", "sound_bible"),
        tasks=("caption",),
        licence="academic; CC by clip",
    ),
    "iemocap": ClipSource(
        read=read_speech.iemocap,
        files=(),
        datasets=("iemocap_tr", "IEMOCAP"),
        tasks=("gender_cla", "gender_emotion_cla", *STYLE, "emotion_cla", "ASR"),
        gender_with_emotion=845 / 4_290,  # the counts of LTU-AS
        folders=True,
        speech=True,
        licence="signed form; no rows with text to others",
    ),
    "libritts": ClipSource(
        read=read_speech.libritts,
        files=("speakers.tsv|SPEAKERS.txt",),
        datasets=("libritts_tr", "libritts"),
        tasks=_SPEECH,
        folders=True,
        speech=True,
        licence="CC BY 4.0",
    ),
    "voxceleb2": ClipSource(
        read=read_speech.voxceleb2,
        files=("vox2_meta.csv", "final_dataframe_extended.csv", "age-test.txt"),
        datasets=("voxceleb_tr", "voxceleb"),
        tasks=(*_SPEECH, "age_cla"),
        folders=True,
        speech=True,
        licence="CC BY 4.0 (metadata)",
    ),
    "mosei": ClipSource(
        read=read_speech.mosei,
        files=("CMU_MOSEI_Labels.csv",),
        datasets=("mosei_tr, mosei_dev", "mosei"),
        tasks=(*_SPEECH, "emotion_cla", "emotion_bin", "emotion_score", "emotion_detail"),
        speech=True,
        licence="research use",
    ),
    "joint_audioset": ClipSource(
        read=read_audio.joint_audioset,
        files=("balanced_train_segments.csv", "unbalanced_train_segments.csv",
               "class_labels_indices.csv"),
        datasets=("-", "audioset"),
        tasks=(),
        licence="CC BY 4.0",
    ),
    "fma": ClipSource(
        read=read_audio.fma,
        files=("tracks.csv", "genres.csv"),
        datasets=("fma", "FMA"),
        tasks=("genre_cla",),
        licence="CC BY 4.0 (metadata); artists' licences",
    ),
    # Not of Open-ASQA: recordings of pinned packages (docs/real_sounds.md).
    "real": ClipSource(
        read=read_real.real,
        files=("recordings.tsv",),
        datasets=("real_sounds", "real"),
        tasks=("cla_label", "cla_label_des"),
        licence="by clip: CC0 to GPL",
    ),
    "real_speech": ClipSource(
        read=read_real.real_speech,
        files=("recordings.tsv",),
        datasets=("real_speech", "real_speech"),
        tasks=("gender_cla", "ASR"),
        speech=True,
        licence="by clip: CC0 to GPL",
    ),
    "real_windows": ClipSource(
        read=read_real.real_windows,
        files=("windows.jsonl",),
        datasets=(read_real.WINDOW_DATASETS, read_real.WINDOW_DATASETS),
        tasks=("cla_label", "cla_label_des", "gender_cla", "pitch_cla", "speed_cla", "ASR",
               *window_questions.TASKS),
        speech=True,
        copied_text=True,
        licence="by clip: CC0 to GPL; voices Apache-2.0, CC0",
    ),
}  # fmt: skip
