"""Pure processes against their recursions and dense covariances in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from lamina.processes import (
    Autoregression,
    IntegratedWalk,
    Walk,
    at_group,
    circle,
    fourier,
    going_on,
    rising,
)
from support import shape_checked

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

C, M, RHO = 7, 2, -0.6
SLOPE = np.array([0.3, -1.0])
PROCESSES = {
    "walk": Walk(),
    "integrated walk": IntegratedWalk(np.zeros(1)),
    "autoregression": Autoregression(np.asarray(RHO)),
}
TIME = np.arange(C)
S, T = np.meshgrid(TIME, TIME, indexing="ij")
COVARIANCE = {
    "walk": np.minimum(S, T) + 1.0,
    "integrated walk": np.array(
        [
            [sum((s - r + 1) * (t - r + 1) for r in range(min(s, t) + 1)) for t in TIME]
            for s in TIME
        ]
    ),
    "autoregression": RHO ** np.abs(S - T),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_paths_have_the_covariance_of_the_process(name):
    """A path is linear in its steps: their matrix times its transpose is dense."""
    process = PROCESSES[name]
    matrix = jax.vmap(lambda step: process.path(step[:, None])[:, 0])(jnp.eye(C))
    assert_allclose(matrix.T @ matrix, COVARIANCE[name], atol=1e-12)


@pytest.mark.parametrize("c", [1, C])
@pytest.mark.parametrize("lead", [(), (3,), (2, 1)])
def test_paths_follow_their_recursions(c, lead):
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(*lead, c, M))
    rho, slope = rng.uniform(-1, 1, size=lead), rng.normal(size=(*lead, M))
    walk, integrated, auto = (np.zeros_like(steps) for _ in range(3))
    for at in np.ndindex(*lead):
        level, line, tilt, value = 0.0, 0.0, slope[at], steps[at][0]
        for t in range(c):
            level = level + steps[at][t]
            tilt = tilt + steps[at][t]
            line = line + tilt
            if t:
                value = rho[at] * value + np.sqrt(1 - rho[at] ** 2) * steps[at][t]
            walk[at][t], integrated[at][t], auto[at][t] = level, line, value
    steps = jnp.asarray(steps)
    for process, path in [
        (Walk(), walk),
        (IntegratedWalk(jnp.asarray(slope)), integrated),
        (Autoregression(jnp.asarray(rho)), auto),
    ]:
        found = jax.jit(type(process).path)(process, steps)
        assert_allclose(found, path, atol=1e-12)
        assert_allclose(process.last(steps)[0], path[..., -1, :], atol=1e-12)


def test_groups_share_the_autocorrelation_of_their_replicate():
    rng = np.random.default_rng(1)
    steps, rho = rng.normal(size=(2, 3, C, M)), np.array([0.9, -0.2])
    found = Autoregression(jnp.asarray(rho)).path(jnp.asarray(steps))
    for r in range(2):
        alone = Autoregression(jnp.asarray(rho[r])).path(jnp.asarray(steps[r]))
        assert_allclose(found[r], alone, atol=1e-12)


@pytest.mark.parametrize("steps_ahead", [1, 16, 17, 40])
@pytest.mark.parametrize(
    "process",
    [Walk(), IntegratedWalk(SLOPE), Autoregression(np.asarray(RHO))],
)
def test_going_on_is_the_path_of_more_steps(process, steps_ahead):
    """The first steps were fitted, the others are drawn: one path goes through both."""
    rng = np.random.default_rng(2)
    steps = jnp.asarray(rng.normal(size=(C + 64, M)))
    whole = process.path(steps)
    state = tuple(v[None] for v in process.last(steps[:C]))
    targets = jnp.array([C + steps_ahead - 1, C, C - 1, C + steps_ahead - 1])

    @jax.jit
    def go(targets):
        return going_on(
            process,
            state,
            C,
            lambda index: steps[index][None],
            jnp.zeros_like(targets),
            targets,
            C + 50,
        )

    found = np.asarray(go(targets))
    assert_allclose(found[[0, 1, 3]], whole[np.asarray(targets)[[0, 1, 3]]], atol=1e-10)
    assert np.isnan(found[2]).all()


def test_nothing_goes_on_further_than_allowed_or_without_a_target():
    draws = []

    def draw(index):
        jax.debug.callback(lambda i: draws.append(int(i)), index)
        return jnp.ones((1, 1))

    def go(targets):
        found = going_on(
            Walk(), (jnp.zeros((1, 1)),), 3, draw, jnp.zeros(2, int), targets, 20
        )
        jax.effects_barrier()
        return found

    assert np.isnan(go(jnp.array([21, 10**6]))).all()
    assert np.isnan(go(jnp.array([2, -1]))).all()
    assert draws == []
    assert_allclose(go(jnp.array([3, 20]))[:, 0], [1.0, 18.0])


def test_each_row_reads_its_groups_path_and_nan_outside():
    path = np.random.default_rng(3).normal(size=(2, 3, C, M))
    groups, codes = np.array([2, 0, 3, 1, -1]), np.array([C - 1, 0, 1, C, 2])
    found = shape_checked(at_group)(
        jnp.asarray(codes), jnp.asarray(groups), jnp.asarray(path)
    )
    assert found.shape == (2, 5, M)
    assert_allclose(found[:, 0], path[:, 2, C - 1])
    assert_allclose(found[:, 1], path[:, 0, 0])
    assert np.isnan(found[:, 2:]).all()


def test_fourier_columns_are_waves_of_the_period():
    phase = np.linspace(0.0, 1.0, 5)
    found = shape_checked(fourier)(jnp.asarray(phase), 2)
    waves = [np.cos, np.sin]
    expected = [wave(2 * np.pi * k * phase) for wave in waves for k in (1, 2)]
    assert_allclose(found, np.stack(expected, axis=1), atol=1e-12)


@pytest.mark.parametrize("period", [2, 3, 4, 7, 12])
def test_the_circle_is_the_inverse_of_its_laplacian(period):
    """The Moore-Penrose inverse of the cyclic walk's precision, in NumPy."""
    laplacian = 2.0 * np.eye(period)
    for p in range(period):
        laplacian[p, (p + 1) % period] -= 1.0
        laplacian[(p + 1) % period, p] -= 1.0
    columns = np.asarray(shape_checked(circle)(jnp.arange(period), period))
    assert columns.shape == (period, period - 1)
    assert_allclose(columns @ columns.T, np.linalg.pinv(laplacian), atol=1e-12)
    assert_allclose(columns.sum(axis=0), 0.0, atol=1e-12)


def test_the_circle_repeats_at_distant_places():
    far = np.array([0, 365 * 10_000, 7, 7 + 365 * 10_000])
    found = np.asarray(circle(jnp.asarray(far), 365))
    assert_allclose(found[0], found[1], atol=1e-12)
    assert_allclose(found[2], found[3], atol=1e-12)


@pytest.mark.parametrize("lead", [(), (2,), (2, 1)])
def test_rising_adds_the_shares_up_to_each_code(lead):
    rng = np.random.default_rng(4)
    e, u = 3, 2
    zeta = rng.dirichlet(np.ones(e), size=(*lead, u))
    beta, codes = rng.normal(size=(*lead, 1, u)), np.array([0, 3, 1, 2, 4, -1])
    found = shape_checked(rising)(
        jnp.asarray(codes), jnp.asarray(zeta), jnp.asarray(beta)
    )
    for row, code in enumerate(codes[:4]):
        expected = beta[..., 0, :] * zeta[..., :code].sum(axis=-1)
        assert_allclose(found[..., row, :], expected, atol=1e-12)
    assert_allclose(found[..., 1, :], beta[..., 0, :])
    assert np.isnan(found[..., 4:, :]).all()
