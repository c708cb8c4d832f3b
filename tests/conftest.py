"""Fixtures that every test file shares."""

import os
from pathlib import Path

import jax
import pytest
from hypothesis import settings

from support import enable_x64

# Compiling takes most of an example's time, so no example has a deadline.
settings.register_profile("lamina", deadline=None, max_examples=20)
settings.load_profile("lamina")


def pytest_configure(config):
    """Programs that one worker, or a run before, has compiled are read and not compiled."""
    cache = getattr(config, "cache", None)
    if cache is not None and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("jax")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Less work for the compiler, where programs are many and run once.

    Slow tests compile as users do.
    """
    fast = item.get_closest_marker("slow") is None
    jax.config.update("jax_disable_most_optimizations", fast)


@pytest.fixture
def key():
    """One random key, for tests that draw once."""
    return jax.random.key(0)


@pytest.fixture
def keys(key):
    """Eight independent random keys."""
    return jax.random.split(key, 8)


@pytest.fixture(scope="module")
def strict_shapes():
    """No array may gain an axis by broadcasting: for products, layers and links.

    Use it by `pytestmark = pytest.mark.usefixtures("strict_shapes")`. NumPyro's own code
    broadcasts, so it suits files that only trace models, not those that fit them.
    """
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def float64():
    """Double precision, for comparisons with NumPy and SciPy."""
    with enable_x64():
        yield


@pytest.fixture(scope="session")
def data_folder():
    """The folder of real datasets."""
    folder = os.environ.get("LAMINA_DATA")
    if not folder:
        pytest.skip(
            "LAMINA_DATA is not set: it names the folder of real datasets (see "
            "CONTRIBUTING.md)"
        )
    if not Path(folder).is_dir():
        pytest.fail(f"LAMINA_DATA names {folder!r}, which is no folder")
    return Path(folder)
