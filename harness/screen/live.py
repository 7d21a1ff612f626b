"""Training losses while they come, and what they must beat, for TensorBoard and MLflow.

Directly, not through Ray's callbacks: those of Tune hear of Tune's trials alone, and a fit is a Ray
task or a Ray Train job, which refuses them. The driver hears every worker's progress for its bars
anyway, so what is logged does not depend on where workers run, nor on files that they share.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.plan.registry import UsageError, did_you_mean, first_line
from harness.store.folder import folder_at
from harness.work.task import Show
from methods.base import Progress

Log = Callable[[str, str, int, float], None]
"""Told the name of a training, the tag of a number, the epochs done and the number."""
TAG = "train/loss"


@contextmanager
def live(kinds: Sequence[str], out: Path, labels: Sequence[str], show: Show) -> Iterator[Show]:
    """Yields a `Show` that logs the losses of the items named by `labels` and tells `show` all."""
    with ExitStack() as stack:
        logs = {kind: stack.enter_context(_opened(kind, out)) for kind in kinds}

        def show_and_log(number: int, progress: Progress | None) -> None:
            show(number, progress)
            if progress is not None and progress.loss is not None:
                beside = {f"{TAG} of {what}": at for what, at in progress.yardsticks.items()}
                for kind, log in list(logs.items()):
                    try:
                        for tag, value in {TAG: progress.loss, **beside}.items():
                            log(labels[number], tag, progress.step, value)
                    except Exception as error:  # its server is away: the run goes on without it
                        del logs[kind]
                        note = f"--log {kind}: {first_line(error)}; it is told nothing more"
                        show(number, replace(progress, note=note))

        yield show_and_log


@contextmanager
def _opened(kind: str, out: Path) -> Iterator[Log]:
    """A log; UsageError where it can't be opened, and no error of closing it."""
    try:
        log = LOGS[kind](out)
        told = log.__enter__()
    except Exception as error:
        raise UsageError(f"--log {kind}: {first_line(error)}; mend it, or leave it out") from None
    try:
        yield told
    finally:
        with suppress(Exception):
            log.__exit__(None, None, None)
            for path in out.glob(f"{kind}*"):  # of a folder that is elsewhere
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


@contextmanager
def _tensorboard(out: Path) -> Iterator[Log]:
    """Event files under OUT/tensorboard, a folder a training."""
    from torch.utils.tensorboard import SummaryWriter

    writers: dict[str, Any] = {}

    def log(name: str, tag: str, epochs: int, value: float) -> None:
        if name not in writers:
            folder = re.sub(r"[^\w.,=()+ -]", "_", name)
            writers[name] = SummaryWriter(out / "tensorboard" / folder)
        writers[name].add_scalar(tag, value, epochs)
        writers[name].flush()

    try:
        yield log
    finally:
        for writer in writers.values():
            writer.close()


@contextmanager
def _mlflow(out: Path) -> Iterator[Log]:
    """Runs of the experiment `lafite-bench`, where MLFLOW_TRACKING_URI says, else OUT/mlflow.db."""
    from mlflow import MlflowClient

    here = f"sqlite:///{(out / 'mlflow.db').resolve()}"
    client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or here)
    known = client.get_experiment_by_name("lafite-bench")
    experiment = known.experiment_id if known else client.create_experiment("lafite-bench")
    runs: dict[str, str] = {}

    def log(name: str, tag: str, epochs: int, value: float) -> None:
        if name not in runs:
            runs[name] = client.create_run(experiment, run_name=name).info.run_id
        client.log_metric(runs[name], tag, value, step=epochs)

    try:
        yield log
    finally:
        for run in runs.values():
            client.set_terminated(run)


@contextmanager
def _wandb(out: Path) -> Iterator[Log]:
    """Runs of the project `lafite-bench`, under OUT/wandb; WANDB_MODE=offline sends nothing."""
    import wandb

    runs: dict[str, Any] = {}

    def log(name: str, tag: str, epochs: int, value: float) -> None:
        if name not in runs:
            runs[name] = wandb.init(
                project="lafite-bench", name=name, dir=str(out), reinit="create_new"
            )
        runs[name].log({tag: value, "epochs": epochs})

    try:
        yield log
    finally:
        for run in runs.values():
            run.finish()


LOGS: dict[str, Callable[[Path], AbstractContextManager[Log]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    "wandb": _wandb,
}
