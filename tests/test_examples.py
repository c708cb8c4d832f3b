"""Examples on real data against published figures."""

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
COMPARED = sorted(
    path.stem
    for path in EXAMPLES.glob("*.py")
    if "\ndef figures(" in path.read_text("utf-8")
)


def test_examples_are_found():
    assert "cbpp" in COMPARED


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPARED)
def test_example_agrees_with_published_figures(name, data_folder, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.syspath_prepend(EXAMPLES)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = example.figures(example.fit())
    beyond = {f.name: round(f.distance, 3) for f in found if not f.agrees}
    assert not beyond, f"{name}: distances in posterior sds {beyond}"
