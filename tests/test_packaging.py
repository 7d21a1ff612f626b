"""The five packages are ours, and the console script answers fast, without torch."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from harness.plan.registry import names

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "methods", "benchmarks", "results", "harness")
SCRIPT = Path(sys.executable).with_name("lafite-bench")


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_ours(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    assert Path(spec.origin).resolve() == (ROOT / package / "__init__.py").resolve()
    assert (ROOT / package / "py.typed").exists()


def test_help_and_list_load_no_torch() -> None:
    asked = [["--help"], ["list"]]
    asked += [[name.replace("_", "-"), "--help"] for name in names("commands")]
    code = (
        "import sys\n"
        "from harness.cli import main\n"
        f"for words in {asked!r}:\n"
        "    sys.argv = ['lafite-bench', *words]\n"
        "    try:\n        main()\n"
        "    except SystemExit as end:\n        assert not end.code, (words, end.code)\n"
        "    heavy = {'torch', 'ray', 'timm', 'polars', 'pyarrow'} & set(sys.modules)\n"
        "    assert not heavy, (words, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: lafite-bench") == len(asked) - 1


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
