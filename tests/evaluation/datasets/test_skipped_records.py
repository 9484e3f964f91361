"""Records that cannot be asked are counted in full, and the rest is asked when that is wanted."""

import json

import pytest

from data_pipelines.metadata.table_files import UnusableRecords
from ltu_jax import evaluate
from ltu_jax.core.errors import UserError
from ltu_jax.core.files import write_json
from ltu_jax.evaluation.datasets.dataset import read_dataset
from ltu_jax.evaluation.datasets.readers import clotho, fsd50k, mosei, own_questions, vggsound
from ltu_jax.evaluation.run import training_overlap

pytestmark = pytest.mark.usefixtures("few_resamples", "undrawn")


def question(number: int, **change: str) -> dict[str, object]:
    """A record of MMAU's test-mini."""
    return {
        "id": f"q{number}",
        "audio_id": f"./test-mini-audios/q{number}.wav",
        "question": "Which animal is heard?",
        "choices": ["dog", "cat", "cow", "owl"],
        "answer": "dog",
        "task": "sound",
        "split": "test-mini",
        "category": "x",
        "sub-category": "y",
        "difficulty": "easy",
        **change,
    }


@pytest.fixture
def mmau(tmp_path):
    """Fourteen records, two of whose answers are a letter and no choice."""
    records = [question(n, **({"answer": "d"} if n in (7, 14) else {})) for n in range(1, 15)]
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps(records))
    return tmp_path


def test_check_counts_all_and_says_what_to_do(mmau, capsys):
    assert evaluate.main(["--check", "--benchmarks", "mmau", "--data", str(mmau)]) == 1
    out = capsys.readouterr().out
    assert "2 records cannot be asked" in out
    assert "record 7: answer 'd'" in out and "record 14: answer 'd'" in out
    assert "--skip-bad-records" in out


def test_without_the_option_both_are_named_and_with_it_the_rest_is_asked(mmau):
    with pytest.raises(UserError) as caught:
        read_dataset(mmau, name="mmau", split=None)
    assert "2 records" in str(caught.value) and "--skip-bad-records" in str(caught.value)
    assert "record 7:" in str(caught.value) and "record 14:" in str(caught.value)
    rest = read_dataset(mmau, name="mmau", split=None, skip_bad_records=True)
    assert [item.item_id for item in rest.items] == [f"q{n}" for n in range(1, 14) if n != 7]
    assert len(rest.bad_records) == 2


def test_where_nothing_is_left_the_records_are_the_error(tmp_path):
    (tmp_path / "mmau-test-mini.json").write_text(json.dumps([question(1, answer="d")]))
    with pytest.raises(UserError, match="record 1: answer 'd'"):
        read_dataset(tmp_path, name="mmau", split=None, skip_bad_records=True)


LINE = {"audio": "a.wav", "question": "What?", "answer": "dog", "task": "open"}
TABLES = {  # reader, split, file, its text: records 2 and 4 of 4 are bad
    "jsonl": (
        own_questions, "all", "mine.jsonl",
        "\n".join([json.dumps(LINE), "{", json.dumps(LINE | {"id": "x"}), '{"audio": 3}']),
    ),
    "clotho": (
        clotho, "evaluation", "clotho_captions_evaluation.csv",
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
        "a.wav,1,2,3,4,5\nb.wav,1,,3,4,5\nc.wav,1,2,3,4,5\nd.wav,1,2\n",
    ),
    "vggsound": (
        vggsound, "test", "vggsound.csv",
        "a,1,dog,test\nb,x,dog,test\nc,3,cat,test\nd,4,cat,dev\n",
    ),
    "mosei": (
        mosei, "test", "label.csv",
        "video_id,clip_id,text,label,annotation,mode\n"
        "a,1,x,1,Positive,test\nb,1,x,1,Odd,test\nc,1,x,1,Negative,test\nd,1,x,1,Positive,maybe\n",
    ),
    "fsd50k": (
        fsd50k, "eval", "FSD50K.ground_truth/eval.csv",
        "fname,labels,mids\n1,Bark,m\nx,Bark,m\n3,Bark,m\n4,Moo,m\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_every_table_tells_of_all_its_bad_records(tmp_path, name):
    reader, split, file, content = TABLES[name]
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(content)
    (tmp_path / "FSD50K.ground_truth").mkdir(exist_ok=True)
    (tmp_path / "FSD50K.ground_truth" / "vocabulary.csv").write_text("0,Bark,m\n")
    with pytest.raises(UnusableRecords) as caught:
        reader.read(tmp_path / file if name == "jsonl" else tmp_path, split=split)
    assert len(caught.value.problems) == 2
    assert len(caught.value.rest.items) == 2


# --- training data --------------------------------------------------------------------------------


@pytest.fixture
def open_asqa(tmp_path):
    rows = [
        {"instruction": "What?", "input": "", "audio_id": f"{n}.wav", "dataset": "as_20k",
         "task": "open-ended question", "output": "A dog."}
        for n in range(2)
    ]  # fmt: skip
    (tmp_path / "open_asqa.json").write_text(json.dumps(rows))
    return tmp_path / "open_asqa.json"


RELEASED = {"kind": "ltu-as", "sha256": {}, "source": {"format": "ltu-as"}}


def test_open_asqa_is_refused_for_a_model_trained_on_it(open_asqa, tmp_path):
    write_json(tmp_path / "weights" / "config.json", RELEASED)
    command = ["--checkpoint", str(tmp_path / "weights"), "--benchmarks", "open_asqa"]
    with pytest.raises(UserError) as caught:
        evaluate.main([*command, "--data", str(open_asqa), "--modes", "joint"])
    assert "training data" in str(caught.value) and "--on-training-data" in str(caught.value)


@pytest.mark.parametrize(
    ("datasets", "refused"), [(["as_20k", "fma"], True), (["mini_sound"], False), (None, True)]
)
def test_the_records_of_a_checkpoint_tell(open_asqa, tmp_path, datasets, refused, monkeypatch):
    asked = read_dataset(open_asqa, name="open_asqa", split=None)
    metadata = {"base": {}, "config": {"data": {"records": str(tmp_path / "records")}}}
    manifest = {"splits": {"train": {"datasets": dict.fromkeys(datasets or (), 3)}}}
    monkeypatch.setattr(training_overlap.record_files, "read_manifest", lambda folder: manifest)
    why = training_overlap.overlap(asked, metadata)
    assert (why is not None) == refused
    if refused:
        with pytest.raises(UserError):
            training_overlap.refuse(asked, why, asked_for=False)
        assert "training data" in training_overlap.refuse(asked, why, asked_for=True)
    else:
        assert training_overlap.refuse(asked, why, asked_for=False) is None


def test_of_weights_that_do_not_say_it_is_remarked(open_asqa):
    asked = read_dataset(open_asqa, name="open_asqa", split=None)
    why = training_overlap.overlap(asked, {"kind": "ltu-as"})
    assert training_overlap.UNKNOWN in training_overlap.refuse(asked, why, asked_for=False)
