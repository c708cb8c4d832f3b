"""Examples on real data against published figures and plain forecasts."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def with_function(name):
    """The examples that have this function."""
    return sorted(
        path.stem
        for path in EXAMPLES.glob("*.py")
        if path.stem != "published" and f"\ndef {name}(" in path.read_text("utf-8")
    )


COMPARED = with_function("figures")
FORECAST = with_function("forecasts")


@pytest.fixture(scope="module")
def example(data_folder):
    """A function that gives an example by its name, and its posterior, fitted once."""
    found = {}

    def fitted(name):
        if name not in found:
            spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            posterior = module.fit()
            if posterior.correlated:  # a chain that stays elsewhere is no posterior
                r_hat = posterior.summary().columns["r_hat"]
                # the first entry of a Cholesky factor is 1 in all draws, and has none
                assert np.nanmax(r_hat) < 1.05
            found[name] = module, posterior
        return found[name]

    pytest.importorskip("matplotlib").use("Agg")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield fitted


def test_examples_are_found():
    assert "cbpp" in COMPARED
    assert set(FORECAST) == {"air_passengers", "mauna_loa", "us_births"}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARED)
def test_example_agrees_with_published_figures(name, example):
    module, posterior = example(name)
    found = module.figures(posterior)
    beyond = {f.name: round(f.distance, 3) for f in found if not f.agrees}
    assert not beyond, f"{name}: distances in posterior sds {beyond}"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORECAST)
def test_what_was_held_out_is_expected_better_than_by_plain_rules(name, example):
    module, posterior = example(name)
    ours, *rivals = module.forecasts(posterior)
    assert ours.error < min(rival.error for rival in rivals)
    # neighbouring rows err alike, so their coverage strays from 0.9 further than chance;
    # intervals that cover by being wide are no better than the plain ones
    assert ours.coverage >= 0.8
    width = np.mean(ours.upper - ours.lower)
    assert width < min(np.mean(rival.upper - rival.lower) for rival in rivals)


@pytest.mark.slow
def test_weekdays_of_births_are_those_of_plain_averages(example):
    module, posterior = example("us_births")
    table = module.averages(posterior)
    ours, plain = table.columns["lamina"], table.columns["plain average"]
    # three holidays of 52 Mondays, each with a fifth fewer births, are 1.2 per cent
    assert np.all(abs(ours - plain) < 1.5)
    assert [module.WEEKDAYS[d] for d in ours.argsort()[:2]] == ["Sun", "Sat"]


@pytest.mark.slow
def test_a_smooth_scale_expects_held_out_accelerations_better(example):
    module, posterior = example("mcycle")
    gain = module.contest(posterior)["smooth scale"]
    assert gain["gain"] > 2.0 * gain["its standard error"] > 0.0
