"""The order of minibatches: exact sizes, no repeats, every row alike, no state."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from lamina.infer.minibatch import BlockOrder, take_blocks

seeds = st.integers(0, 2**32 - 1)


@st.composite
def orders(draw, most=400):
    num_rows = draw(st.integers(1, most))
    return BlockOrder(num_rows, draw(st.integers(1, num_rows)), draw(seeds))


def shuffled_rows(order):
    """Which row stands where after the shuffle on the host."""
    return np.asarray(order.shuffle({"row": np.arange(order.num_rows)})["row"])


def batches(order, first_step, steps):
    """The rows of each batch, by indexing: (steps, batch)."""
    starts = order.starts(first_step, steps)
    places = starts[..., None] + np.arange(order.width)
    return shuffled_rows(order)[places].reshape(steps, -1)


@given(order=orders(), epoch=st.integers(0, 5))
@example(order=BlockOrder(1, 1, 0), epoch=0)
@example(order=BlockOrder(127, 127, 0), epoch=1)
@example(order=BlockOrder(127, 1, 0), epoch=0)
@example(order=BlockOrder(127, 64, 2**32 - 1), epoch=2)
@example(order=BlockOrder(100, 51, 0), epoch=0)
def test_an_epoch_takes_full_batches_and_no_row_twice(order, epoch):
    found = batches(order, epoch * order.batches, order.batches)
    assert order.batches == order.num_rows // order.batch_size
    assert found.shape == (order.batches, order.batch_size)
    assert len(np.unique(found)) == found.size


@given(order=orders())
def test_the_shuffle_holds_every_row_and_its_own_beginning_again(order):
    rows = shuffled_rows(order)
    n = order.num_rows
    assert_array_equal(np.sort(rows[:n]), np.arange(n))
    assert_array_equal(rows[n:], rows[: order.width - 1])


@given(order=orders(), first=st.integers(0, 50), cuts=st.lists(st.integers(1, 9)))
def test_a_batch_depends_on_its_step_alone(order, first, cuts):
    """However the steps are cut into chunks, and whatever was asked before."""
    whole = order.starts(first, sum(cuts))
    begins = first + np.cumsum([0, *cuts])
    parts = [order.starts(int(b), n) for b, n in zip(begins, cuts, strict=False)]
    assert_array_equal(np.concatenate([*parts, whole[:0]]), whole)
    again = BlockOrder(order.num_rows, order.batch_size, order.seed)
    assert_array_equal(again.starts(first, sum(cuts)), whole)


def test_epochs_and_seeds_differ():
    def epoch(seed, number):
        order = BlockOrder(97, 10, seed)
        return batches(order, number * order.batches, order.batches).tolist()

    found = [epoch(seed, number) for seed in (0, 1) for number in range(5)]
    assert all(a != b for i, a in enumerate(found) for b in found[:i])


@pytest.mark.parametrize(("n", "b"), [(10, 4), (97, 64), (101, 50), (129, 128)])
def test_each_epoch_drops_a_tail_of_its_own(n, b):
    order = BlockOrder(n, b, seed=3)
    dropped = [
        frozenset(range(n)) - set(batches(order, e * order.batches, order.batches).flat)
        for e in range(40)
    ]
    assert {len(rows) for rows in dropped} == {n - order.batches * b}
    assert len(set(dropped)) > 5
    assert len(frozenset.union(*dropped)) > min(n / 2, 20)


@pytest.mark.parametrize(("n", "b"), [(37, 8), (60, 32), (23, 23), (53, 1), (40, 30)])
def test_every_row_is_as_likely_in_every_place(n, b):
    """In an epoch a row appears with probability batches * B / N, in a batch B / N."""
    epochs = 4000
    order = BlockOrder(n, b, seed=5)
    found = batches(order, 0, epochs * order.batches)
    by_epoch = np.bincount(found.ravel(), minlength=n)
    first = np.bincount(found[:: order.batches].ravel(), minlength=n)
    for counts, p in ((by_epoch, order.batches * b / n), (first, b / n)):
        deviation = np.abs(counts - epochs * p)
        assert deviation.max() <= 5 * np.sqrt(epochs * p * (1 - p))


@given(order=orders(most=60), step=st.integers(0, 20))
@example(order=BlockOrder(100, 64, 1), step=3)
def test_blocks_are_the_rows_that_indexing_takes(order, step):
    """For any number of axes and any type, past the end of the circle too."""
    n = order.num_rows
    rows = {
        "flat": np.arange(n),
        "matrix": np.arange(3.0 * n, dtype=np.float32).reshape(n, 3),
        "cube": np.arange(4 * n).reshape(n, 2, 2) % 7 == 0,
    }
    starts = jnp.asarray(order.starts(step, 1)[0])
    got = take_blocks(order.shuffle(rows), starts, order.width)
    (wanted,) = batches(order, step, 1)
    for name, value in rows.items():
        assert_array_equal(got[name], value[wanted])
        assert got[name].dtype == value.dtype or value.dtype == np.int64


def test_some_blocks_go_round_the_end_of_the_rows():
    """So that the examples above cover it."""
    order = BlockOrder(100, 64, 1)
    starts = order.starts(0, 50)
    assert order.width > 1
    assert (starts + order.width > 100).any()


@given(n=st.integers(1, 10**6), share=st.floats(0, 1))
def test_blocks_fill_a_batch(n, share):
    order = BlockOrder(n, max(int(n * share), 1), 0)
    assert order.width * order.blocks == order.batch_size
    assert order.blocks >= min(order.batch_size, 4)
