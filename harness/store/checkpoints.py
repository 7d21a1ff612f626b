"""Training checkpoints of one fit: every E epochs, hashed, atomic, the newest two kept."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness.store.folder import Folder
from methods.base import Keeper, Method
from methods.parts.backbone import file_sha256
from methods.parts.progress import Progress
from results.files import naming, record_in

KEPT = 2


class Checkpoints(Keeper):
    """Keeps a method's state and its optimiser below one name of a folder.

    Random draws derive from (seed, epoch, batch) and the learning rate from the epoch, so neither
    needs keeping. `seconds` and `restarts` tell what earlier attempts cost; `losses`, one an epoch,
    and the `yardsticks` beside them come of `note`, and the losses are kept as well.
    """

    def __init__(self, folder: Folder, name: str, method: Method, every: int) -> None:
        self.folder, self.name = folder, name
        self.method = method
        self.every = every
        self.seconds = 0.0
        self.restarts = 0
        self.losses: list[float] = []
        self.yardsticks: Mapping[str, float] = {}
        self._started = time.perf_counter()
        self._resumed: float | None = None
        self._pace: float | None = None
        self._state: dict[str, Tensor] = {}
        self._record: dict[str, Any] = {"epochs": 0}
        for name in reversed(self._all()):
            if self._read(name):
                return

    @property
    def epochs(self) -> int:
        """How many were done when the newest whole checkpoint was written; 0 without one."""
        return int(self._record["epochs"])

    def note(self, progress: Progress) -> None:
        """Take down the loss of an epoch, if this is one."""
        if progress.loss is not None:
            self.losses.append(progress.loss)
            self.yardsticks = progress.yardsticks

    def resume(self, optimiser: torch.optim.Optimizer) -> int:
        """Put the newest whole checkpoint into the optimiser; epochs done."""
        if self._state:
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            slots: dict[int, dict[str, Tensor]] = {}
            for key, value in _under("optimiser.", self._state).items():
                index, _, name = key.partition(".")
                slots.setdefault(int(index), {})[name] = _laid_out_as(parameters[int(index)], value)
            optimiser.load_state_dict({"state": slots, "param_groups": self._record["groups"]})
            self._state = {}
        self._resumed = time.perf_counter()
        return self.epochs

    def keep(self, epochs: int, optimiser: torch.optim.Optimizer) -> None:
        """Write a checkpoint if it is time, then remove all but the newest two."""
        assert self._resumed is not None, "a training begins with `resume`"
        loop = time.perf_counter() - self._resumed
        self._pace = (epochs - self.epochs) / loop
        if epochs % self.every == 0:
            self._write(epochs, optimiser)

    def _write(self, epochs: int, optimiser: torch.optim.Optimizer) -> None:
        slots = optimiser.state_dict()
        state = {f"method.{k}": v for k, v in self.method.state_dict().items()}
        for index, values in slots["state"].items():
            state |= {f"optimiser.{index}.{k}": torch.as_tensor(v) for k, v in values.items()}
        with self.folder.scratch() as scratch:
            file = scratch / "state.safetensors"
            save_state({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, file)
            record = {
                "epochs": epochs,
                "groups": slots["param_groups"],
                "seconds": self.seconds + time.perf_counter() - self._started,
                "restarts": self.restarts,
                "losses": self.losses,
                "pace": self._pace,
                "sha256": file_sha256(file),
            }
            (scratch / "state.json").write_text(json.dumps(record))
            self.folder.put(f"{self.name}/epoch-{epochs:06d}", scratch)
        for old in self._all()[:-KEPT]:
            self.folder.remove(old)

    def pace(self, fit_seconds: float) -> float | None:
        """Passes over the training images per second.

        Those of the gradient loop, to the end of its last epoch and with the checkpoints before it;
        where an earlier attempt had finished the loop, that attempt's, None if it is not known.
        Without a gradient loop the whole fit is one pass.
        """
        return 1 / fit_seconds if self._resumed is None else self._pace

    def remove(self) -> None:
        """The training is over: its checkpoints are no longer needed."""
        self.folder.remove(self.name)

    def _all(self) -> list[str]:
        """Names of the checkpoints, the newest last."""
        folders = {name.rpartition("/")[0] for name in self.folder.list(self.name)}
        return sorted(name for name in folders if name.startswith(f"{self.name}/epoch-"))

    def _read(self, name: str) -> bool:
        """Load a checkpoint; False, and moved aside, if it is damaged or of another network.

        One that is gone, or that this user may not read, stays as it is.
        """
        try:
            path = self.folder.local(name)
            record = record_in((path / "state.json").read_bytes())
            state = read_state(path / "state.safetensors", record["sha256"])
            load_whole(self.method, _under("method.", state))
        except OSError:
            return False
        except (ValueError, KeyError, TypeError):
            aside = f"{self.name}/corrupt-{path.name}-{time.time_ns()}"
            with contextlib.suppress(OSError):  # another rank may have moved it first
                self.folder.move(name, aside)
            return False
        self._state, self._record = state, record
        self.seconds, self.restarts = record["seconds"], record["restarts"] + 1
        self.losses, self._pace = record["losses"], record["pace"]
        return True


def save_state(state: dict[str, Tensor], file: Path) -> None:
    """Write tensors to a file; OSError, naming it and their bytes, where that is not possible."""
    size = sum(value.nelement() * value.element_size() for value in state.values())
    with naming(file, size):
        try:
            save_file(state, file)
        except SafetensorError as error:  # also for a full disk
            full = "No space left" in str(error)
            reason = os.strerror(errno.ENOSPC) if full else str(error)
            raise OSError(errno.ENOSPC if full else errno.EIO, reason) from None


def read_state(file: Path, sha256: str) -> dict[str, Tensor]:
    """The tensors of a file; ValueError unless its bytes are those that were written.

    Only safetensors are read: a pickle, which could run code, is never opened as one.
    """
    if file_sha256(file) != sha256:
        raise ValueError(f"{file}: other bytes than were written")
    try:
        state: dict[str, Tensor] = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: no safetensors file ({error})") from None
    return state


def load_whole(method: Method, state: dict[str, Tensor]) -> None:
    """Put a state into a method; ValueError, and nothing changed, if it is of another one."""
    expected = method.state_dict()
    wrong = [
        key
        for key in expected.keys() | state.keys()
        # An empty buffer takes the size of what was learned; a truth says how it was to be learned.
        if key not in state
        or key not in expected
        or (expected[key].numel() and expected[key].shape != state[key].shape)
        or (expected[key].dtype == torch.bool and bool(expected[key]) != bool(state[key]))
    ]
    if wrong:
        raise ValueError(f"{len(wrong)} tensors are of another architecture, e.g. {min(wrong)}")
    method.load_state_dict(state)


def _laid_out_as(parameter: Tensor, value: Tensor) -> Tensor:
    """A moment in the memory layout of its parameter: fused optimisers walk both as plain rows, so
    a channels-last parameter beside a contiguous moment would be updated with another's."""
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
