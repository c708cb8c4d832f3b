"""Factorization machines over categorical fields."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import lamina
from lamina.handlers import predicting
from lamina.layers import FieldFMLayer, FMLayer, InterceptLayer
from lamina.links import gaussian_link
from lamina.priors import Fixed
from support import run, shapes

pytestmark = pytest.mark.usefixtures("strict_shapes", "float64")

SIZES, RANK = (4, 3, 5), 2
CODES = np.array([[0, 2, 4], [3, 0, 0], [1, 1, 2], [3, 2, 1]])


def layer(**options):
    return FieldFMLayer(**{"field_sizes": SIZES, "low_rank_dim": RANK, **options})


def tables(seed=0, units=1, sizes=SIZES):
    """Values of every site without features."""
    rng = np.random.default_rng(seed)
    found = {}
    for k, c in enumerate(sizes, 1):
        for prefix, m in (("mu", RANK * units), ("mu.main", units)):
            found[f"{prefix}.lmbda{k}"] = rng.uniform(0.5, 2.0, size=m)
            found[f"{prefix}.theta{k}"] = rng.normal(size=(c, m))
    return found


def by_hand(codes, values, units=1):
    """One row, one pair of fields and one coordinate at a time."""
    f = np.zeros((len(codes), units))
    for n, row in enumerate(codes):
        for u in range(units):
            for k, code in enumerate(row, 1):
                f[n, u] += values[f"mu.main.theta{k}"][code, u]
                for j in range(1, k):
                    for i in range(RANK):
                        left = values[f"mu.theta{j}"][row[j - 1], i * units + u]
                        f[n, u] += left * values[f"mu.theta{k}"][code, i * units + u]
    return f


@pytest.mark.parametrize("units", [1, 2])
@pytest.mark.parametrize("rows", [slice(None), slice(1)])
def test_fields_meet_in_pairs(units, rows):
    values, codes = tables(units=units), CODES[rows]
    found = run(layer(units=units), "mu", codes, values=values)
    assert_allclose(found, by_hand(codes, values, units), rtol=1e-12)


def test_it_is_a_factorization_machine_of_indicators():
    values = tables()
    x = np.concatenate([np.eye(c)[CODES[:, k]] for k, c in enumerate(SIZES)], axis=1)
    theta = np.concatenate([values[f"mu.theta{k}"] for k in (1, 2, 3)])[:, :, None]
    beta = np.concatenate([values[f"mu.main.theta{k}"] for k in (1, 2, 3)])
    dense = FMLayer(low_rank_dim=RANK, main_effects=True)
    expected = run(dense, "mu", x, values={"mu.theta": theta, "mu.main.beta": beta})
    assert_allclose(run(layer(), "mu", CODES, values=values), expected, rtol=1e-10)


def test_main_effects_may_be_left_out():
    only = layer(main_effects=False)
    assert not any("main" in name for name in shapes(only, "mu", CODES))
    values = {k: v for k, v in tables().items() if "main" not in k}
    zero = {f"mu.main.theta{k}": np.zeros((c, 1)) for k, c in enumerate(SIZES, 1)}
    found = run(only, "mu", CODES, values=values)
    assert_allclose(found, by_hand(CODES, {**values, **zero}), rtol=1e-12)


def described(seed=1, extra=0):
    """Features of the first and the third field, and values of their coefficients."""
    rng = np.random.default_rng(seed)
    features = [rng.normal(size=(4, 2)), None, rng.normal(size=(5 + extra, 3))]
    values = tables()
    for k, e in ((1, 2), (3, 3)):
        for prefix, m in (("mu", RANK), ("mu.main", 1)):
            values[f"{prefix}.features.lmbda{k}"] = np.ones(m)
            values[f"{prefix}.features.beta{k}"] = rng.normal(size=(e, m))
    return features, values


def moved(features, values):
    """The tables with what features add to each level."""
    found = dict(values)
    for k in (1, 3):
        for prefix in ("mu", "mu.main"):
            beta = values[f"{prefix}.features.beta{k}"]
            table = values[f"{prefix}.theta{k}"]
            extra = len(features[k - 1]) - len(table)
            residual = np.concatenate([table, np.zeros((extra, table.shape[1]))])
            found[f"{prefix}.theta{k}"] = residual + features[k - 1] @ beta
    return found


def test_features_move_their_levels():
    features, values = described()
    sites = shapes(lambda: layer()("mu", CODES, features=features))
    assert sites == {k: v.shape for k, v in values.items()}
    found = run(layer(), "mu", CODES, features=features, values=values)
    assert_allclose(found, by_hand(CODES, moved(features, values)), rtol=1e-12)


def test_unseen_levels_keep_their_features(key):
    features, values = described(extra=2)
    codes = np.array([[0, 1, -1], [2, 0, -2], [1, 1, 3]])
    model = predicting(layer(unseen="zero"), key=key)
    found = run(model, "mu", codes, features=features, values=values)
    rows = np.where(codes < 0, 5 - 1 - codes, codes)
    assert_allclose(found, by_hand(rows, moved(features, values)), rtol=1e-12)


def test_unseen_levels_add_nothing_where_they_are_zero(key):
    values, codes = tables(), np.array([[0, -1, 2]])
    found = run(predicting(layer(unseen="zero"), key=key), "mu", codes, values=values)
    others = {
        **values,
        "mu.theta2": np.zeros((3, 2)),
        "mu.main.theta2": np.zeros((3, 1)),
    }
    assert_allclose(found, by_hand([[0, 0, 2]], others), rtol=1e-12)


def test_unseen_levels_are_drawn_at_their_own_fields_scales():
    """Two unseen levels: the variance of a sum of main effects and one product."""
    values = tables()
    codes = jnp.array([[-1, -1, 0]])

    def one(key):
        return run(predicting(layer(), key=key), "mu", codes, values=values)[0, 0]

    keys = jax.random.split(jax.random.key(0), 4000)
    found = np.asarray(jax.jit(jax.vmap(one))(keys))
    last, mean = values["mu.theta3"][0], values["mu.main.theta3"][0, 0]
    a, b = values["mu.lmbda1"] ** 2, values["mu.lmbda2"] ** 2
    variance = (a * b + (a + b) * last**2).sum()
    variance += values["mu.main.lmbda1"][0] ** 2 + values["mu.main.lmbda2"][0] ** 2
    assert abs(found.mean() - mean) < 4.0 * np.sqrt(variance / 4000)
    assert_allclose(found.var(), variance, rtol=0.15)


def test_chunks_of_rows_agree_on_unseen_levels(key):
    codes = np.array([[0, -1, 2], [-3, 1, 1], [1, -1, -1]])
    model = predicting(layer(), key=key)
    whole = run(model, "mu", codes, values=tables())
    parts = [run(model, "mu", codes[i : i + 1], values=tables()) for i in range(3)]
    assert_allclose(np.concatenate(parts), whole, rtol=1e-12)


def test_codes_are_checked_field_by_field(key):
    past = CODES.copy()
    past[0, 1] = 3
    with pytest.raises(
        ValueError, match=r"FieldFMLayer 'mu.*', field 2: code 3 is past"
    ):
        run(layer(), "mu", past)
    with pytest.raises(ValueError, match=r"field 3: code -1 is negative"):
        run(layer(), "mu", np.array([[0, 0, -1]]))
    refusing = predicting(layer(unseen="error"), key=key)
    with pytest.raises(ValueError, match=r"field 3: code -1 is negative"):
        run(refusing, "mu", np.array([[0, 0, -1]]))
    with pytest.raises(TypeError, match=r"field 1: codes have dtype float64"):
        run(layer(), "mu", CODES.astype(float))


@pytest.mark.parametrize("codes", [CODES[:, :2], CODES[:, 0], CODES[:, :, None]])
def test_there_is_a_column_for_each_field(codes):
    with pytest.raises(ValueError, match=r"'mu': codes have shape.*3 fields.*\(n, 3\)"):
        run(layer(), "mu", codes)


@pytest.mark.parametrize("sizes", [(4,), (), 7, {4, 3}])
def test_interactions_need_two_fields(sizes):
    with pytest.raises(ValueError, match=r"`field_sizes` is .*at least two fields"):
        layer(field_sizes=sizes)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_each_fields_size_is_a_whole_number(size):
    with pytest.raises(ValueError, match=f"`field_sizes` is {size}"):
        layer(field_sizes=(3, size))


def test_sizes_may_be_a_list_or_an_array():
    assert layer(field_sizes=[4, 3, 5]) == layer() == layer(field_sizes=np.array(SIZES))


def test_features_are_one_row_for_each_level(key):
    short, long = np.ones((4, 2)), np.ones((6, 2))
    for wrong, rows in ((short, 4), (long, 6)):
        with pytest.raises(
            ValueError, match=rf"field 3: its features have {rows} rows"
        ):
            run(layer(), "mu", CODES, features=(None, None, wrong))
    with pytest.raises(ValueError, match=r"`features` has 2 entries for 3 fields"):
        run(layer(), "mu", CODES, features=(None, None))
    new = np.array([[0, 0, -2]])
    with pytest.raises(ValueError, match=r"field 3: code -2 .* row 6, but there are 6"):
        run(predicting(layer(), key=key), "mu", new, features=(None, None, long))


def test_traced_codes_outside_give_nan(key):
    found = jax.jit(lambda codes: run(layer(), "mu", codes, values=tables()))(
        jnp.array([[0, 0, 5], [0, -1, 0], [3, 2, 4]])
    )
    assert_array_equal(np.isnan(found[:, 0]), [True, True, False])


def test_any_prior_goes_on_tables_and_features():
    features, values = described()
    fixed = layer(prior=Fixed())
    sites = shapes(lambda: fixed("mu", CODES, features=features))
    assert sites == {k: v.shape for k, v in values.items() if "lmbda" not in k}


def simulated(rng, n, sizes):
    """Ratings of a rank-one interaction with main effects, and who rates what."""
    users, items = (rng.normal(size=c) for c in sizes)
    codes = rng.integers(0, sizes, size=(n, 2))
    a, b = users[codes[:, 0]], items[codes[:, 1]]
    return codes, a, b


@pytest.mark.slow
def test_nuts_recovers_an_interaction():
    rng = np.random.default_rng(0)
    codes, a, b = simulated(rng, 600, (8, 10))
    truth = 0.5 * a + a * b
    y = truth + 0.2 * rng.normal(size=600)

    def model(codes, y=None):
        terms = FieldFMLayer(field_sizes=(8, 10), low_rank_dim=1)("fm", codes)
        gaussian_link(InterceptLayer()("alpha") + terms, y)

    with jax.numpy_rank_promotion("allow"):
        posterior = lamina.fit(
            model,
            {"codes": codes, "y": y},
            method="mcmc",
            num_warmup=300,
            num_samples=200,
            num_chains=1,
        )
        found = posterior.predict(kind="mean")
    assert np.abs(found.mean - truth).max() < 0.25
    assert_allclose(posterior.draws["sigma"].mean(), 0.2, rtol=0.1)


@pytest.mark.slow
def test_features_predict_levels_that_were_never_fitted():
    """Half of an item's effect is its feature's; new items bring theirs along."""
    rng = np.random.default_rng(1)
    fitted, new = 60, 40
    feature = rng.normal(size=(fitted + new, 1))
    effect = feature[:, 0] + 0.1 * rng.normal(size=fitted + new)
    codes = rng.integers(0, [20, fitted], size=(3000, 2))
    y = effect[codes[:, 1]] + 0.3 * rng.normal(size=3000)

    def model(codes, columns, y=None):
        layer = FieldFMLayer(field_sizes=(20, fitted), low_rank_dim=1)
        gaussian_link(layer("fm", codes, features=(None, columns)), y)

    with jax.numpy_rank_promotion("allow"):
        posterior = lamina.fit(
            model,
            {"codes": codes, "columns": feature[:fitted], "y": y},
            num_steps=4000,
            progress_bar=False,
        )
        unseen = np.column_stack([np.zeros(new, int), -1 - np.arange(new)])
        found = posterior.predict({"codes": unseen, "columns": feature}, kind="mean")
    assert np.corrcoef(found.mean, effect[fitted:])[0, 1] > 0.97
    assert np.all(found.sd > 0.03)  # the residual of a new item is drawn
