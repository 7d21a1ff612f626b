"""Who may import whom, read from every file's imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("kernels", "methods", "benchmarks", "results", "harness")
MAY_IMPORT = {
    "kernels": set(),
    "methods": {"kernels"},
    "benchmarks": set(),
    "results": set(),
    "harness": {"kernels", "methods", "benchmarks", "results"},
}
ORDER = """
kernels
benchmarks/parts benchmarks/parts/synthesis benchmarks
results results/analysis results/reports results/reports/page
methods/parts methods/networks methods/painting methods
harness/plan harness/store harness/work harness/use harness/cluster harness/search harness/screen
harness/checks harness harness/commands
"""
"""A file imports from its own folder and from those before it; a base.py counts to the parts."""
HOME = {
    "ray": "harness/cluster/*.py harness/search/tuning.py",
    "typer": "harness/cli.py harness/plan/options.py harness/commands/*.py",
    "triton": "kernels/_triton.py",
    "numba": "kernels/_numba.py kernels/_scan.py",
}
NO_TORCH = ("benchmarks", "results")


def imports(path: Path) -> set[str]:
    """Top-level names of all imports of a file, also those inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def files(package: str) -> list[Path]:
    """The files of a package; scripts that measure it stand beside their figures, and on all."""
    scripts = ROOT / "results" / "measured"
    found = sorted(path for path in (ROOT / package).rglob("*.py") if path.parent != scripts)
    assert found, f"no files in {package}"
    return found


@pytest.mark.parametrize("package", OURS)
def test_imports_go_one_way(package: str) -> None:
    forbidden = set(OURS) - MAY_IMPORT[package] - {package}
    for path in files(package):
        assert not imports(path) & forbidden, path


def arrows() -> dict[Path, set[Path]]:
    """Of every file, the files of ours that it imports."""
    known = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in OURS
        for path in files(package)
    }
    found: dict[Path, set[Path]] = {path: set() for path in known.values()}
    for path, targets in found.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
                targets |= {known[module] for module in modules & known.keys()}
    return found


def place_of(path: Path) -> int:
    folder, order = path.parent.relative_to(ROOT).as_posix(), ORDER.split()
    parts = f"{folder}/parts" if path.name == "base.py" else ""
    return order.index(parts if parts in order else folder)


def test_folders_are_imported_from_above_alone() -> None:
    for path, targets in arrows().items():
        for target in targets:
            assert place_of(target) <= place_of(path), f"{path} imports {target}"


def test_no_files_import_one_another_in_a_circle() -> None:
    # Sorting fails where there is a circle, and names it.
    list(TopologicalSorter(arrows()).static_order())


@pytest.mark.parametrize("package", NO_TORCH)
def test_no_torch_below_methods(package: str) -> None:
    for path in files(package):
        assert "torch" not in imports(path), path


@pytest.mark.parametrize("library", HOME)
def test_heavy_libraries_stay_at_home(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for package in OURS
        for path in files(package)
        if library in imports(path)
    }
    homes = HOME[library].split()
    assert users and all(any(fnmatch(user, home) for home in homes) for user in users), users


NEVER_OPEN_TEST = (
    "kernels",
    "methods",
    "results",
    "harness/search",
    "harness/store",
    "harness/cluster",
)
"""Folders of what learns and chooses; it is handed images, and asks for no test split."""


@pytest.mark.parametrize("folder", NEVER_OPEN_TEST)
def test_what_learns_and_chooses_asks_for_no_test_split(folder: str) -> None:
    for path in files(folder):
        asked = [
            node.lineno
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) and node.attr == "test"
        ]
        assert not asked, f"{path}, lines {asked}"


def test_importing_methods_and_kernels_loads_nothing_heavy() -> None:
    names = [
        f"{package}.{path.stem}"
        for package in ("kernels", "methods")
        for path in (ROOT / package).glob("*.py")
        if path.stem != "__init__"
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "heavy = {'ray', 'polars', 'faiss', 'pyarrow', 'timm', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_kernels_work_without_numba_triton_and_faiss() -> None:
    """A machine with torch alone runs the plain references, and a method on top of them."""
    code = (
        "import sys\n"
        "for name in ('numba', 'triton', 'faiss', 'ray', 'polars'): sys.modules[name] = None\n"
        "import torch\n"
        "from kernels.edit import topk_edit\n"
        "from kernels.kcenter import kcenter_order, kcenter_order_reference\n"
        "from kernels.topk import topk_l2\n"
        "import methods.lafite\n"
        "x = torch.randn(50, 6)\n"
        "assert topk_l2(x, x, 2)[1][:, 0].tolist() == list(range(50))\n"
        "assert torch.equal(topk_edit(x, x, 1), x)\n"
        "assert torch.equal(kcenter_order(x, 9), kcenter_order_reference(x, 9))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
