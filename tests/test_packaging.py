"""The five packages are ours, and the console script answers fast, without torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from made_reports import publish

from harness.plan.registry import names

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "methods", "benchmarks", "results", "harness")
AT_FAULT = (
    *("run shap", "run shapes -m lafit", "run shapes --preset fast", "run ./gone"),
    *("run shapes --log tensorbord", "tune shapes -m lafit"),
)
"""Commands with words that can't be meant."""
SCRIPT = Path(sys.executable).with_name("lafite-bench")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_ours(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).resolve() == (ROOT / package / "__init__.py").resolve()
    assert (ROOT / package / "py.typed").exists()


def test_help_what_reads_results_and_words_at_fault_load_neither_torch_nor_ray(
    tmp_path: Path,
) -> None:
    publish(tmp_path, "mvtec", ["screw", "nut"], "lafite", evidence=False)
    publish(tmp_path, "mvtec", ["screw", "nut"], "patchcore", evidence=False)
    out = str(tmp_path)
    asked = [(["--help"], 0), (["list"], 0)]
    asked += [([name.replace("_", "-"), "--help"], 0) for name in names("commands")]
    asked += [(["status", out], 0), (["report", out], 0), (["verify", out], 0)]
    asked += [(["compare", "lafite", "patchcore", out], 0)]
    asked += [(words.split(), 2) for words in AT_FAULT]
    code = (
        "import sys\n"
        "from harness.cli import main\n"
        f"for words, code in {asked!r}:\n"
        "    sys.argv = ['lafite-bench', *words]\n"
        "    try:\n        main()\n"
        "    except SystemExit as end:\n        assert (end.code or 0) == code, (words, end.code)\n"
        "    heavy = {'torch', 'ray', 'timm'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: lafite-bench") == len(names("commands")) + 1


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("rep", {"report", "reproduce"}),
        ("run el", {"elpv"}),
        ("run shapes --method pat", {"patchcore", "patchsvdd"}),
        ("tune shapes --preset p", {"paper"}),
    ],
)
def test_a_shell_completes_commands_and_names(typed: str, offered: set[str]) -> None:
    words = f"lafite-bench {typed}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [SCRIPT],
        env={**os.environ, **asked, "_LAFITE_BENCH_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stdout.split()) == offered


def test_every_direct_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(name for packages in extras for name in packages)]
    pinned = {
        line.split("==")[0].lower()
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    for requirement in wanted:
        name = requirement.split(">")[0].split("[")[0].strip().lower()
        assert name in pinned, f"{name} is not in constraints.txt"
    for packages in extras:
        assert sum(name.startswith("faiss") for name in packages) <= 1, "two of one module"
