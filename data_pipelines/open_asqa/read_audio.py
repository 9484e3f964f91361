"""Clips of the sources of sounds and music: AudioSet to FMA.

Each reader takes the folder of a source's metadata, in which published files lie anywhere, and
yields clips in the order of their tables; `problems` takes rows that are broken.
"""

from collections.abc import Iterator
from pathlib import Path

from data_pipelines.metadata import (
    audioset_tables,
    fma_tables,
    freesound_tables,
    video_tables,
)
from data_pipelines.metadata.table_files import RecordProblems
from data_pipelines.open_asqa.folders import metadata_file
from data_pipelines.open_asqa.source_clip import SoundEvent, SourceClip
from ltu_jax.core.errors import UserError

CC_BY = "CC BY 4.0 (labels); audio of YouTube videos"
ACADEMIC = "academic use only (captions)"
MOST_SECONDS = 10.0  # of a sound of FreeSound that LTU-AS takes: as long as the model hears


def as_strong(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the segments of AudioSet-Strong's training table, with the captions of WavCaps."""
    names = audioset_tables.class_names(metadata_file(folder, "mid_to_display_name.tsv"))
    captions = _wavcaps_captions(folder, problems)
    table = metadata_file(folder, "audioset_train_strong.tsv")
    for segment in audioset_tables.strong_segments(table, names=names, problems=problems):
        events = tuple(
            SoundEvent(start=start, end=end, label=label) for label, start, end in segment.events
        )
        yield SourceClip(
            source="as_strong",
            clip_id=f"{segment.video}_{segment.start:g}",
            dataset="as_strong_train",
            recordings=(f"youtube:{segment.video}",),
            files=youtube_files(segment.video, segment.start),
            where=segment.where,
            licence=CC_BY,
            labels=tuple(dict.fromkeys(event.label for event in events)),
            events=events,
            captions=captions.get(segment.video, ()),
        )


def _wavcaps_captions(folder: Path, problems: RecordProblems) -> dict[str, tuple[str, ...]]:
    table = metadata_file(folder, "as_final.json", optional=True)
    if table is None:
        return {}
    return {
        clip.name.removesuffix(".wav").removeprefix("Y"): (clip.caption,)
        for clip in freesound_tables.wavcaps(table, problems=problems)
    }


def related_classes(folder: Path) -> dict[str, list[str]] | None:
    """Return class -> classes of its kind, above and below it in AudioSet's ontology.

    None where ontology.json is missing.
    """
    tree = metadata_file(folder, "ontology.json", optional=True)
    if tree is None:
        return None
    names = audioset_tables.class_names(metadata_file(folder, "mid_to_display_name.tsv"))
    related = audioset_tables.related(tree)
    return {
        name: sorted({names[other] for other in related.get(mid, ()) if other in names} - {name})
        for mid, name in sorted(names.items(), key=lambda pair: pair[1])
    }


def audioset(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the weakly labelled segments: as_20k of the balanced table, as_2m of the other."""
    names = audioset_tables.class_names(metadata_file(folder, "class_labels_indices.csv"))
    for dataset, name in (
        ("as_20k", "balanced_train_segments.csv"),
        ("as_2m", "unbalanced_train_segments.csv"),
    ):
        table = metadata_file(folder, name)
        for segment in audioset_tables.segments(table, names=names, problems=problems):
            yield SourceClip(
                source="audioset",
                clip_id=f"{segment.video}_{segment.start:g}",
                dataset=dataset,
                recordings=(f"youtube:{segment.video}",),
                files=youtube_files(segment.video, segment.start),
                where=segment.where,
                licence=CC_BY,
                labels=segment.labels,
            )


def joint_audioset(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the segments with speech or singing and another sound; the text is Whisper's later.

    Which segments LTU-AS took is not public.
    """
    names = audioset_tables.class_names(metadata_file(folder, "class_labels_indices.csv"))
    for name in ("balanced_train_segments.csv", "unbalanced_train_segments.csv"):
        table = metadata_file(folder, name)
        for segment in audioset_tables.segments(table, names=names, problems=problems):
            sounds = tuple(label for label in segment.labels if label not in SPEECH)
            if len(sounds) == len(segment.labels) and "Singing" not in sounds:
                continue  # nobody speaks or sings
            if not set(sounds) - {"Singing"}:
                continue  # nothing else is heard
            yield SourceClip(
                source="joint_audioset",
                clip_id=f"{segment.video}_{segment.start:g}",
                dataset="audioset",
                recordings=(f"youtube:{segment.video}",),
                files=youtube_files(segment.video, segment.start),
                where=segment.where,
                licence=CC_BY,
                labels=sounds,
            )


SPEECH = frozenset(
    {
        "Speech", "Male speech, man speaking", "Female speech, woman speaking",
        "Child speech, kid speaking", "Conversation", "Narration, monologue",
    }
)  # fmt: skip


def youtube_files(video: str, start: float) -> tuple[str, ...]:
    """Return the stems in use for a segment of a video: bare, with Y, with seconds or ms."""
    seconds, milliseconds = f"{start:g}", str(round(start * 1000))
    stems = [video, f"Y{video}"]
    for mark in (seconds, f"{round(start):06d}", milliseconds):
        stems += [f"{video}_{mark}", f"Y{video}_{mark}"]
    return tuple(dict.fromkeys(stems))


def vggsound(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the training clips of VGGSound."""
    for clip in video_tables.vggsound(metadata_file(folder, "vggsound.csv"), problems=problems):
        if clip.split != "train":
            continue
        yield SourceClip(
            source="vggsound",
            clip_id=f"{clip.video}_{clip.start}",
            dataset="vggsound_train",
            recordings=(f"youtube:{clip.video}",),
            files=(f"{clip.video}_{clip.start:06d}", *youtube_files(clip.video, clip.start)),
            where=clip.where,
            licence=CC_BY,
            labels=(clip.label[:1].upper() + clip.label[1:],),
        )


def fsd50k(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the dev clips of FSD50K; by labels without parents where these are there."""
    names = freesound_tables.fsd50k_vocabulary(metadata_file(folder, "vocabulary.csv"))
    leaves_file = metadata_file(folder, "collection_dev.csv", optional=True)
    leaves = {}
    if leaves_file is not None:
        leaves = freesound_tables.fsd50k_leaves(leaves_file, names=names)
    table = metadata_file(folder, "dev.csv")
    for clip in freesound_tables.fsd50k(table, names=names, problems=problems):
        yield SourceClip(
            source="fsd50k",
            clip_id=clip.name,
            dataset="fsd50k_tr" if clip.split == "train" else "fsd50k_val",
            recordings=(f"freesound:{clip.name}",),
            files=(clip.name,),
            where=clip.where,
            licence="CC BY 4.0 (data set); CC0, BY, BY-NC or Sampling+ by clip",
            labels=leaves.get(clip.name) or clip.labels,
        )


def audiocaps(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the training and validation clips of AudioCaps."""
    for name, captions in (("train.csv", (1,)), ("val.csv", (5,))):
        table = metadata_file(folder, name)
        for clip in video_tables.audiocaps(table, problems=problems, captions=captions):
            yield SourceClip(
                source="audiocaps",
                clip_id=clip.youtube_id,
                dataset="audiocaps_train",
                recordings=(f"youtube:{clip.youtube_id}",),
                files=(*youtube_files(clip.youtube_id, int(clip.start_time)), *clip.ids),
                where=clip.where,
                licence=f"{ACADEMIC}; audio of YouTube videos",
                captions=tuple(clip.captions),
            )


def freesound(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield WavCaps' sounds of FreeSound of up to ten seconds."""
    table = metadata_file(folder, "fsd_final.json")
    for clip in freesound_tables.wavcaps(table, problems=problems):
        if clip.duration <= MOST_SECONDS:
            yield _wavcaps(clip, source="freesound", dataset="freesound_10s")


def soundbible(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield WavCaps' sounds of SoundBible."""
    table = metadata_file(folder, "sb_final.json")
    for clip in freesound_tables.wavcaps(table, problems=problems):
        yield _wavcaps(clip, source="soundbible", dataset="sound_bible")


def _wavcaps(clip: freesound_tables.WavCapsClip, *, source: str, dataset: str) -> SourceClip:
    return SourceClip(
        source=source,
        clip_id=clip.name,
        dataset=dataset,
        recordings=(f"{source}:{clip.name}", f"wavcaps:{clip.name}")
        if source == "freesound"
        else (),
        files=(clip.name,),
        where=clip.where,
        licence=f"{ACADEMIC}; audio CC by clip",
        captions=(clip.caption,),
        title=clip.title,
        tags=clip.tags,
    )


def clotho(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the development and validation clips of Clotho."""
    for split in ("development", "validation"):
        table = metadata_file(folder, f"clotho_captions_{split}.csv")
        about_file = metadata_file(folder, f"clotho_metadata_{split}.csv", optional=True)
        about = freesound_tables.clotho_metadata(about_file) if about_file is not None else {}
        for clip in freesound_tables.clotho(table, problems=problems):
            stem, sound = Path(clip.file).stem, about.get(clip.file)
            yield SourceClip(
                source="clotho",
                clip_id=clip.file,
                dataset="clotho_development",
                recordings=(
                    f"clotho:{clip.file}",
                    *((f"freesound:{sound.sound_id}",) if sound and sound.sound_id else ()),
                ),
                files=(stem, stem.replace(" ", "_")),
                where=clip.where,
                licence=(sound.licence if sound else "") or "CC by clip; captions non-commercial",
                captions=clip.captions,
                tags=sound.keywords if sound else (),
            )


_FMA = (
    ("set", "split"), ("set", "subset"), ("track", "genre_top"), ("track", "genres"),
    ("track", "title"),
)  # fmt: skip


def fma(folder: Path, problems: RecordProblems) -> Iterator[SourceClip]:
    """Yield the training and validation tracks of FMA that have a genre."""
    titles = fma_tables.genre_titles(metadata_file(folder, "genres.csv"))
    table = metadata_file(folder, "tracks.csv")
    for where, track, (split, _, top, genres, title) in fma_tables.tracks(table, columns=_FMA):
        if split not in ("training", "validation"):
            continue
        clip = None
        with problems.record():
            ids = fma_tables.genre_ids(genres, where)
            unknown = [number for number in ids if number not in titles]
            if unknown:
                raise UserError(f"{where}: genre {unknown[0]} is not in genres.csv")
            named = tuple(titles[number] for number in ids) or ((top,) if top else ())
            name = f"{track:06d}"
            clip = SourceClip(
                source="fma",
                clip_id=name,
                dataset="fma",
                recordings=(f"fma:{track}",),
                files=(name,),
                where=where,
                licence="CC BY 4.0 (metadata); audio by its artists' licences",
                genres=named,
                title=title.strip(),
            )
        if clip is not None and clip.genres:
            yield clip
