"""The walls of the house, read off the source: see docs/design.md."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import lamina

SOURCE = Path(lamina.__file__).parent

# A place imports places of lower floors, and itself; `__init__` is the face.
FLOORS = [
    {"_typing"},
    {"_checks", "_keys", "attention", "bases", "products", "effects"},
    {"processes", "brownian"},
    {"priors", "handlers", "margins", "sparse"},
    {"dependence"},
    {"layers", "links", "infer"},
    {"data", "summary"},
    {"prediction"},
    {"contributions"},
    {"posterior"},
    {"fitting", "report"},
    {"__init__"},
    {"__main__"},
]
CORE = {"jax", "numpyro", "optax", "numpy", "tqdm"}


def module_name(path):
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def place(module):
    """The file or folder under `lamina` that holds a module."""
    return module.split(".")[1] if "." in module else "__init__"


def floor(module):
    found = [i for i, places in enumerate(FLOORS) if place(module) in places]
    assert found, f"{module} has no floor: give it one here and in docs/design.md"
    return found[0]


def type_only(tree):
    """The imports under `if TYPE_CHECKING`, which never run."""
    return {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }


def imports(path, *, at_module_level=False):
    """Every module that a file imports when it runs, in full."""
    tree = ast.parse(path.read_text())
    skipped = type_only(tree)
    nodes = tree.body if at_module_level else ast.walk(tree)
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


EDGES = {
    name: {found for found in imports(path) if found.split(".")[0] == "lamina"}
    for name, path in MODULES.items()
}


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    for found in EDGES[module]:
        inside = place(found) == place(module)
        assert inside or floor(found) < floor(module), f"{module} imports {found}"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_imports_the_face_for_names(module):
    if place(module) == "__main__":
        return
    assert "lamina" not in EDGES[module]


def test_no_imports_run_in_a_circle():
    left = {name: set(edges) for name, edges in EDGES.items()}
    while left:
        free = [name for name, edges in left.items() if not edges & left.keys()]
        assert free, f"a circle among {sorted(left)}"
        for name in free:
            del left[name]


@pytest.mark.parametrize(
    "module", ["lamina.products", "lamina.processes", "lamina.brownian"]
)
def test_products_know_no_numpyro(module):
    found = {name.split(".")[0] for name in imports(MODULES[module])}
    assert found <= {"jax", "lamina", "collections", "typing", "__future__"}


@pytest.mark.parametrize("module", ["bases", "margins"])
def test_bases_know_no_numpyro(module):
    found = {name.split(".")[0] for name in imports(MODULES[f"lamina.{module}"])}
    assert not found & {"numpyro", "optax"}


def test_inference_knows_no_layers_and_layers_no_inference():
    for module, edges in EDGES.items():
        places = {place(found) for found in edges}
        if place(module) == "infer":
            assert not places & {"layers", "links", "nn"}
        if place(module) in ("layers", "links", "nn"):
            assert not places & {"infer", "posterior", "fitting"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_the_core_dependencies_only(module):
    """Extras are imported by the function that needs them."""
    found = {
        name.split(".")[0] for name in imports(MODULES[module], at_module_level=True)
    }
    assert found - {"lamina"} <= CORE | sys.stdlib_module_names


@pytest.mark.parametrize("module", MODULES)
def test_faces_define_nothing(module):
    if MODULES[module].name != "__init__.py":
        return
    body = ast.parse(MODULES[module].read_text()).body
    definitions = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in body if isinstance(node, definitions)]


@pytest.mark.parametrize(
    "module", ["lamina", "lamina.layers", "lamina.links", "lamina.infer"]
)
def test_the_published_modules_hold_the_published_names(module):
    published = {
        "lamina.layers": [
            "AdaptiveLayer",
            "EmbeddingLayer",
            "FixedPriorLayer",
            "FMLayer",
            "InteractionLayer",
            "InterceptLayer",
            "LowRankInteractionLayer",
            "RandomEffectsLayer",
            "RandomWalkLayer",
        ],
        "lamina.links": ["gaussian_link_exp", "gaussian_link", "logit_link"],
        "lamina.infer": ["Batched_Trace_ELBO", "svi_run_batched"],
    }
    names = published.get(
        module, [*published["lamina.layers"], *published["lamina.links"]]
    )
    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in names)
    assert all(hasattr(found, name) for name in getattr(found, "__all__", []))


QUESTION = """
import json, sys
import lamina, lamina.layers, lamina.links, lamina.infer
from jax._src import xla_bridge
print(json.dumps({"modules": list(sys.modules), "backends": list(xla_bridge._backends)}))
"""


@pytest.fixture(scope="module")
def fresh():
    """What a fresh interpreter holds after importing Lamina."""
    done = subprocess.run(
        [sys.executable, "-c", QUESTION],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE.parent), "PATH": ""},
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "heavy",
    ["flax", "pandas", "xarray", "matplotlib", "scipy.stats", "arviz", "IPython"],
)
def test_importing_lamina_leaves_heavy_packages_alone(fresh, heavy):
    assert "lamina.layers" in fresh["modules"]
    assert heavy not in fresh["modules"]


def test_importing_lamina_starts_no_backend(fresh):
    assert fresh["backends"] == []
