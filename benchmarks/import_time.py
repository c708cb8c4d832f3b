"""How long `import lamina` takes beside NumPyro's own import.

Each contender is imported by fresh interpreters, one after the other in turns, so that a
busy moment of the machine falls on all alike. Prints medians and writes them to
benchmarks/results/import_time.md. Goal: at most 0.1 s above NumPyro's own.

    python benchmarks/import_time.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONTENDERS = {
    "jax": "import jax",
    "numpyro": "import numpyro",
    "numpyro + optax + tqdm": "import numpyro, optax, tqdm.auto",
    "lamina": "import lamina",
}
TIMED = """
import time
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""
GOAL = 0.1


def seconds(statement: str) -> float:
    """The time of one import in a fresh interpreter, without its own start."""
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", TIMED.format(statement=statement)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    return float(done.stdout)


def measure(repeats: int) -> dict[str, list[float]]:
    """Times of every contender, in turns, after one turn that fills the caches."""
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for turn in range(repeats + 1):
        for name, statement in CONTENDERS.items():
            found = seconds(statement)
            if turn:
                times[name].append(found)
    return times


def report(times: dict[str, list[float]]) -> str:
    """A table of medians, and the difference that the goal is about."""
    medians = {name: statistics.median(found) for name, found in times.items()}
    above = medians["lamina"] - medians["numpyro"]
    rows = "\n".join(
        f"| {name} | {medians[name]:.3f} | {min(found):.3f} | {max(found):.3f} |"
        for name, found in times.items()
    )
    versions = ", ".join(f"{p} {version(p)}" for p in ("jax", "numpyro", "optax"))
    return f"""# Import time

Fresh interpreters, {len(times["lamina"])} for each contender, in turns.
Python {platform.python_version()}, {versions}, {os.cpu_count()} cores.

| import | median, s | least | most |
|---|---|---|---|
{rows}

`import lamina` takes {above:.3f} s more than `import numpyro`; the goal is at most
{GOAL} s: {"met" if above <= GOAL else "missed"}.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    text = report(measure(parser.parse_args().repeats))
    print(text)
    results = ROOT / "benchmarks" / "results" / "import_time.md"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(text)


if __name__ == "__main__":
    main()
