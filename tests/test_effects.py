import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from numpyro import handlers
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from numpyro.primitives import Messenger

from lamina import effects
from lamina.handlers import predicting
from support import run, trace

pytestmark = pytest.mark.usefixtures("strict_shapes")

X = np.arange(6.0).reshape(3, 2)


def multiply(x, beta):
    return x @ beta


def model(x, y=None):
    """One announcement of each kind around ordinary sites."""
    beta = numpyro.sample("beta", dist.Normal(0.0, jnp.ones(2)).to_event(1))
    f = effects.term("f", effects.product(multiply, x, beta))
    effects.prediction()
    fn = dist.Normal(f, 1.0)
    effects.outcome("obs", f, fn)
    return numpyro.sample("obs", fn, obs=y)


class Heard(Messenger):
    """Keeps the announcements that reach it."""

    def __enter__(self):
        super().__enter__()
        self.messages = []
        return self

    def process_message(self, message):
        if isinstance(message, effects.Announcement):
            self.messages.append(message)


def test_without_handlers_a_product_is_the_function_itself():
    beta = np.array([1.0, -1.0])
    assert_allclose(effects.product(multiply, X, beta), X @ beta)
    assert effects.term("f", beta) is beta
    assert effects.outcome("obs", beta, dist.Normal(beta, 1.0)) is None
    assert effects.prediction() is None
    assert effects.random_key() is None
    assert effects.plates() == []


def test_announcements_carry_what_handlers_need():
    y = np.zeros(3)
    with Heard() as heard:
        run(model, X, y)
    kinds = [message["type"] for message in heard.messages]
    # the question whether this is a prediction asks NumPyro's mask in turn
    assert kinds == ["product", "term", "prediction", "inspect", "outcome"]
    said = dict(zip(kinds, heard.messages, strict=True))
    assert said["product"]["fn"] is multiply
    assert said["product"]["args"][0] is X
    assert said["term"]["term"] == "f"
    assert said["term"]["value"] is said["product"]["value"]
    assert said["outcome"]["outcome"] == "obs"
    assert said["outcome"]["value"] is said["term"]["value"]
    assert isinstance(said["outcome"]["family"], dist.Normal)
    assert all("name" not in message for message in heard.messages)


def test_traces_hold_the_sites_only():
    assert list(trace(model, X)) == ["beta", "obs"]


PASSING_BY = {
    "scale": lambda fn: handlers.scale(fn, scale=2.0),
    "mask": lambda fn: handlers.mask(fn, mask=True),
    "condition": lambda fn: handlers.condition(fn, {"beta": np.ones(2)}),
    "block": lambda fn: handlers.block(fn, hide=["elsewhere"]),
    "lift": lambda fn: handlers.lift(fn, prior={}),
    "do": lambda fn: handlers.do(fn, data={}),
    "infer_config": lambda fn: handlers.infer_config(fn, lambda site: {}),
    "uncondition": handlers.uncondition,
    "scope": lambda fn: handlers.scope(fn, prefix="a", divider="."),
    "reparam": lambda fn: handlers.reparam(fn, config={}),
    "replay": lambda fn: handlers.replay(fn, trace={}),
    "collect": lambda fn: handlers.trace(fn),
}


@pytest.mark.parametrize("name", PASSING_BY)
def test_numpyros_handlers_pass_announcements_by(name):
    handled = PASSING_BY[name](model)
    values = {"beta": np.ones(2), "a.beta": np.ones(2)}
    with Heard() as heard:
        run(handled, X, values=values)
    kinds = [message["type"] for message in heard.messages]
    assert kinds == ["product", "term", "prediction", "inspect", "outcome"]
    assert_allclose(heard.messages[0]["value"], X.sum(axis=1))


@pytest.mark.parametrize(
    "hide",
    [
        # NumPyro's own question for a key crashes where such a filter hides a draw
        lambda site: site["name"] == "obs",
        lambda site: site["name"].startswith("o"),
        lambda site: site["is_observed"],
        lambda site: site["type"] == "sample" and not site["is_observed"],
    ],
)
def test_filters_of_sites_meet_announcements_without_a_crash(hide):
    blocked = handlers.block(model, hide_fn=hide)
    plain = run(model, X, np.zeros(3))
    assert_allclose(run(blocked, X, np.zeros(3)), plain)
    masked = handlers.mask(blocked, mask=False)
    assert_allclose(run(masked, X, np.zeros(3)), plain)


def test_a_message_has_no_other_fields_than_its_own():
    message = effects.Announcement(type="term")
    assert message["name"] == ""
    assert message["is_observed"] is False
    assert message.get("name") is None
    with pytest.raises(KeyError):
        message["infer"]


def test_a_handler_may_answer_a_product():
    class Zeros(Messenger):
        def process_message(self, message):
            if message["type"] == "product":
                assert message["fn"] is multiply
                message["value"] = jnp.zeros(3)

    sites = trace(Zeros(model), X)
    assert_allclose(sites["obs"]["fn"].loc, np.zeros(3))


def asked(fn=None):
    """What a model hears when it asks whether this is a prediction."""
    answers = []

    def ask():
        answers.append(effects.prediction())

    run(ask if fn is None else fn(ask))
    return answers[0]


def test_a_fit_is_no_prediction():
    assert asked() is None
    assert asked(lambda fn: handlers.mask(fn, mask=True)) is None
    assert asked(lambda fn: handlers.mask(fn, mask=jnp.array([False]))) is None


def test_numpyros_predictive_is_a_prediction():
    answers = []

    def ask():
        answers.append(effects.prediction())
        numpyro.sample("z", dist.Normal())

    Predictive(ask, num_samples=2)(jax.random.key(0))
    key, num_rows = answers[-1]
    assert num_rows is None
    assert key.shape in ((), (2,))


def test_predicting_tells_its_key_and_rows(key):
    answer = asked(lambda fn: predicting(fn, key=key, num_rows=7))
    assert answer.key is key
    assert answer.num_rows == 7


def test_predicting_without_a_key_takes_the_seed_handlers():
    one, other = (asked(lambda fn: predicting(fn)).key for _ in range(2))
    assert jax.random.uniform(one) == jax.random.uniform(other)
    with predicting():
        assert effects.prediction().key is None


def test_plates_are_those_around_a_site():
    frames = []

    def inside():
        with numpyro.plate("rows", 7, subsample_size=3, dim=-2):
            with numpyro.plate("replicates", 4):
                frames.extend(effects.plates())
                numpyro.sample("z", dist.Normal())

    found = trace(inside)["z"]["cond_indep_stack"]
    assert sorted(frames) == sorted(found)
    assert [(f.name, f.dim, f.size) for f in frames] == [
        ("rows", -2, 3),
        ("replicates", -1, 4),
    ]


@pytest.mark.parametrize("n", [1, 4])
def test_a_row_factor_adds_its_log_probability(n):
    log_factor = -np.arange(1.0, n + 1.0)
    found, sites = log_density(
        lambda: effects.row_factor("extra", log_factor), (), {}, {}
    )
    assert_allclose(found, log_factor.sum())
    assert sites["extra"]["infer"][effects.ROW_FACTOR]
