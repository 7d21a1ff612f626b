"""Methods and data sets from elsewhere: files that the user names, and installed packages."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest
from calling import Call
from made_cells import smoke_cells
from made_features import need_lite0
from made_plugins import data_of_readme
from made_plugins import method_of_readme as example

from harness.plan.cell import open_benchmark
from harness.plan.options import Selection
from harness.plan.overrides import parse_overrides
from harness.plan.plan import plan
from harness.plan.registry import (
    UsageError,
    copies_of_files,
    from_file,
    installed,
    load,
    source_of,
)
from results.table import read

SCRIPT = str(Path(sys.executable).with_name("lafite-bench"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LAFITE_BENCH_CACHE", str(tmp_path / "cache"))
    yield
    sys.path[:] = [path for path in sys.path if not path.startswith(str(tmp_path))]
    for name in [name for name in sys.modules if name.startswith(("plugin_", "their_"))]:
        del sys.modules[name]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_keeps_the_contract(tmp_path: Path, call: Call) -> None:
    need_lite0()
    checked = call("check-method", str(written(tmp_path, "nearest.py", example())))
    assert checked.code == 0, checked
    assert "breaks 0 of" in checked.out and "BROKEN" not in checked.out


@pytest.mark.slow
def test_a_file_runs_on_ray_beside_ours(tmp_path: Path) -> None:
    need_lite0()
    method = written(tmp_path, "nearest.py", example())
    data = written(tmp_path, "stripes.py", data_of_readme())
    out = tmp_path / "runs"
    words = ["run", str(data), "-m", str(method), "-m", "patchcore", "--preset", "smoke"]
    words += ["--seeds", "1", "--set", "nearest.sigma=2", "--limit", "6", "--out", str(out)]
    done = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    frame = read(out)
    assert set(frame["status"]) == {"done"} and set(frame["test_images"]) == {12}
    names = {name.partition("@")[0] for name in frame["method"].unique()}
    assert names == {"nearest", "patchcore"}
    assert frame["benchmark"].unique().item().startswith("stripes@")
    again = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    assert "2 cells, 2 of them done already" in again.stderr
    # Later commands know what it was: from the copy, as the file need not be there any more.
    method.unlink()
    [row] = frame.filter(method=frame["method"].max())["cell_id"].unique()
    words = ["reproduce", str(out), "--row", row]
    same = subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False)
    assert same.returncode == 0 and "bit by bit" in same.stdout, same.stdout + same.stderr


def test_a_files_identity_is_its_content(tmp_path: Path) -> None:
    need_lite0()
    path = written(tmp_path, "my-nearest.py", example())
    name = from_file("methods", path)
    assert re.fullmatch(r"my_nearest@[0-9a-f]{8}", name)
    [cell] = smoke_cells(name)
    path.write_text(example().replace("sigma: float = 1.0", "sigma: float = 1.5"))
    other = from_file("methods", path)
    [changed] = smoke_cells(other)
    assert other != name and changed.cell_id != cell.cell_id
    assert load("methods", name).presets["smoke"].knobs.sigma == 1.0
    assert from_file("methods", written(tmp_path, "my_nearest.py", path.read_text())) == other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_of_this_name\n", "line 1: ModuleNotFoundError"),
        ("a = 1\nraise SystemExit(3)\n", "line 2: SystemExit: 3"),
        ("def (:\n", "line 1: SyntaxError"),
        ("A = 1\n", "defines no METHOD"),
    ],
)
def test_a_file_that_can_not_be_imported_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, "mine.py", text)
    with pytest.raises(UsageError, match=re.escape(f"{path}: {said}")) as caught:
        from_file("methods", path)
    assert "\n" not in str(caught.value)


def test_what_is_no_method_or_data_set_is_one_line(tmp_path: Path) -> None:
    name = from_file("methods", written(tmp_path, "mine.py", "METHOD = 3\nBENCHMARK = lambda r: 3"))
    with pytest.raises(UsageError, match=r"METHOD is no Declaration; see methods/README"):
        smoke_cells(name)
    with pytest.raises(UsageError, match=r"gives no Benchmark; see benchmarks/README"):
        open_benchmark(name, None)
    with pytest.raises(UsageError, match="No such file"):
        from_file("methods", tmp_path / "gone.py")
    with pytest.raises(UsageError, match="a file that is not known here"):
        load("methods", "gone@12345678")


def test_a_copy_that_was_changed_is_not_imported(tmp_path: Path) -> None:
    name = from_file("methods", written(tmp_path, "mine.py", "METHOD = 3\n"))
    del sys.modules[f"plugin_{name.replace('@', '_')}"]
    [copy] = copies_of_files().glob("*/__init__.py")
    copy.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(UsageError, match="was changed; delete it"):
        load("methods", name)
    assert not (tmp_path / "ran").exists()


def test_a_broken_promise_has_a_line_with_what_to_mend(tmp_path: Path, call: Call) -> None:
    need_lite0()
    upside = example().replace("return Scores(maps_BSS,", "return Scores(-maps_BSS,")
    path = written(tmp_path, "upside.py", upside)
    done = call("check-method", str(path))
    assert done.code == 3, done
    [line] = [line for line in done.out.splitlines() if line.startswith("BROKEN")]
    assert "Maps are higher inside" in line and "To mend: maps have the image's" in line


def package(folder: Path, name: str, version: str, entries: str) -> None:
    """An installed package, as pip leaves it."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entries)
    both = f"{data_of_readme()}\nimported = True\n{example()}"
    (folder / f"their_{name}.py").write_text(both)
    sys.path.append(str(folder))
    invalidate_caches()


ENTRIES = """
[lafite_bench.methods]
nearest = their_parts:METHOD
patchcore = their_parts:METHOD
[lafite_bench.benchmarks]
stripes = their_parts:BENCHMARK
"""


def test_a_package_adds_methods_and_data_sets_and_its_version_counts(tmp_path: Path) -> None:
    need_lite0()
    package(tmp_path / "site", "parts", "1.2", ENTRIES)
    assert set(installed("methods")) == {"nearest"}, "ours keep their names"
    assert "their_parts" not in sys.modules, "nothing is imported that was not named"
    assert source_of("methods", "nearest") == "parts 1.2"
    assert source_of("methods", "patchcore") == ""
    [cell] = smoke_cells("nearest", benchmark="stripes")
    assert cell.revision == {"package": "parts 1.2"}
    first = (cell.fit_id, cell.cell_id)
    (tmp_path / "site" / "parts-1.2.dist-info").rename(tmp_path / "site" / "parts-1.3.dist-info")
    meta = tmp_path / "site" / "parts-1.3.dist-info" / "METADATA"
    meta.write_text(meta.read_text().replace("1.2", "1.3"))
    invalidate_caches()
    [cell] = smoke_cells("nearest", benchmark="stripes")
    assert first[0] != cell.fit_id and first[1] != cell.cell_id


def test_packages_at_odds_or_that_can_not_be_imported_are_one_line(tmp_path: Path) -> None:
    package(tmp_path / "a", "parts", "1", "[lafite_bench.methods]\nnearest = their_none:METHOD\n")
    with pytest.raises(UsageError, match=r"nearest \(parts 1\): ModuleNotFoundError: .*; mend it"):
        load("methods", "nearest")
    package(tmp_path / "b", "more", "2", "[lafite_bench.methods]\nnearest = their_more:METHOD\n")
    with pytest.raises(UsageError, match="'nearest' is in more 2 and parts 1; uninstall one"):
        load("methods", "nearest")


def test_settings_name_a_file_without_its_content() -> None:
    methods = ["nearest@12345678", "patchcore"]
    found = parse_overrides(["nearest.sigma=2", "patchcore.k=3"], methods)
    assert found == {"nearest@12345678": {"sigma": "2"}, "patchcore": {"k": "3"}}
    with pytest.raises(UsageError, match="nearest does not run"):
        parse_overrides(["nearest.sigma=2"], ["nearest@12345678", "nearest@87654321"])


def test_a_first_look_is_another_data_set_with_less_of_each_kind() -> None:
    selection = Selection(
        benchmarks=["shapes"], methods=["patchcore"], preset="smoke", seeds=1, limit=3
    )
    [cell] = plan(selection)
    data = cell.data
    assert (data.name, data.train_images, data.test_images) == ("shapes-limit3", 12, 24)
    opened = data.open()
    assert {sample.defect for sample in opened.test(["disc"])} > {"good"}
    assert {s.key for s in opened.train()} < {s.key for s in open_benchmark("shapes", None).train()}
