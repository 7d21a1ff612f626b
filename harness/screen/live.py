"""Training losses while they come, and what they must beat, for TensorBoard, MLflow and W&B.

Directly, not through Ray's callbacks: those of Tune hear of Tune's trials alone, and a fit is a Ray
task or a Ray Train job, which refuses them. The driver hears every worker's progress for its bars
anyway, so what is logged does not depend on where workers run, nor on files that they share.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.plan.registry import UsageError, did_you_mean, first_line
from harness.store.folder import folder_at
from methods.parts.progress import Progress

if TYPE_CHECKING:
    from harness.work.task import Show

Log = Callable[[str, str, int, float], object]
"""Told the name of a training, the tag of a number, the epochs done and the number."""
TAG = "train/loss"


@contextmanager
def live(kinds: Sequence[str], out: Path, labels: Sequence[str], show: Show) -> Iterator[Show]:
    """Yields a `Show` that logs the losses of the items named by `labels` and tells `show` all.

    UsageError where a log can't be opened; one that ends later is left out with a note.
    """
    logs: dict[str, Log] = {}
    ends = ExitStack()
    for kind in kinds:
        try:
            logs[kind] = LOGS[kind](out, ends)
        except Exception as error:
            why = f"{first_line(error)}; mend it, or leave it out"
            raise UsageError(f"--log {kind}: {why}") from None

    def show_and_log(number: int, progress: Progress | None) -> None:
        show(number, progress)
        if progress is None or progress.loss is None:
            return
        beside = {f"{TAG} of {what}": at for what, at in progress.yardsticks.items()}
        for kind, log in list(logs.items()):
            try:
                for tag, value in {TAG: progress.loss, **beside}.items():
                    log(labels[number], tag, progress.step, value)
            except Exception as error:  # its server is away: the run goes on without it
                del logs[kind]
                note = f"--log {kind}: {first_line(error)}; it is told nothing more"
                show(number, replace(progress, note=note))

    try:
        yield show_and_log
    finally:
        with suppress(Exception):
            ends.close()
        for path in (path for kind in kinds for path in out.glob(f"{kind}*")):
            with suppress(Exception):  # of a folder that is elsewhere
                folder_at(out).put(path.name, path, replace=True)


def check_logs(kinds: Sequence[str]) -> list[str]:
    """A line for each unknown kind and for each that is not installed."""
    faults = []
    for kind in kinds:
        if kind not in LOGS:
            faults.append(f"--log {kind}: {did_you_mean(kind, [*LOGS])}")
        elif importlib.util.find_spec(kind) is None:
            faults.append(f"--log {kind}: not installed; pip install 'lafite-bench[{kind}]'")
    return faults


def _tensorboard(out: Path, ends: ExitStack) -> Log:
    """Event files under OUT/tensorboard, a folder a training."""
    from torch.utils.tensorboard import SummaryWriter

    @cache
    def writer(name: str) -> Any:
        folder = out / "tensorboard" / re.sub(r"[^\w.,=()+ -]", "_", name)
        return ends.enter_context(closing(SummaryWriter(folder)))

    def log(name: str, tag: str, epochs: int, value: float) -> None:
        writer(name).add_scalar(tag, value, epochs)
        writer(name).flush()

    return log


def _mlflow(out: Path, ends: ExitStack) -> Log:
    """Runs of the experiment `lafite-bench`, where MLFLOW_TRACKING_URI says, else OUT/mlflow.db."""
    from mlflow import MlflowClient

    here = f"sqlite:///{(out / 'mlflow.db').resolve()}"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or here)
    known = client.get_experiment_by_name("lafite-bench")
    experiment = known.experiment_id if known else client.create_experiment("lafite-bench")

    @cache
    def run(name: str) -> str:
        begun: str = client.create_run(experiment, run_name=name).info.run_id
        ends.callback(client.set_terminated, begun)
        return begun

    return lambda name, tag, epochs, value: client.log_metric(run(name), tag, value, step=epochs)


def _wandb(out: Path, ends: ExitStack) -> Log:
    """Runs of the project `lafite-bench`, under OUT/wandb; WANDB_MODE=offline sends nothing."""
    import wandb

    @cache
    def run(name: str) -> Any:
        settings = {"project": "lafite-bench", "dir": str(out), "reinit": "create_new"}
        return ends.enter_context(wandb.init(name=name, **settings))

    return lambda name, tag, epochs, value: run(name).log({tag: value, "epochs": epochs})


LOGS: dict[str, Callable[[Path, ExitStack], Log]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
