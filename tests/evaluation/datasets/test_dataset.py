"""The mini corpus as read, the pairing of the shuffled mode, and what is refused."""

import dataclasses
import json

import pytest

from ltu_jax.core.errors import UserError
from ltu_jax.evaluation.datasets.dataset import need_partners, pairing, read_dataset
from ltu_jax.evaluation.datasets.item import EvaluationMode, Item


def items_of(labels, *, row="sound", clips=None):
    clips = clips or [f"c{index}" for index in range(len(labels))]
    return [
        Item(
            item_id=f"{row}{index}",
            clip_id=clip,
            row=row,
            question="?",
            references=(label or "said",),
            choices=("a", "b", "c") if label else (),
        )
        for index, (label, clip) in enumerate(zip(labels, clips, strict=True))
    ]


def test_reads_items_with_the_class_of_their_answer(corpus):
    benchmark = read_dataset(corpus, name="mini", split="test")
    assert len(benchmark.items) == 48
    by_id = {item.item_id: item for item in benchmark.items}
    assert by_id["clip03-sound"].label == "church bell"
    assert by_id["clip04-gender"].label == "female"
    assert by_id["clip00-joint_questions"].label == "dog"  # although the quote names the cat
    assert by_id["clip01-spoken_text"].references == ("We bought seven green apples.",)
    assert benchmark.clips["clip01"].spoken_text == "We bought seven green apples."
    assert benchmark.clips["clip01"].audio.is_file()


def test_limit_draws_the_same_items_for_every_run(corpus):
    first = read_dataset(corpus, name="mini", split="test", limit=3)
    again = read_dataset(corpus, name="mini", split="test", limit=3)
    whole = read_dataset(corpus, name="mini", split="test")
    assert first.items == again.items
    assert [item.row for item in first.items].count("sound") == 3
    assert set(first.items) < set(whole.items)
    assert first.partner == whole.partner


def test_shuffled_audio_is_of_another_clip_and_class():
    items = items_of(list("aaabbbccc"))
    partner = pairing(items, seed=1)
    label = {item.clip_id: item.label for item in items}
    assert sorted(partner.values()) == sorted(label)  # every clip is heard once
    for item in items:
        assert label[partner[item.item_id]] != item.label


def test_shuffled_audio_depends_on_the_seed_alone():
    items = items_of(list("abcabcabcabc"))
    assert pairing(items, seed=1) == pairing(items, seed=1)
    assert pairing(items, seed=1) != pairing(items, seed=2)


def test_a_class_with_most_of_the_items_still_gets_other_clips():
    items = items_of(list("aaaaab"))
    partner = pairing(items, seed=0)
    assert all(partner[item.item_id] != item.clip_id for item in items)
    label = {item.clip_id: item.label for item in items}
    same = sum(label[partner[item.item_id]] == item.label for item in items)
    assert same == 4  # no pairing parts five from one better


def test_several_questions_about_a_clip_never_hear_their_own_clip():
    clips = ["x", "x", "y", "y", "z"]
    items = items_of([None] * 5, row="spoken_text", clips=clips)
    partner = pairing(items, seed=0)
    assert all(partner[item.item_id] != item.clip_id for item in items)


def test_a_row_of_one_clip_borrows_audio_of_another_row():
    items = items_of(["a"], clips=["x"]) + items_of(["b"], row="music", clips=["y"])
    assert pairing(items, seed=0) == {"sound0": "y", "music0": "x"}


def test_a_corpus_of_one_clip_cannot_be_shuffled(corpus):
    path = corpus / "test_items.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:2]) + "\n")
    benchmark = read_dataset(corpus, name="mini", split="test")
    need_partners(benchmark, [EvaluationMode.JOINT])
    with pytest.raises(UserError, match="the shuffled mode needs another"):
        need_partners(benchmark, list(EvaluationMode))


def change(corpus, **fields):
    """Rewrite the first item with other fields; None removes one."""
    path = corpus / "test_items.jsonl"
    lines = path.read_text().splitlines()
    first = {**json.loads(lines[0]), **fields}
    kept = {key: value for key, value in first.items() if value is not None}
    path.write_text("\n".join([json.dumps(kept), *lines[1:]]) + "\n")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"row": "smell"}, "test_items.jsonl:1: unknown row 'smell'; known: sound"),
        ({"clip_id": "no"}, "clip 'no' is not in clips.jsonl"),
        ({"question": None}, "field 'question' is None: give text"),
        ({"answer": "A dog and a cat."}, "names none or several of the choices"),
        ({"label": "cat"}, "names 'dog', but the label is 'cat'"),
        ({"item_id": "clip01-sound"}, "1 item ids occur more than once, 'clip01-sound' first"),
    ],
)
def test_a_broken_item_is_named(corpus, fields, message):
    change(corpus, **fields)
    with pytest.raises(UserError, match=message):
        read_dataset(corpus, name="mini", split="test")


def test_missing_files_and_unknown_names_are_named(corpus, tmp_path):
    with pytest.raises(UserError, match="unknown benchmark 'musan'; known: air_bench"):
        read_dataset(corpus, name="musan", split="test")
    with pytest.raises(UserError, match="build it first"):
        read_dataset(tmp_path / "nowhere", name="mini", split="test")
    with pytest.raises(UserError, match="val_items.jsonl does not exist"):
        read_dataset(corpus, name="mini", split="val")
    with pytest.raises(UserError, match="mini has no split 'dev'; it has test, val"):
        read_dataset(corpus, name="mini", split="dev")
    (corpus / "test_items.jsonl").write_text("{]\n")
    with pytest.raises(UserError, match="test_items.jsonl:1 is not valid JSON"):
        read_dataset(corpus, name="mini", split="test")


def test_spoken_text_needs_the_script(corpus):
    path = corpus / "clips.jsonl"
    path.write_text(path.read_text().replace('"truth_text"', '"script"'))
    with pytest.raises(UserError, match="has no labels.truth_text"):
        read_dataset(corpus, name="mini", split="test")


def test_items_cannot_be_changed(corpus):
    item = read_dataset(corpus, name="mini", split="test").items[0]
    with pytest.raises(dataclasses.FrozenInstanceError):
        item.row = "music"


def test_items_that_share_their_choices_with_no_other_clip_are_paired_among_themselves():
    items = [
        dataclasses.replace(item, choices=(item.label, f"option {number}"))
        for number, item in enumerate(items_of(list("abcd")))
    ]
    partner = pairing(items, seed=0)
    assert all(partner[item.item_id] != item.clip_id for item in items)
    assert sorted(partner.values()) == ["c0", "c1", "c2", "c3"]


def test_the_manifest_tells_other_questions_apart_whatever_the_limit(corpus):
    whole = read_dataset(corpus, name="mini", split=None)
    assert read_dataset(corpus, name="mini", split="test", limit=2).manifest == whole.manifest
    change(corpus, question="And what is this?")
    assert read_dataset(corpus, name="mini", split="test").manifest != whole.manifest


def test_the_manifest_tells_other_transcripts_and_parts_apart_but_not_where_the_data_lie(
    corpus, tmp_path
):
    whole = read_dataset(corpus, name="mini", split="test")
    moved = corpus.rename(tmp_path / "elsewhere")
    assert read_dataset(moved, name="mini", split="test").manifest == whole.manifest
    table = moved / "clips.jsonl"
    table.write_text(table.read_text().replace("The cat sat", "The cat stood"))
    assert read_dataset(moved, name="mini", split="test").manifest != whole.manifest


def test_half_a_surrogate_pair_is_named_with_its_item(corpus):
    change(corpus, question="What is \ud83d this?")
    with pytest.raises(UserError, match=r"item 'clip00-sound' has text that is no Unicode.*ud83d"):
        read_dataset(corpus, name="mini", split="test")
