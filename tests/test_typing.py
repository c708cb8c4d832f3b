import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from lamina._typing import FrozenDict, Value, comparable, show


@dataclass(frozen=True, repr=False, eq=False)
class Pair(Value):
    first: Any = 1.0
    second: Any = FrozenDict(loc=0.0)


def test_frozen_dict_reads_like_a_dict_and_cannot_change():
    mapping = FrozenDict({"loc": 0.0}, scale=1.0)
    assert dict(mapping) == {"loc": 0.0, "scale": 1.0}
    assert mapping == {"scale": 1.0, "loc": 0.0}
    assert repr(mapping) == "{'loc': 0.0, 'scale': 1.0}"
    with pytest.raises(TypeError, match="item assignment"):
        mapping["loc"] = 2.0
    with pytest.raises(TypeError, match="item deletion"):
        del mapping["loc"]


def test_frozen_dict_keeps_a_copy():
    given = {"loc": 0.0}
    mapping = FrozenDict(given)
    given["loc"] = 5.0
    assert mapping["loc"] == 0.0


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_copies_and_pickles_of_a_frozen_dict_equal_it(copied):
    mapping = FrozenDict(loc=np.zeros(3), scale=1.0)
    assert copied(mapping) == mapping
    again = pickle.loads(pickle.dumps(mapping))
    assert again == mapping
    assert hash(again) == hash(mapping)


def distributions(scale):
    """Distributions that differ in one number, which some hide in a base."""
    return [
        dist.HalfNormal(scale),
        dist.StudentT(3.0, 0.0, scale),
        dist.Normal(0.0, scale).expand([3]),
        dist.TruncatedNormal(scale, 1.0, low=0.0),
        dist.TransformedDistribution(
            dist.Normal(0.0, scale), dist.transforms.ExpTransform()
        ),
        dist.Normal(jnp.zeros(2), jnp.full(2, scale)),
    ]


@pytest.mark.parametrize("index", range(6))
def test_distributions_are_compared_by_all_that_they_hold(index):
    one, same, other = (distributions(scale)[index] for scale in (1.0, 1.0, 2.0))
    assert Pair(one) == Pair(same)
    assert hash(Pair(one)) == hash(Pair(same))
    assert Pair(one) != Pair(other)


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (np.arange(3), np.arange(3), np.arange(3)[::-1]),
        (np.zeros(2), np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2), np.zeros(2), np.zeros(2, np.float32)),
        ([1.0, [2.0]], [1.0, [2.0]], [1.0, [3.0]]),
        ({"loc": np.ones(2)}, {"loc": np.ones(2)}, {"loc": np.zeros(2)}),
        (np.array(2.0), 2.0, 3.0),
    ],
)
def test_fields_are_compared_by_value(one, same, other):
    assert Pair(one) == Pair(same)
    assert hash(Pair(one)) == hash(Pair(same))
    assert Pair(one) != Pair(other)


def test_values_of_two_classes_differ():
    @dataclass(frozen=True, repr=False, eq=False)
    class Other(Pair):
        pass

    assert Pair() != Other()
    assert Pair() != "Pair()"


def test_traced_fields_are_the_same_only_as_themselves():
    def run(x, y):
        assert Pair(x) == Pair(x)
        assert Pair(x) != Pair(y)
        assert Pair(x) != Pair(1.0)
        return x

    jax.jit(run)(1.0, 1.0)


def test_a_value_shows_what_differs_from_its_defaults():
    assert repr(Pair()) == "Pair()"
    assert repr(Pair(2.0)) == "Pair(first=2.0)"
    shown = repr(Pair(dist.HalfNormal(2.0), {"loc": 1.0}))
    assert shown == "Pair(first=HalfNormal(scale=2.0), second={'loc': 1.0})"
    assert repr(Pair(dist.Normal)) == "Pair(first=Normal)"


def test_a_wrapped_distribution_shows_its_base():
    shown = show(dist.TruncatedNormal(0.0, 2.0, low=0.5))
    assert shown == "LeftTruncatedDistribution(Normal(loc=0.0, scale=2.0), low=0.5)"


def test_a_value_cannot_change_and_shares_no_mapping():
    given = {"loc": 1.0}
    pair = Pair(second=given)
    given["loc"] = 5.0
    assert pair.second == {"loc": 1.0}
    with pytest.raises(FrozenInstanceError):
        pair.first = 3.0


def test_a_number_stands_for_itself():
    assert comparable(2.5) == 2.5
    assert comparable(jnp.float32(2.5)) == 2.5
