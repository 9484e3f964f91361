"""FSD50K: the ground truth folder as its archive unpacks it."""

import miniatures
import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.item import AudioClip, Item
from ltu_jax.evaluation.datasets.readers.fsd50k import read

VOCABULARY, EVAL, DEV = (miniatures.FSD50K[name] for name in ("vocabulary", "eval", "dev"))
CHOICES = ("Accelerating and revving and vroom", "Accordion", "Bass guitar", "Guitar")


@pytest.fixture
def data(tmp_path):
    miniatures.fsd50k(tmp_path)
    return tmp_path


def test_eval_clips_with_all_their_labels_in_words(data):
    corpus = read(data, split="eval")
    assert corpus.items == (
        Item(
            item_id="37199",
            clip_id="37199",
            row="fsd50k",
            references=("Bass guitar",),
            choices=CHOICES,
        ),
        Item(
            item_id="175151",
            clip_id="175151",
            row="fsd50k",
            references=("Bass guitar", "Guitar"),
            choices=CHOICES,
        ),
    )
    assert corpus.clips["37199"] == AudioClip(
        clip_id="37199", audio=data / "FSD50K.eval_audio/37199.wav", cluster="37199"
    )


def test_val_is_a_part_of_dev(data):
    corpus = read(data, split="val")
    assert [item.item_id for item in corpus.items] == ["16399"]
    assert corpus.clips["16399"].audio == data / "FSD50K.dev_audio/16399.wav"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("eval", EVAL + "5,Dog,/m/0bt9lr\n", r"eval.csv:4: label 'Dog' is not in .*vocabulary.csv"),
        ("eval", EVAL + "37199,Guitar,/m/0342h\n", r"eval.csv:4: '37199' is listed twice"),
        ("eval", EVAL + "a.wav,Guitar,/m/0342h\n", r"eval.csv:4: fname is 'a.wav'"),
        ("eval", EVAL + "5\n", r"eval.csv:4: too few fields"),
        ("eval", "fname,mids\n5,/m/0342h\n", r"eval.csv has no column 'labels'"),
        ("eval", "fname,labels,mids\n", r"eval.csv has nothing of split 'eval'"),
        ("vocabulary", VOCABULARY + "9,Dog,/m/0bt9lr\n", r"vocabulary.csv:5: '9', 'Dog': .* 4"),
        ("vocabulary", VOCABULARY + "4,Guitar,/m/0342h\n", r"vocabulary.csv:5: '4', 'Guitar'"),
    ],
)
def test_a_broken_table_is_named(data, name, content, message):
    (data / "FSD50K.ground_truth" / f"{name}.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        read(data, split="eval")


def test_an_unknown_part_of_dev_is_named(data):
    table = data / "FSD50K.ground_truth/dev.csv"
    table.write_text(DEV + "7,Guitar,/m/0342h,test\n")
    with pytest.raises(UserError, match=r"dev.csv:4: split is 'test'"):
        read(data, split="train")


@pytest.mark.parametrize("name", ["eval", "vocabulary"])
def test_a_missing_table_is_named(data, name):
    (data / "FSD50K.ground_truth" / f"{name}.csv").unlink()
    with pytest.raises(UserError, match=rf"FSD50K.ground_truth/{name}.csv does not exist"):
        read(data, split="eval")
