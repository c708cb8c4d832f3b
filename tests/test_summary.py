"""Tables of draws, beside NumPy's and NumPyro's own numbers."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro.diagnostics import summary as numpyro_summary

from fit_helpers import narrowest
from lamina import FixedPriorLayer, Posterior, gaussian_link
from lamina.data import read_data
from lamina.summary import Table, chosen, in_order, summarise

RNG = np.random.default_rng(3)
DRAWS = {
    "tau": np.exp(RNG.normal(size=(4, 250))),
    "b": RNG.normal(size=(4, 250, 2, 3)) + np.arange(6.0).reshape(2, 3),
    "count": RNG.poisson(3.0, size=(4, 250)),
}
DRAWS["b"][0] += 1.0  # a chain elsewhere, so that R-hat has something to see


def chains(**options):
    return summarise(DRAWS, **{"interval": 0.9, "correlated": True, **options})


def test_there_is_a_row_for_every_number_in_order():
    names = ("tau", *(f"b[{i},{j}]" for i in range(2) for j in range(3)), "count")
    assert chains().names == names
    assert len(chains()) == 8


def test_moments_and_intervals_are_those_of_the_pooled_draws():
    table = chains(interval=0.8)
    for name, values in {
        "tau": DRAWS["tau"],
        "b[1,2]": DRAWS["b"][..., 1, 2],
        "count": DRAWS["count"],
    }.items():
        pooled = values.ravel()
        row = table[name]
        assert_allclose(row["mean"], pooled.mean(), rtol=1e-12)
        assert_allclose(row["sd"], pooled.std(ddof=1), rtol=1e-12)
        low, high = narrowest(pooled, 0.8)
        assert (row["hdi 80% low"], row["hdi 80% high"]) == (low, high)


def test_diagnostics_of_chains_are_numpyros():
    reference = numpyro_summary(DRAWS, prob=0.9, group_by_chain=True)
    table = chains()
    for name, entry in (("tau", ()), ("b[1,0]", (1, 0)), ("count", ())):
        site = reference[name.split("[")[0]]
        row = table[name]
        for ours, theirs in (
            ("mean", "mean"),
            ("sd", "std"),
            ("hdi 90% low", "5.0%"),
            ("hdi 90% high", "95.0%"),
            ("ess", "n_eff"),
            ("r_hat", "r_hat"),
        ):
            assert_allclose(row[ours], np.asarray(site[theirs])[entry], rtol=1e-6)
    assert table["b[0,0]"]["r_hat"] > 1.05 > table["tau"]["r_hat"]
    assert table["b[0,0]"]["ess"] < table["tau"]["ess"]


def test_diagnostics_are_for_chains_only():
    """Independent draws always mix; of fewer than four, nothing can be said."""
    columns = ["mean", "sd", "hdi 90% low", "hdi 90% high"]
    assert list(chains(correlated=False).columns) == columns
    assert list(chains().columns) == [*columns, "ess", "r_hat"]
    short = {k: v[:, :3] for k, v in DRAWS.items()}
    table = summarise(short, interval=0.9, correlated=True)
    assert list(table.columns) == columns


def test_one_draw_is_its_own_interval():
    one = {k: v[:1, :1] for k, v in DRAWS.items()}
    table = summarise(one, interval=0.9, correlated=False)
    row = table["b[0,1]"]
    value = DRAWS["b"][0, 0, 0, 1]
    assert row == {
        "mean": value,
        "sd": 0.0,
        "hdi 90% low": value,
        "hdi 90% high": value,
    }


def test_a_chain_that_stands_still_has_no_diagnostics_and_no_warning():
    table = summarise({"a": np.ones((2, 100))}, interval=0.9, correlated=True)
    assert table["a"]["mean"] == 1.0
    assert table["a"]["sd"] == 0.0
    assert np.isnan(table["a"]["r_hat"])


@pytest.mark.parametrize("interval", [0.0, 1.0, -0.1, 90, True, False])
def test_an_interval_is_a_probability(interval):
    with pytest.raises(
        ValueError, match=r"interval is .*between 0 and 1, such as 0\.9"
    ):
        chains(interval=interval)


@pytest.mark.parametrize(
    ("interval", "heading"), [(0.9, "90%"), (0.57, "57%"), (0.955, "95.5%")]
)
def test_headings_say_the_interval(interval, heading):
    assert f"hdi {heading} low" in chains(interval=interval).columns


def test_a_table_prints_in_aligned_columns():
    text = repr(chains(notes=("3 of 1000 draws diverged.",)))
    lines = text.splitlines()
    assert lines[0].split() == [
        "mean",
        "sd",
        *("hdi", "90%", "low"),
        *("hdi", "90%", "high"),
        "ess",
        "r_hat",
    ]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[1].startswith("tau ")
    assert lines[-1] == "Note: 3 of 1000 draws diverged."
    assert f"{DRAWS['tau'].mean():.3f}" in lines[1]


def test_numbers_of_every_size_keep_their_digits():
    values = np.array([0.000123, -0.00456, 0.0, 0.5, 1234.5, 123456.0, np.nan])
    text = repr(Table(tuple("abcdefg"), {"mean": values}))
    found = [line.split()[1] for line in text.splitlines()[1:]]
    wanted = ["0.00012", "-0.0046", "0.000", "0.500", "1234.500", "1.235e+05", "nan"]
    assert found == wanted


def test_a_long_table_is_cut_in_print_and_whole_as_a_frame():
    draws = {"b": RNG.normal(size=(1, 10, 100))}
    table = summarise(draws, interval=0.9, correlated=False)
    lines = repr(table).splitlines()
    assert len(lines) == 62
    assert lines[-1] == "... and 40 rows more: to_dataframe()"
    frame = table.to_dataframe()
    assert frame.shape == (100, 4)
    assert_allclose(frame.loc["b[99]", "mean"], draws["b"][..., 99].mean())


def test_a_frame_has_the_tables_rows_and_columns():
    table = chains()
    frame = table.to_dataframe()
    assert list(frame.index) == list(table.names)
    assert list(frame.columns) == list(table.columns)
    assert_array_equal(frame["ess"].to_numpy(), table.columns["ess"])


def test_a_notebook_shows_the_same_text():
    assert chains()._repr_html_() == f"<pre>{chains()!r}</pre>"


def test_a_row_that_is_not_there_names_those_that_are():
    with pytest.raises(
        KeyError, match=r"'c' is no row; the rows are \['tau', 'b\[0,0\]"
    ):
        chains()["c"]


def test_no_sites_make_an_empty_table():
    table = summarise({}, interval=0.9, correlated=False)
    assert len(table) == 0
    assert len(table.to_dataframe()) == 0


def posterior(**options):
    """A posterior whose draws and notes are given."""

    def model(x, y=None):
        return gaussian_link(FixedPriorLayer()("b", x), y, scale=1.0)

    return Posterior(
        model=model,
        method="given",
        draws={"b.beta": RNG.normal(size=(2, 50, 1, 1))},
        data=read_data({"x": [1.0], "y": [1.0]}),
        outcomes={"obs": (1,)},
        **options,
    )


def test_a_posteriors_summary_has_its_notes_and_its_kind_of_draws():
    note = "7 of 100 draws diverged, so ..."
    table = posterior(correlated=True, notes=(note,)).summary(interval=0.5)
    assert f"Note: {note}" in repr(table)
    assert {"ess", "r_hat", "hdi 50% low"} <= set(table.columns)
    assert "ess" not in posterior().summary().columns
    assert "Note" not in repr(posterior().summary())


SITES = (
    "b.beta",
    "x.tau",
    "x.beta_decentered",
    "county.lmbda",
    "county.z",
    "gates.gate1",
    "gates.lmbda1",
    "gates.beta_decentered1",
    "sigma",
    "x.beta",
    "county.theta",
    "gates.weight1",
    "gates.beta1",
)
"""In the order of a fit: what is sampled, then what it makes."""
READ = [
    "b.beta",
    "x.tau",
    "x.beta",
    "county.lmbda",
    "county.theta",
    "gates.weight1",
    "gates.lmbda1",
    "gates.beta1",
    "sigma",
    "x.beta_decentered",
    "county.z",
    "gates.gate1",
    "gates.beta_decentered1",
]


def test_auxiliary_sites_come_last_and_what_they_make_in_their_place():
    assert in_order(SITES) == READ


@pytest.mark.parametrize(
    "sites",
    [
        ("z", "gate", "home.z", "x.beta_size"),  # which make nothing here
        ("mu.z", "theta", "size", "beta_start"),
        ("a.theta_decentered1", "a.theta", "a.theta2"),
    ],
)
def test_sites_that_make_nothing_stay_where_they_are(sites):
    assert in_order(sites) == list(sites)


@pytest.mark.parametrize(
    ("var_names", "expected"),
    [
        (None, READ),
        ("sigma", ["sigma"]),
        (["sigma", "x.beta"], ["sigma", "x.beta"]),
        ("county", ["county.lmbda", "county.theta", "county.z"]),
        (["county", "~county.z"], ["county.lmbda", "county.theta"]),
        ("*.lmbda*", ["county.lmbda", "gates.lmbda1"]),
        (["~gates", "~*_decentered", "~*.z"], [*READ[:5], "sigma"]),
        (["sigma", "sigma", "*"], ["sigma", *(s for s in READ if s != "sigma")]),
        (["x", "~x"], []),
        ([], []),
    ],
)
def test_names_choose_sites(var_names, expected):
    assert chosen(SITES, var_names) == expected


def test_a_name_means_itself_and_no_more():
    """`x` is no beginning of `xx`, and dots and brackets are plain."""
    assert chosen(["x.beta", "xx.beta", "x"], "x") == ["x.beta", "x"]
    with pytest.raises(ValueError, match=r"'x\.b' names no site.*'x\.beta'.*pattern"):
        chosen(["x.beta"], "x.b")
    with pytest.raises(ValueError, match=r"'xb' names no site"):
        chosen(["x.b"], "xb")
    with pytest.raises(ValueError, match=r"'~tau' names no site"):
        chosen(SITES, ["sigma", "~tau"])
    assert chosen(["scope/x.beta", "y"], ["scope"]) == ["scope/x.beta"]


def test_a_summary_has_the_chosen_rows_as_they_are_in_the_whole():
    whole, part = chains(), chains(var_names=["count", "b"])
    assert part.names == ("count", *(n for n in whole.names if n.startswith("b[")))
    assert all(part[name] == whole[name] for name in part.names)
    assert chains(var_names="tau", notes=("Mind.",)).notes == ("Mind.",)


def test_a_long_table_shows_rows_of_every_site():
    draws = {
        "a": RNG.normal(size=(1, 10, 100)),
        "b": RNG.normal(size=(1, 10)),
        "c": RNG.normal(size=(1, 10, 50, 2)),
    }
    lines = repr(summarise(draws, interval=0.9, correlated=False)).splitlines()
    first = [line.split()[0] for line in lines[1:]]
    assert first == [
        *(f"a[{i}]" for i in range(29)),
        "...",
        "b",
        *(f"c[{i // 2},{i % 2}]" for i in range(29)),
        "...",
    ]
    assert lines[30] == "... and 71 rows more of a"
    assert lines[-1] == "... and 142 rows more: to_dataframe()"
    many = {f"s{i}": RNG.normal(size=(1, 10, 3)) for i in range(70)}
    lines = repr(summarise(many, interval=0.9, correlated=False)).splitlines()
    assert len(lines) == 62
    assert lines[60].startswith("s19[2] ")
    assert lines[-1] == "... and 150 rows more: to_dataframe()"


def test_a_posteriors_summary_chooses():
    with pytest.raises(ValueError, match=r"'a' names no site; the sites are \['b"):
        posterior().summary("a")
    assert posterior().summary("b").names == ("b.beta[0,0]",)
    with pytest.raises(TypeError, match=r"0\.5, which is no name.*interval.*keyword"):
        posterior().summary([0.5])
    with pytest.raises(TypeError, match=r"0\.5, which is no name"):
        posterior().summary(0.5)
