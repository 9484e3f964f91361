"""The order of rows at sizes that a tiny corpus does not reach."""

import collections

import numpy as np
import pytest

from data_pipelines.order import RowOrder


def _order(*, records, pairs_per_clip, rows_per_batch, group_batches, seed=0, **changes):
    counts = np.random.default_rng(1).integers(1, 9, size=records)
    owner = np.repeat(np.arange(records), counts)
    place = np.concatenate([np.arange(count) for count in counts])
    sizes = np.random.default_rng(2).integers(10, 500, size=len(owner))
    values = dict(
        records=owner,
        pairs=place,
        tokens=sizes,
        pairs_per_clip=pairs_per_clip,
        clips_per_row=1,
        row_tokens=500 * pairs_per_clip,
        rows_per_batch=rows_per_batch,
        seed=seed,
        shuffle=True,
        group_batches=group_batches,
    )
    order = RowOrder(**values | changes)
    return order, counts, {(o, p): s for o, p, s in zip(owner, place, sizes, strict=True)}


@pytest.mark.parametrize("group_batches", [0, 3])
@pytest.mark.parametrize("pairs_per_clip", [1, 2, 5])
def test_an_epoch_is_a_permutation_of_all_pairs(group_batches, pairs_per_clip):
    order, counts, _ = _order(
        records=100, pairs_per_clip=pairs_per_clip, rows_per_batch=7, group_batches=group_batches
    )
    assert order.rows_per_epoch == sum(-(-count // pairs_per_clip) for count in counts)
    for epoch in (0, 1, 5):
        seen = collections.Counter()
        for place in range(order.rows_per_epoch):
            ((record, pairs),) = order.row(epoch * order.rows_per_epoch + place)
            assert 1 <= len(pairs) <= pairs_per_clip
            seen.update((record, pair) for pair in pairs)
        assert set(seen.values()) == {1} and len(seen) == counts.sum()


def test_batches_stay_grouped_across_the_end_of_an_epoch():
    batch, window = 8, 10
    order, _, sizes = _order(
        records=150, pairs_per_clip=1, rows_per_batch=batch, group_batches=window
    )
    assert order.rows_per_epoch % batch  # epochs do not end with a batch
    spread = []
    for step in range(3 * order.rows_per_epoch // batch):
        rows = [order.row(step * batch + row) for row in range(batch)]
        lengths = [sizes[record, pair] for ((record, (pair,)),) in rows]
        spread.append(max(lengths) - min(lengths))
    # 80 sizes of 10..500 sorted into 10 batches: about 50 each; unsorted batches span about 390.
    assert np.median(spread) < 80
    assert sum(value > 150 for value in spread) <= 6  # what is left over at the end of each epoch


def test_seeds_and_epochs_give_different_orders():
    def head(seed, epoch):
        order, *_ = _order(
            records=50, pairs_per_clip=2, rows_per_batch=4, group_batches=0, seed=seed
        )
        return [order.row(epoch * order.rows_per_epoch + place) for place in range(20)]

    orders = [head(0, 0), head(0, 1), head(1, 0), head(1, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[i + 1 :])
    assert head(0, 1) == orders[1]
