"""Commands and variables that are corrected as an error advises: the second try succeeds."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from calling import Call
from made_data import write_image
from made_studies import score_here
from rich.console import Console

from harness.plan.options import Resources
from harness.search.study import Study
from harness.store.store import Store
from harness.use.predict import load
from harness.work.cache import FeatureCache
from harness.work.place import Place
from harness.work.task import Outcome, Show, Task, in_this_process
from results.calibration import read_held
from results.table import SCORES_SCHEMA, read, read_kind

ANY = ("run", "shapes", "--seeds", "1", "--dry-run")
DRY, LAFITE = (*ANY, "-m", "draem"), (*ANY, "-m", "lafite")
COMMANDS = [
    ((*ANY, "-m", "lafit"), "did you mean 'lafite'", ("lafit", "lafite")),
    ((*DRY, "--preset", "smok"), "did you mean 'smoke'", ("smok", "smoke")),
    ((*DRY, "--metric-profile", "adder"), "did you mean 'ader'", ("adder", "ader")),
    ((*DRY, "--category", "dis"), "did you mean 'disc'", ("dis", "disc")),
    ((*DRY, "--mode", "separat"), "did you mean 'separate'", ("separat", "separate")),
    ((*DRY, "--seeds", "0"), "give a number of seeds, at least 1", ("0", "1")),
    ((*LAFITE, "--set", "lafite.kk=1"), "did you mean 'k'", ("lafite.kk=1", "lafite.k=1")),
    ((*ANY, "-m", "uniad", "--set", "lafite.k=1"), "lafite does not run", ("uniad", "lafite")),
    ((*LAFITE, "--set", "k=1"), "METHOD.FIELD=VALUE, e.g. lafite.k=5", ("k=1", "lafite.k=5")),
    (
        (*LAFITE, "--preset", "smoke", "--set", "lafite.steps=101"),
        "must be in 1..t=100",
        ("lafite.steps=101", "lafite.steps=100"),
    ),
    ((*ANY, "-m", "padim", "--ablation"), "leave it out", ("--ablation", "--no-cache")),
    ((*LAFITE, "--tuned", "--ablation"), "ask for one of them", ("--tuned", "--no-cache")),
    (("list", "x"), "", ("x", "--help")),
    (("run", "shape", *DRY[2:]), "did you mean 'shapes'", ("shape", "shapes")),
    (("run", "./nowhere", *DRY[2:]), "give a data set's name", ("./nowhere", "shapes")),
]  # fmt: skip


@pytest.mark.parametrize("words, said, change", COMMANDS, ids=lambda part: str(part)[-40:])
def test_commands_that_are_corrected_as_advised_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    words: tuple[str, ...],
    said: str,
    change: tuple[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = call(*words)
    assert refused.code == 2 and said in refused.err
    old, new = change
    assert call(*(new if word == old else word for word in words)).code == 0


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def here(
        console: Console, resources: Resources, store: Store, *rest: object, **how: object
    ) -> Iterator[Place]:
        yield Place(store=store, cache=FeatureCache.default())

    def score(study: Study, settings: Sequence[object], place: Place, **how: object) -> None:
        score_here(study, settings, place)

    def drive(tasks: Sequence[Task], place: Place, show: Show) -> Iterator[Outcome]:
        return in_this_process("", tasks, place)

    monkeypatch.setattr("harness.screen.driver.on_cluster", here)
    monkeypatch.setattr("harness.screen.search.score_on_tune", score)
    monkeypatch.setattr("harness.cluster.tasks.on_ray", drive)


@pytest.mark.usefixtures("without_ray")
def test_a_choice_that_run_asks_for_is_made_by_the_command_that_it_names(
    tmp_path: Path, call: Call
) -> None:
    asked = ("run", "shapes", "-m", "padim", "--preset", "smoke", "--limit", "8", "--mode")
    asked += ("separate", "--category", "disc", "--set", "padim.ridge=0.02", "--trust-masks")
    asked += ("--tuned", "--dry-run", "--out", str(tmp_path / "runs"))
    refused = call(*asked)
    assert refused.code == 2
    [advised] = re.findall("first run lafite-bench (.+)", refused.err)
    assert call(*shlex.split(advised)).code == 0
    assert call(*asked).code == 0


@pytest.mark.usefixtures("without_ray")
def test_no_image_that_chose_the_knobs_calibrates(tmp_path: Path, call: Call) -> None:
    out = tmp_path / "runs"
    asked = ("run", "shapes", "-m", "padim", "--preset", "smoke", "--seeds", "1", "--tuned")
    asked += ("--calibrate", "0.3", "--out", str(out))
    plainly = call("tune", "shapes", "-m", "padim", "--preset", "smoke", "--out", str(out))
    assert plainly.code == 0
    refused = call(*asked)
    assert refused.code == 2, "those images chose"
    shutil.rmtree(out)
    [advised] = re.findall("first run lafite-bench (.+)", refused.err)
    assert call(*shlex.split(advised)).code == 0
    done = call(*asked)
    assert done.code == 0
    chose = set(read_kind(out / "trial_scores", SCORES_SCHEMA)["key"])
    held = read_held(out)
    assert len(chose) > 8 and len(set(held["key"])) > 20 and not chose & set(held["key"])
    tuned = read(out).filter(variant="tuned")["cell_id"][0]
    [model] = {use.parents[1] for use in (out / "models").glob(f"*/cells/{tuned}.json")}
    assert load(model).threshold(0.05) == held.filter(cell_id=tuned)["score"].max()
    [example] = re.findall("score an image +lafite-bench (predict .+) IMAGE", done.out)
    write_image(tmp_path / "new.png")
    assert call(*shlex.split(example), str(tmp_path / "new.png")).code == 0


def test_rates_of_alarms_that_can_not_be_given_are_said_while_planning(call: Call) -> None:
    few = (*DRY, "--preset", "smoke", "--limit", "12", "--calibrate")
    said = call(*few, "0.2")
    notes = [line for line in said.err.splitlines() if "normal images allow no alarm" in line]
    assert said.code == 0 and len(notes) == 2
    [note] = [line for line in notes if "at 0.05: 19 are needed" in line]
    assert note.startswith("note: shapes-limit12: 8 held-out normal images allow no alarm")
    [advised] = re.findall(r"\(--calibrate (.+)\)", note)
    assert "no alarm at 0.05" not in call(*few, advised).err


@pytest.mark.parametrize(
    "name, value, said, better",
    [
        ("LAFITE_BENCH_CACHE_GB", "40GB", "such as 40", "40"),
        ("LAFITE_BENCH_CACHE", "FILE", "name another folder", "FOLDER"),
        ("LAFITE_KERNELS", "refrence", "did you mean 'reference'", "reference"),
    ],
)
def test_variables_that_are_corrected_as_advised_work(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    name: str,
    value: str,
    said: str,
    better: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    monkeypatch.setenv(name, value)
    refused = call(*DRY, "--preset", "smoke")
    assert refused.code == 2 and said in refused.err
    monkeypatch.setenv(name, better)
    assert call(*DRY, "--preset", "smoke").code == 0
