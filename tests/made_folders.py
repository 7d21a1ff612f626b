"""Folders of all bodies for tests: on a disk, in an object store, at a driver that needs no Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.cluster.relay import AtDriver, Desk
from harness.store.folder import OnDisk


class Near(AtDriver):
    """A driver's folder that is reached without Ray."""

    def _ask(self, verb: str, *values: Any, **named: Any) -> Any:
        return getattr(self.desk, verb)(self.folder, *values, **named)


def desk(results: Path, cache: Path) -> Desk:
    """A desk that serves the driver's folders."""
    return Desk(results=OnDisk(results), cache=OnDisk(cache))
