"""Stages of learning rates, driven by a loop whose losses the tests choose."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpyro.infer.svi import SVIState

from lamina.infer.plateau import lower
from lamina.infer.stages import (
    FEWEST_STEPS,
    LEAST_FALL,
    Stages,
    averaged,
    require_steps,
)


class FakeLoop:
    """A loop that takes no steps, and answers with losses by step and rate."""

    def __init__(self, losses, *, grid=500, epoch=1):
        self.losses, self.grid, self.full = losses, grid, epoch == 1
        self.order = SimpleNamespace(batches=epoch)
        self.rates, self.steps = [], 0

    def start(self):
        rule = averaged(optax.inject_hyperparams(optax.adam)(0.1))
        params = {"w": jnp.zeros(())}
        return SVIState((0, (params, rule.init(params))), None, None)

    def advance(self, state, steps):
        hyper = state.optim_state[1][1].inner.hyperparams
        rate = float(hyper["learning_rate"])
        at = self.steps + np.arange(steps)
        self.steps += steps
        self.rates += [rate] * steps
        return state, np.asarray(self.losses(at, rate), np.float32)


BAR = SimpleNamespace(
    set_postfix_str=lambda *a, **k: None, update=lambda n: None, total=0
)


def run(loop, *, most=200_000, epochs=100, rate=0.1):
    return Stages(loop, rate, most, epochs, BAR)(loop.start())


def falling(at, rate):
    return 1e6 - at


def flat(at, rate):
    return np.where(at % 2, 1.0, 2.0)


def noise_of_the_rate(at, rate):
    """A plateau whose height is the rate's own noise."""
    return 100 * max(rate, 0.01) + np.where(at % 2, 0.1, -0.1)


@given(
    most=st.integers(FEWEST_STEPS, 30_000),
    grid=st.integers(20, 500),
    epoch=st.sampled_from([1, 2, 7, 100, 1000]),
    epochs=st.integers(1, 1000),
    losses=st.sampled_from([falling, flat, noise_of_the_rate]),
)
def test_no_more_steps_than_asked_for(most, grid, epoch, epochs, losses):
    loop = FakeLoop(losses, grid=grid, epoch=epoch)
    _, found, _ = run(loop, most=most, epochs=epochs)
    assert 0 < len(found) == loop.steps <= most


def test_too_few_steps_raise():
    require_steps(FEWEST_STEPS)
    with pytest.raises(ValueError, match="num_steps is 7, but the stages need 8"):
        require_steps(7)


def test_a_loss_that_still_falls_is_noted():
    _, _, notes = run(FakeLoop(falling), most=20_000)
    (note,) = notes
    assert "still falling" in note
    assert "num_steps" in note
    assert run(FakeLoop(noise_of_the_rate))[2] == ()


def test_a_loss_that_never_fell_is_noted():
    """Its rate may be too small to move anything."""
    (note,) = run(FakeLoop(flat))[2]
    assert "never fell" in note


def test_rates_fall_until_a_finer_one_is_no_better():
    loop = FakeLoop(noise_of_the_rate)
    run(loop)
    rates = list(dict.fromkeys(loop.rates))
    assert_allclose(rates, 0.1 * 0.3 ** np.arange(len(rates)), rtol=1e-5)
    # 0.01 and below are equally good: the second such rate ends it
    assert_allclose(rates[-1], 0.1 * 0.3**3, rtol=1e-5)


def test_the_average_is_of_a_whole_number_of_steps_at_one_rate():
    loop = FakeLoop(flat)
    run(loop)
    assert len(set(loop.rates[-2000:])) == 1


def test_the_average_is_of_as_many_epochs_as_asked_for():
    loop = FakeLoop(flat, epoch=100)
    run(loop, epochs=300)
    assert len(set(loop.rates[-30_000:])) == 1


@pytest.mark.parametrize(
    ("fall", "errors", "wanted"),
    [(1.0, 1.0, True), (0.005, 1.0, False), (0.0, 1.0, False), (-1.0, 1.0, False)],
)
def test_a_loss_is_lower_by_more_than_its_noise_and_a_hundredth_of_a_nat(
    fall, errors, wanted
):
    noise = np.tile([0.1, -0.1], 500)
    assert lower(5.0 + noise, 5.0 - fall + noise, errors, LEAST_FALL) is wanted
    loud = 100 * noise
    assert not lower(5.0 + loud, 4.9 + loud, 1.0)


def test_the_running_average_is_the_mean_of_the_iterates():
    rule = averaged(optax.sgd(0.1))
    params = {"w": jnp.array([1.0, 2.0])}
    state, iterates = rule.init(params), []
    for k in range(5):
        grads = {"w": jnp.array([float(k), -1.0])}
        updates, state = rule.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        iterates.append(np.asarray(params["w"]))
    assert_allclose(state.average["w"], np.mean(iterates, axis=0), rtol=1e-6)
