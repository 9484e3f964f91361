"""A merged build goes into records, and the stages take of it what their tables say."""

import shlex
from collections import Counter

import numpy as np
import pytest
import soundfile

from configs import stage1, stage2, stage3
from configs.ablations import audio_only, speech_only
from data_pipelines.doctor import data_readers
from data_pipelines.input import mixtures
from data_pipelines.input.data_config import DataConfig
from data_pipelines.input.pipeline import InputPipeline
from data_pipelines.manifests import clip_manifests
from data_pipelines.open_asqa import __main__ as open_asqa
from data_pipelines.open_asqa import merged_rows
from data_pipelines.open_asqa.registry import SOURCES
from data_pipelines.open_asqa.source_clip import SourceClip
from data_pipelines.records import record_files
from data_pipelines.records.schema import RecordError
from ltu_jax.core.errors import UserError
from tests.support import built_folder

CLIPS = 4  # of each of three sources: 8 closed-ended pairs each, 4 open-ended ones


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A merged file of three sources with the audio of every clip."""
    root = tmp_path_factory.mktemp("merged")
    folder = built_folder.made(root / "build", clips=CLIPS)
    for number, source in enumerate(built_folder.SOURCES):
        (root / "audio" / source).mkdir(parents=True)
        for clip in folder.clips(source):
            tone = np.sin(np.arange(8000) * 0.01 * (number + 1)) * 0.1
            soundfile.write(root / "audio" / source / f"{clip.files[0]}.wav", tone, 16_000)
    options = shlex.join(["--audio-root", str(root / "audio"), "--val-share", "0"])
    given = ["merge", str(folder.root), "--out", str(root / "rows.json")]
    given += ["--records", str(root / "records"), "--records-options", options]
    assert open_asqa.command(given) == 0
    return root


@pytest.fixture(scope="module")
def records(merged):
    return merged / "records"


def test_records_hold_every_row_with_the_licence_of_its_dataset(records, merged):
    manifest = record_files.read_manifest(records)
    split = manifest["splits"]["train"]
    assert (split["pairs"], split["closed_ended_pairs"]) == (36, 24)
    # Open-ended questions about speech and FMA name another dataset, which makes another clip.
    assert split["datasets"] == {
        "FMA": 2, "IEMOCAP": 2, "fma": 4, "fsd50k_tr": 4, "iemocap_tr": 4
    }  # fmt: skip
    assert manifest["licences"]["IEMOCAP"] == {"CC BY 4.0": 2}
    for data in (records, merged / "rows.json"):
        root = merged / "audio" if data.is_file() else None
        cases = data_readers.cases(data, audio_root=root)
        found = [case for case in cases if isinstance(case, data_readers.Case)]
        assert {case.licence for case in found} == {"CC BY 4.0"} and len(found) == 16


def test_a_writing_of_records_that_fails_is_a_merging_that_fails(merged, tmp_path):
    given = ["merge", str(merged / "build"), "--out", str(tmp_path / "rows.json")]
    with pytest.raises(UserError, match="--records-options are about --records"):
        open_asqa.command([*given, "--records-options=--no-tokens"])
    with pytest.raises(UserError, match="has a quote without its other half"):
        open_asqa.command([*given, "--records", "x", "--records-options=--audio-root 'my clips"])
    assert not (tmp_path / "rows.json").exists()
    refused = ["--records", str(tmp_path / "records"), "--records-options=--shards 0"]
    assert open_asqa.command([*given, *refused]) != 0
    assert (tmp_path / "rows.json").exists() and not (tmp_path / "records").exists()


def test_licences_of_another_form_are_refused_by_name(tmp_path):
    rows = tmp_path / "rows.json"
    for text in ("[]", '{"a": 3}', '{"a": {"CC0": "many"}}'):
        (tmp_path / "rows.json.licences.json").write_text(text)
        with pytest.raises(RecordError, match=r"rows\.json\.licences\.json: give"):
            clip_manifests.manifest_licences(rows)
    (tmp_path / "rows.json.licences.json").unlink()
    assert clip_manifests.manifest_licences(rows) == {}


def taken(records, tokenizer, config, **changes) -> Counter:
    """Count the pairs of an epoch by dataset and task, as a stage's config chooses them."""
    chosen = {name: config.data[name] for name in ("tasks", "datasets", "weights")}
    settings = DataConfig(
        records=str(records), split="train", layout="single", cutoff=64, pairs_per_clip=1,
        clips_per_row=1, rows_per_batch=2, train_on="all", features="on_the_fly", seed=0,
        audio_tokens=25, n_mels=80, **chosen | changes,
    )  # fmt: skip
    pipeline = InputPipeline(settings, tokenizer=tokenizer)
    found: Counter = Counter()
    for position in range(pipeline.rows_per_epoch):
        for record, pairs in pipeline.order.row(position):
            entry = pipeline.store.entries[record]
            found.update((entry.dataset, entry.pairs[pair][0]) for pair in pairs)
    pipeline.row(0)
    return found


CLASSIFICATION = {("fsd50k_tr", "cla_label"): 4, ("iemocap_tr", "gender_cla"): 4,
                  ("fma", "genre_cla"): 4}  # fmt: skip
EVERYTHING = CLASSIFICATION | {
    ("fsd50k_tr", "ASR"): 4, ("iemocap_tr", "ASR"): 4, ("fma", "ASR"): 4,
    ("fsd50k_tr", "open-ended question"): 4, ("IEMOCAP", "open-ended question"): 4,
    ("FMA", "open-ended question"): 4,
}  # fmt: skip


def of(group):
    return {key: count for key, count in EVERYTHING.items() if mixtures.group(key[0]) == group}


def test_stages_and_ablations_take_what_their_tables_say(records, tokenizer):
    for stage in (stage1, stage2):
        assert taken(records, tokenizer, stage.get_config()) == CLASSIFICATION
    assert taken(records, tokenizer, stage3.get_config()) == EVERYTHING
    for ablation, group in ((audio_only, "audio"), (speech_only, "speech")):
        assert taken(records, tokenizer, ablation.get_config("stage3")) == of(group)


def test_weights_repeat_pairs_without_rows_of_their_own(records, tokenizer):
    weights = ("fsd50k*:open=3", "speech=0.0")
    found = taken(records, tokenizer, stage3.get_config(), weights=weights)
    assert found == of("audio") | of("joint") | {("fsd50k_tr", "open-ended question"): 12}
    assert taken(records, tokenizer, stage3.get_config(), weights=("poster",)) == EVERYTHING


SOURCES_OF = {  # as the poster groups its fourteen
    "audio": ("as_strong", "audioset", "vggsound", "fsd50k", "audiocaps", "freesound", "clotho",
              "soundbible", "real"),
    "speech": ("iemocap", "libritts", "voxceleb2", "mosei", "real_speech"),
    "joint": ("joint_audioset", "fma"),
    "": ("real_windows",),  # its datasets are of all three
}  # fmt: skip


def test_groups_cover_every_name_of_every_source():
    assert {source for of in SOURCES_OF.values() for source in of} == set(SOURCES)
    for group, sources in SOURCES_OF.items():
        for source in sources:
            names = {name for part in SOURCES[source].datasets for name in part.split(", ")}
            groups = {mixtures.group(name) for name in names - {"-"}}
            assert groups == ({group} if group else {"audio", "joint", "speech"}), source
    for name, group in (("real_windows", "audio"), ("real_joint_other", "joint"),
                        ("real_voices", "speech")):  # fmt: skip
        assert mixtures.group(name) == group


@pytest.mark.parametrize(
    ("source", "dataset", "opened"),
    [
        ("as_strong", "as_strong_train", "as_strong_train"), ("audioset", "as_20k", "as_20k"),
        ("audioset", "as_2m", "as_2m"), ("fsd50k", "fsd50k_val", "fsd50k_val"),
        ("clotho", "clotho_development", "clotho_development"),
        ("iemocap", "iemocap_tr", "IEMOCAP"),
        ("libritts", "libritts_tr", "libritts"), ("voxceleb2", "voxceleb_tr", "voxceleb"),
        ("mosei", "mosei_dev", "mosei"), ("joint_audioset", "audioset", "audioset"),
        ("fma", "fma", "FMA"),
    ],
)  # fmt: skip
def test_open_ended_rows_have_the_names_of_the_released_files(source, dataset, opened):
    clip = SourceClip(
        source=source, clip_id="a", dataset=dataset, files=("a",), where="t:1", licence="l"
    )
    assert merged_rows.open_dataset(clip) == opened
