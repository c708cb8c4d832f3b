"""The minibatch loop: its result is a function of its arguments, and it is right."""

import signal

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import numpyro.optim
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import handlers
from numpyro.infer import SVI, Trace_ELBO, autoguide, init_to_value
from numpyro.infer.svi import SVIRunResult
from numpyro.primitives import mutable

from infer_helpers import normal_guide, regression, slope
from lamina._keys import as_key
from lamina.infer import Plateau, svi_run_batched
from lamina.infer.loop import MinibatchLoop

N = 50


@pytest.fixture(scope="module")
def data():
    return regression(N)[0]


def model(x, y):
    numpyro.sample("y", dist.Normal(slope(x), 0.5), obs=y)


def guide(x, y):
    normal_guide("b", (3,))


def make_svi(optimizer=None, model=model, guide=guide, loss=None, **static):
    loss = loss or Trace_ELBO()
    return SVI(model, guide, optimizer or optax.adam(0.01), loss, **static)


def same(a, b):
    """Whether two trees of arrays are equal to the last bit."""

    def bits(leaf):
        key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if key else leaf)

    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(bits(x), bits(y)) for x, y in pairs)


# --- the same arguments, the same result -------------------------------------------


@pytest.fixture(scope="module")
def reference(data):
    return svi_run_batched(make_svi(), 3, 120, 8, **data)


@pytest.mark.parametrize("chunk_steps", [1, 7, 64, 1000])
def test_chunks_do_not_change_a_bit(chunk_steps, data, reference):
    result = svi_run_batched(make_svi(), 3, 120, 8, chunk_steps=chunk_steps, **data)
    assert same(result, reference)


def test_any_number_of_steps_is_one_program(data):
    """The model is traced for the first chunk and never again."""
    traced = []

    def watched(x, y):
        traced.append(len(x))
        model(x, y)

    loop = MinibatchLoop(make_svi(model=watched), data, batch_size=8, seed=0)
    state, _ = loop.advance(loop.init(jax.random.key(0)), 33)
    before = len(traced)
    for steps in (1, 7, loop.grid, 3 * loop.grid + 2):
        state, losses = loop.advance(state, steps)
        assert losses.shape == (steps,)
    assert len(traced) == before


@pytest.mark.parametrize(
    "seed", [np.int64(3), jax.random.key(3), jax.random.PRNGKey(3)]
)
def test_a_seed_is_a_number_or_a_key(seed, data, reference):
    result = svi_run_batched(make_svi(), seed, 120, 8, **data)
    assert same(result.params, reference.params)
    assert same(result.losses, reference.losses)


def test_another_seed_is_another_run(data, reference):
    other = svi_run_batched(make_svi(), 4, 120, 8, **data)
    assert not np.array_equal(other.losses, reference.losses)


def test_the_result_is_numpyros(reference):
    assert isinstance(reference, SVIRunResult)
    assert reference.losses.shape == (120,)
    assert set(reference.params) == {"b.loc", "b.scale"}
    assert int(reference.state.optim_state[0]) == 120


def test_rows_are_taken_in_an_order_of_the_seed(data):
    """Two runs that differ in data order alone: the noise is the same, the batches not."""
    svi = make_svi()
    start = svi.init(jax.random.key(0), **{k: v[:8] for k, v in data.items()})
    a, b = (
        svi_run_batched(svi, seed, 20, 8, init_state=start, **data) for seed in (0, 1)
    )
    assert not np.array_equal(a.losses, b.losses)


@pytest.mark.parametrize("batch_size", [N, N + 1, 10_000])
def test_with_all_rows_it_is_numpyros_own_run(batch_size, data):
    svi = make_svi()
    start = svi.init(jax.random.key(0), **data)
    wanted = svi.run(None, 100, progress_bar=False, init_state=start, **data)
    got = svi_run_batched(svi, 0, 100, batch_size, init_state=start, **data)
    assert_allclose(got.losses, wanted.losses, rtol=2e-5)
    assert_allclose(got.params["b.loc"], wanted.params["b.loc"], atol=1e-5)


def test_a_minibatch_step_is_numpyros_own_update(data):
    """Each batch by hand: taken by the loop's own order, weighted by hand."""
    svi, steps = make_svi(), 6
    loop = MinibatchLoop(svi, data, batch_size=20, seed=5)
    start = loop.init(jax.random.key(0))
    state, losses = loop.advance(start, steps)

    def weighed(x, y):
        mu = slope(x)
        with handlers.scale(scale=N / 20):
            numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)

    by_hand = make_svi(model=weighed)
    by_hand.init(jax.random.key(0), **data)
    places = loop.order.starts(0, steps)[..., None] + np.arange(loop.order.width)
    shuffled = loop.order.shuffle(data)
    for step in range(steps):
        batch = {k: v[places[step].ravel()] for k, v in shuffled.items()}
        start, loss = by_hand.update(start, **batch)
        assert_allclose(losses[step], loss, rtol=1e-5)
    assert_allclose(
        svi.get_params(state)["b.loc"], by_hand.get_params(start)["b.loc"], rtol=1e-5
    )


# --- length, and going on ----------------------------------------------------------


def test_an_epoch_is_as_many_batches_as_fit(data):
    result = svi_run_batched(make_svi(), 0, num_epochs=3, batch_size=8, **data)
    assert len(result.losses) == 3 * (N // 8)
    full = svi_run_batched(make_svi(), 0, num_epochs=3, batch_size=N + 9, **data)
    assert len(full.losses) == 3


schedule = optax.exponential_decay(0.05, 20, 0.5)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam(schedule),
        optax.chain(optax.clip_by_global_norm(10.0), optax.sgd(schedule, momentum=0.9)),
        numpyro.optim.Adam(0.01),
        numpyro.optim.ClippedAdam(lambda step: 0.05 / (1.0 + step)),
    ],
    ids=["adam", "chain", "numpyro", "numpyro_schedule"],
)
def test_a_run_that_goes_on_is_one_run(optimizer, data):
    """Schedules, noise and the order of rows go on where they stopped."""
    svi = make_svi(optimizer)
    whole = svi_run_batched(svi, 3, 60, 8, **data)
    first = svi_run_batched(svi, 3, 25, 8, **data)
    second = svi_run_batched(svi, 3, 35, 8, init_state=first.state, **data)
    assert_array_equal(np.concatenate([first.losses, second.losses]), whole.losses)
    assert same(second.state, whole.state)


def test_a_state_goes_on_in_another_session(data):
    """With an SVI object and a guide that have never run."""

    def automatic():
        return make_svi(guide=autoguide.AutoDelta(model))

    first = svi_run_batched(automatic(), 3, 20, 8, **data)
    again = svi_run_batched(automatic(), 3, 20, 8, init_state=first.state, **data)
    whole = svi_run_batched(automatic(), 3, 40, 8, **data)
    assert same(again.params, whole.params)


def test_mutable_state_is_kept_and_goes_on(data):
    def counting(x, y):
        counter = mutable("counter", {"batches": jnp.array(0), "rows": jnp.array(0)})
        counter["batches"] = counter["batches"] + 1
        counter["rows"] = counter["rows"] + len(x)
        model(x, y)

    svi = make_svi(model=counting)
    first = svi_run_batched(svi, 0, 25, 8, chunk_steps=10, **data)
    start = svi_run_batched(svi, 0, 1, 8, **data).state.mutable_state["counter"]
    counter = first.state.mutable_state["counter"]
    assert counter["batches"] - start["batches"] == 24
    assert counter["rows"] - start["rows"] == 24 * 8
    second = svi_run_batched(svi, 0, 5, 8, init_state=first.state, **data)
    assert second.state.mutable_state["counter"]["batches"] == counter["batches"] + 5


def test_constants_are_the_same_in_every_step(data):
    def with_constants(x, y, shift, power, form):
        assert form == "linear"
        assert power == 1
        numpyro.sample("y", dist.Normal(slope(x) ** power + shift.sum(), 0.5), obs=y)

    def constant_guide(shift, power, form, **rows):
        guide(**rows)

    svi = make_svi(model=with_constants, guide=constant_guide)
    constants = {"shift": np.array([1.0, -1.0]), "power": 1, "form": "linear"}
    got = svi_run_batched(svi, 3, 40, 8, constants=constants, **data)
    static = make_svi(model=with_constants, guide=constant_guide, **constants)
    alike = svi_run_batched(static, 3, 40, 8, **data)
    wanted = svi_run_batched(make_svi(), 3, 40, 8, **data)
    assert_allclose(got.losses, wanted.losses, rtol=1e-5)
    assert_allclose(alike.losses, wanted.losses, rtol=1e-5)


# --- stopping ----------------------------------------------------------------------


def test_a_plateau_is_judged_by_the_last_two_windows():
    rule = Plateau(window=4, tolerance=1.0)
    noise = np.array([0.1, -0.1, 0.1, -0.1])
    falling = np.concatenate([10 + noise, 5 + noise])
    assert not rule.reached(falling[:7])
    assert not rule.reached(falling)
    assert rule.reached(np.concatenate([falling, 5 + noise]))
    assert rule.reached(np.concatenate([falling, 6 + noise]))
    standard_error = np.sqrt(2 * noise.var() / 4)
    just_less = np.concatenate([5 + noise, 5 - 0.99 * standard_error + noise])
    just_more = np.concatenate([5 + noise, 5 - 1.01 * standard_error + noise])
    assert rule.reached(just_less)
    assert not rule.reached(just_more)
    assert Plateau(window=4, tolerance=0.5).reached(just_less) is False


def test_early_stopping_does_not_depend_on_chunks(data):
    svi, rule = make_svi(optax.adam(0.005)), Plateau(window=400, tolerance=0.0)
    runs = [
        svi_run_batched(
            svi, 1, 20_000, 10, early_stopping=rule, chunk_steps=chunk_steps, **data
        )
        for chunk_steps in (3, 100, None)
    ]
    losses = np.asarray(runs[0].losses)
    assert len(losses) % 500 == 0
    assert 500 < len(losses) < 20_000
    assert rule.reached(losses)
    assert not rule.reached(losses[:-500])
    assert same(runs[1], runs[0])
    assert same(runs[2], runs[0])


def test_true_means_the_default_plateau(data):
    svi = make_svi(optax.sgd(0.0))
    result = svi_run_batched(svi, 0, 100_000, 10, early_stopping=True, **data)
    assert 2 * Plateau().window <= len(result.losses) < 20_000


def test_a_loss_that_is_not_finite_stops_and_names_its_step(data):
    bad = {k: v.copy() for k, v in data.items()}
    bad["y"][7] = np.nan
    svi = make_svi()
    loop = MinibatchLoop(svi, bad, batch_size=5, seed=0)
    rows = np.asarray(loop.order.shuffle({"row": np.arange(N)})["row"])
    places = loop.order.starts(0, 100)[..., None] + np.arange(loop.order.width)
    first = int((rows[places] == 7).any(axis=(1, 2)).argmax())
    assert first > 0
    with pytest.raises(
        FloatingPointError, match=rf"(nan|inf) at step {first}\. Likely"
    ):
        loop.advance(loop.init(jax.random.key(0)), 100)


def test_the_step_is_counted_from_the_first_run(data):
    svi = make_svi()
    state = svi_run_batched(svi, 0, 30, 8, **data).state
    bad = {**data, "y": np.full(N, np.inf)}
    seen = r"loss is (inf|nan) at step 30\. Likely causes: a learning rate"
    with pytest.raises(FloatingPointError, match=seen):
        svi_run_batched(svi, 0, 30, 8, init_state=state, **bad)


class CtrlC(Plateau):
    """Never a plateau: somebody presses Ctrl-C at the second look instead."""

    def reached(self, losses):
        if len(losses) >= 1000:
            signal.raise_signal(signal.SIGINT)
        return False


def test_ctrl_c_between_chunks_returns_what_there_is(data):
    svi = make_svi()
    with pytest.warns(UserWarning, match=r"after 1000 of 5000 steps.*init_state"):
        result = svi_run_batched(svi, 3, 5000, 10, early_stopping=CtrlC(), **data)
    assert same(result, svi_run_batched(svi, 3, 1000, 10, **data))
    whole = svi_run_batched(svi, 3, 1500, 10, **data)
    rest = svi_run_batched(svi, 3, 500, 10, init_state=result.state, **data)
    assert same(rest.params, whole.params)


def test_ctrl_c_inside_a_chunk_returns_what_was_before_it(data, monkeypatch):
    """Where it lands in practice: the chunk's state never reaches its variable."""
    svi, advance, calls = make_svi(), MinibatchLoop.advance, []

    def interrupted(self, state, steps):
        calls.append(steps)
        found = advance(self, state, steps)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(MinibatchLoop, "advance", interrupted)
        with pytest.warns(UserWarning, match="after 1000 of 5000 steps"):
            result = svi_run_batched(svi, 3, 5000, 10, **data)
    assert same(result, svi_run_batched(svi, 3, 1000, 10, **data))


def test_progress_is_shown_in_terminals_or_on_request(data, capsys):
    svi = make_svi()
    svi_run_batched(svi, 0, 20, 8, **data)
    assert capsys.readouterr().err == ""
    svi_run_batched(svi, 0, 20, 8, progress_bar=True, **data)
    shown = capsys.readouterr().err
    assert "20/20" in shown
    assert "loss" in shown


# --- bad input, before anything is compiled ----------------------------------------


@pytest.fixture
def nothing_compiles(monkeypatch):
    """The loop starts neither its first state nor its chunk."""

    def fail(*_, **__):
        raise AssertionError("the loop has started")

    monkeypatch.setattr(MinibatchLoop, "init", fail)
    monkeypatch.setattr(MinibatchLoop, "_compile", fail)


X, Y = np.ones((N, 3)), np.ones(N)


@pytest.mark.usefixtures("nothing_compiles")
@pytest.mark.parametrize(
    ("error", "seen", "options"),
    [
        (ValueError, r"different lengths: {'x': 50, 'y': 49}", {"y": Y[1:]}),
        (ValueError, "`y` is 3.0, a single value.*constants=", {"y": 3.0}),
        (ValueError, "`y` is .*, a single value", {"y": jnp.array(1.0)}),
        (TypeError, "`y` holds object, not numbers", {"y": np.array([None] * N)}),
        (TypeError, r"`y` holds <U1, not numbers.*np\.unique", {"y": ["a"] * N}),
        (TypeError, r"`y` holds datetime64", {"y": np.zeros(N, "datetime64[D]")}),
        (ValueError, "have no rows", {"x": X[:0], "y": Y[:0]}),
        (ValueError, "no argument holds rows", {"x": None, "y": None}),
        (ValueError, "`batch_size` is 0, but a size is a whole", {"batch_size": 0}),
        (ValueError, "`batch_size` is 2.5", {"batch_size": 2.5}),
        (ValueError, "`chunk_steps` is -1", {"chunk_steps": -1}),
        (ValueError, "`num_steps` is 0", {"num_steps": 0}),
        (ValueError, "num_steps is None and num_epochs is None", {"num_steps": None}),
        (ValueError, "num_steps is 10 and num_epochs is 2: .* one", {"num_epochs": 2}),
        (ValueError, "`num_epochs` is 0", {"num_steps": None, "num_epochs": 0}),
        (TypeError, "seed is 'a'; give an int", {"rng_key": "a"}),
        (TypeError, "seed is True; give an int", {"rng_key": True}),
        (TypeError, "seed is 0.5", {"rng_key": 0.5}),
        (TypeError, "early_stopping is 3; give True", {"early_stopping": 3}),
        (ValueError, r"\['guide'\] have names that NumPyro's SVI", {"guide": Y}),
        (
            ValueError,
            r"\['init_params'\] have names",
            {"constants": {"init_params": 1}},
        ),
    ],
)
def test_wrong_arguments_are_told(error, seen, options):
    given = {"rng_key": 0, "num_steps": 10, "batch_size": 8, "x": X, "y": Y, **options}
    given = {k: v for k, v in given.items() if k not in "xy" or v is not None}
    with pytest.raises(error, match=seen):
        svi_run_batched(make_svi(), **given)


@pytest.mark.parametrize(
    "wrap", [lambda fn: fn, lambda fn: handlers.scale(fn, scale=1.0)]
)
def test_a_model_that_takes_an_option_of_the_loop_is_refused(wrap, nothing_compiles):
    def takes_option(x, y, batch_size=3):
        model(x, y)

    with pytest.raises(ValueError, match=r"\['batch_size'\] have the names of options"):
        svi_run_batched(make_svi(model=wrap(takes_option)), 0, 10, x=X, y=Y)


@pytest.mark.parametrize("window", [0, -3, 1.5])
def test_a_window_is_a_number_of_steps(window):
    with pytest.raises(ValueError, match=f"`window` is {window}"):
        Plateau(window=window)


def test_keys_pass_through():
    key = jax.random.key(5)
    assert as_key(key) is key


# --- it is right -------------------------------------------------------------------


def bayes(x, y, noise):
    """Bishop (2006), eqs 3.53 and 3.54, with a standard normal prior."""
    precision = x.T @ x / noise**2 + np.eye(x.shape[1])
    return np.linalg.solve(precision, x.T @ y / noise**2), np.linalg.inv(precision)


NOISE = 0.5


def conjugate(x, y):
    numpyro.sample("y", dist.Normal(slope(x), NOISE), obs=y)


def moments(guide, params):
    """The guide's mean and standard deviation, read off its parameters."""
    if isinstance(guide, autoguide.AutoNormal):
        return np.asarray(params["b_auto_loc"]), np.asarray(params["b_auto_scale"])
    fitted = guide.get_posterior(params)
    return np.asarray(fitted.mean), np.sqrt(np.diag(fitted.covariance_matrix))


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps"),
    [
        (129, 128, 6_000),
        (129, 1024, 6_000),
        pytest.param(1000, 1, 8_000_000, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("family", ["mean_field", "full_rank"])
def test_minibatches_find_the_conjugate_posterior(family, rows, batch_size, steps):
    """Standard deviations within 5 %, means within 0.1 of them.

    The mean-field guide is exact where the columns of x are orthogonal.
    """
    rng = np.random.default_rng(rows)
    x = rng.normal(size=(rows, 3)) @ np.array([[1, 0.6, 0], [0, 1, 0.3], [0, 0, 1]])
    if family == "mean_field":
        x = np.linalg.qr(x)[0] * np.sqrt(rows)
    y = x @ [0.7, -0.4, 0.2] + NOISE * rng.normal(size=rows)
    mean, covariance = bayes(x, y, NOISE)
    sd = np.sqrt(np.diag(covariance))
    kind = {
        "mean_field": autoguide.AutoNormal,
        "full_rank": autoguide.AutoMultivariateNormal,
    }[family]
    guide = kind(conjugate, init_loc_fn=init_to_value(values={"b": np.zeros(3)}))
    rate = optax.cosine_decay_schedule(0.01, steps, alpha=1e-4)
    svi = make_svi(optax.adam(rate), conjugate, guide)
    result = svi_run_batched(svi, 0, steps, batch_size, x=x, y=y)
    got_mean, got_sd = moments(guide, result.params)
    assert_allclose((got_mean - mean) / sd, 0.0, atol=0.1)
    assert_allclose(got_sd / sd, 1.0, atol=0.05)
