"""Folders in object stores as options name them: this machine works with copies of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.base import DataError
from harness.cache import FeatureCache
from harness.options import Address
from harness.registry import UsageError
from harness.store.addresses import named
from harness.store.copies import input_of, results_of


@contextmanager
def copied(address: Address) -> Iterator[Path]:
    """The copy, for as long as the block lasts; errors name the URI instead of it."""
    root = FeatureCache.default(_say).root
    if address.use == "reads data":
        yield input_of(root / "inputs", address.uri, _say)
        return
    writes = address.use == "writes results"
    with results_of(root / "results", address.uri, _say, writes=writes) as folder:
        try:
            yield folder
        except (UsageError, DataError) as error:
            raise type(error)(named(str(error))) from None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
