"""Factors of datasets and tasks: an epoch has each pair as often as they say, in rows apart."""

from collections import Counter

import numpy as np
import pytest

from data_pipelines.input import mixtures, pair_weights
from data_pipelines.input.row_order import OrderRule, RowOrder
from data_pipelines.records.record_index import IndexEntry, of_entries
from ltu_jax.core.errors import UserError

DATASETS = ("clotho_development", "sound_bible", "as_20k", "iemocap_tr")
TASKS = ("caption", "caption", "cla_label", "open-ended question")


def entry(number: int) -> IndexEntry:
    return IndexEntry(
        shard="s", number=number, offset=0, length=0, crc32=0, clip_id=f"c{number}", seconds=1.0,
        dataset=DATASETS[number % 4], tags=("Dog",),
        pairs=tuple((task, not task.startswith("open"), 1) for task in TASKS[: 1 + number % 5]),
    )  # fmt: skip


ENTRIES = of_entries([entry(number) for number in range(40)])


def weighed(*texts, tasks=("all",)):
    chosen = mixtures.choose(ENTRIES, tasks=tasks, datasets=set(DATASETS), where="R")
    return pair_weights.weigh(
        ENTRIES, chosen, pair_weights.parse(texts), there=DATASETS, tagged=tasks is None, where="R"
    )


def times(made) -> Counter:
    return Counter(zip(made.records.tolist(), made.pairs.tolist(), strict=True))


def expected(factor) -> Counter:
    """Count the pairs by a factor of (dataset, task), the slow way."""
    return Counter(
        {
            (number, place): factor(one.dataset, task)
            for number, one in enumerate(map(entry, range(40)))
            for place, (task, *_) in enumerate(one.pairs)
            if factor(one.dataset, task)
        }
    )


def poster(dataset, task):
    return {"clotho_development": 2, "sound_bible": 10}.get(dataset, 1) if task == "caption" else 1


@pytest.mark.parametrize(
    ("texts", "factor"),
    [
        (("poster",), poster),
        (("audio=3",), lambda dataset, _: 1 if dataset == "iemocap_tr" else 3),
        (("all:open=2", "speech=0"), lambda dataset, task:
         2 if task[:4] == "open" else 0 if dataset == "iemocap_tr" else 1),
        (("AS_*:classification=4", "as_20k=2"), lambda dataset, task:
         1 if dataset != "as_20k" else 4 if task == "cla_label" else 2),
    ],
)  # fmt: skip
def test_every_pair_comes_as_often_as_its_factor(texts, factor):
    made = weighed(*texts)
    assert times(made) == expected(factor)
    begins = ENTRIES.pair_begins[made.records] + made.pairs
    assert made.numbers.tolist() == begins.tolist()
    for array in (made.records, made.clips):
        assert (np.diff(array) >= 0).all()


def test_copies_of_a_pair_are_of_clips_apart():
    made = weighed("all=3")
    together = zip(made.clips.tolist(), made.pairs.tolist(), strict=True)
    assert max(Counter(together).values()) == 1


@pytest.mark.parametrize(("cap", "clips", "room"), [(1, 1, 100), (2, 1, 1000), (3, 4, 60)])
def test_an_epoch_of_rows_has_them_as_often(cap, clips, room):
    made = weighed("poster", "all:ASR=2")
    rule = OrderRule(pairs_per_clip=cap, clips_per_row=clips, row_tokens=room, rows_per_batch=4,
                     seed=0, shuffle=True, group_batches=0)  # fmt: skip
    order = RowOrder(
        rule, records=made.records, pairs=made.pairs, clips=made.clips,
        tokens=np.full(len(made.records), 12),
    )  # fmt: skip
    for epoch in range(2):
        seen: Counter = Counter()
        heard = 0
        for position in range(order.rows_per_epoch):
            for record, pairs in order.row(epoch * order.rows_per_epoch + position):
                assert len(set(pairs)) == len(pairs) <= cap
                seen.update((record, pair) for pair in pairs)
                heard += 1
        assert seen == expected(poster)
        assert order.clip_counts(epoch=epoch).sum() == heard


def test_without_copies_rows_are_those_without_weights():
    made = weighed("all=1")
    rule = OrderRule(pairs_per_clip=2, clips_per_row=3, row_tokens=80, rows_per_batch=4, seed=3,
                     shuffle=True, group_batches=0)  # fmt: skip
    given = dict(records=made.records, pairs=made.pairs, tokens=np.full(len(made.pairs), 12))
    with_clips, without = RowOrder(rule, clips=made.clips, **given), RowOrder(rule, **given)
    for position in range(without.rows_per_epoch):
        assert with_clips.row(position) == without.row(position)
    doubled = weighed("clotho_development=2")
    other = RowOrder(
        rule, records=doubled.records, pairs=doubled.pairs, clips=doubled.clips,
        tokens=np.full(len(doubled.pairs), 12),
    )  # fmt: skip
    assert other.fingerprint() != without.fingerprint()


def test_a_part_of_a_factor_is_a_share_of_the_pairs():
    many = of_entries([entry(4) for _ in range(20_000)])  # clotho_development
    chosen = mixtures.choose(many, tasks=("all",), datasets=set(DATASETS), where="R")

    def made(text):
        return pair_weights.weigh(
            many, chosen, pair_weights.parse((text,)), there=DATASETS, tagged=False, where="R"
        )

    pairs = len(chosen[0])
    assert abs(len(made("clotho*=0.3").records) / pairs - 0.3) < 0.01
    more = times(made("clotho*:open=2.25"))
    opened = [count for (_, place), count in more.items() if place == 3]
    assert abs(np.mean(opened) - 2.25) < 0.02 and set(opened) == {2, 3}
    assert {count for (_, place), count in more.items() if place < 3} == {1}
    # A larger factor keeps what a smaller one takes.
    assert times(made("clotho*=0.3")) <= times(made("clotho*=0.4"))


def test_tagged_clips_have_the_factor_of_their_dataset():
    made = weighed("clotho*=2", "all:caption=5", tasks=None)
    assert Counter(ENTRIES[r].dataset for r in made.records.tolist()) == {
        "clotho_development": 20, "sound_bible": 10, "as_20k": 10, "iemocap_tr": 10
    }  # fmt: skip


@pytest.mark.parametrize("text", ["clotho", "=2", "clotho=", "clotho=x", "a=-1", "a=nan", "a=1e9"])
def test_what_is_no_weight_is_refused(text):
    with pytest.raises(UserError, match="is no weight") as error:
        pair_weights.parse((text,))
    assert repr(text) in str(error.value)


def test_weights_about_nothing_and_weights_that_leave_nothing_are_refused():
    with pytest.raises(UserError, match="'esc50=2' is about no dataset of R; there are as_20k"):
        weighed("esc50=2")
    with pytest.raises(UserError, match="leaves no pair"):
        weighed("all=0")
    of_poster = pair_weights.parse(("poster",))
    assert {weight.factor for weight in of_poster} == {2, 10}
    chosen = mixtures.choose(ENTRIES, tasks=("all",), datasets={"as_20k"}, where="R")
    made = pair_weights.weigh(
        ENTRIES, chosen, of_poster, there={"as_20k"}, tagged=False, where="R"
    )  # the balance of the poster, of records without Clotho
    assert len(made.records) == len(chosen[0])
