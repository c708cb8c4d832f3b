"""What a newcomer runs: the main job, the README's code and the example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.__main__ import PUBLISHED, main

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_main_job_prints_both_fits_and_writes_its_report(tmp_path, capsys):
    assert main(tmp_path) == 0
    printed = capsys.readouterr().out
    for name, (_, published) in PUBLISHED.items():
        (line,) = [ln for ln in printed.splitlines() if ln.startswith(f"{name}  ")]
        shown, vi, vi_sd, nuts, nuts_sd = map(float, line[len(name) :].split())
        assert shown == published
        assert abs(vi - nuts) < 0.35 * nuts_sd
        assert abs(nuts - published) < 0.35 * nuts_sd
        assert vi_sd == pytest.approx(nuts_sd, rel=0.4)
    assert (tmp_path / "lamina_report.png").read_bytes()[1:4] == b"PNG"
    page = (tmp_path / "lamina_report.html").read_text("utf-8")
    assert "data:image/png;base64," in page
    assert page.count("<tr>") == 1 + len(PUBLISHED)


def readme_blocks(language):
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.slow
def test_readme_first_example_gives_what_it_shows(capsys):
    exec(readme_blocks("python")[0], {})
    printed = capsys.readouterr().out
    number = re.compile(r"-?\d+\.\d+")
    shown = [float(x) for x in number.findall(readme_blocks("text")[0])]
    found = [float(x) for x in number.findall(printed)]
    assert len(found) == len(shown) == 8
    # the same seed: only what changes with the machine's arithmetic may differ
    assert found == pytest.approx(shown, abs=0.25)


def test_readme_other_blocks_run():
    import numpy as np
    from numpyro import handlers

    for block in readme_blocks("python")[1:]:
        names: dict = {}
        exec(block, names)
        if "model" in names:
            trace = handlers.trace(handlers.seed(names["model"], 0))
            sites = trace.get_trace(np.ones((4, 2)))
            assert sites["obs"]["value"].shape == (4,)


def test_no_commands_but_the_two_that_are_marked():
    text = (ROOT / "README.md").read_text("utf-8")
    for marker in ("main-command", "test-command"):
        (command,) = re.findall(rf"<!-- {marker} -->\n```\n(.*?)\n```", text, re.DOTALL)
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && ")


@pytest.mark.slow
def test_regression_example_runs(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "regression_workflow.py")],
        cwd=tmp_path,
        env={"LAMINA_QUICK": "1", "PYTHONPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "closed form, Beta(16, 14)" in done.stdout
