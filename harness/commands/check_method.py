"""`lafite-bench check-method`: whether a method keeps the promises that ours keep."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.plan.options import METHOD
from harness.plan.registry import UsageError


def command(
    method: Annotated[str, typer.Argument(help="A method: its name or FILE.py.", **METHOD)],
) -> bool:
    """Hold a method to the contract, on a made data set: one line a promise, and what to mend.

    Example: lafite-bench check-method ./mine.py
    """
    import torch
    from rich.console import Console

    from harness.checks.contract import PROMISES, NotAsked, kept
    from harness.checks.subject import Subject
    from harness.plan.plan import declared

    if missing := {"smoke"} - declared(method).presets.keys():
        raise UsageError(f"{method}: has no preset {missing.pop()}, on which it is looked at")
    torch.set_num_threads(1)  # networks this small are slower on two
    broken, console = 0, Console()
    promises = kept(Subject(method))
    for number, promise in enumerate(PROMISES, 1):
        with console.status(f"{method}: {promise.says} ({number}/{len(PROMISES)})"):
            _, error = next(promises)
        verdict = "ok" if error is None else "-" if isinstance(error, NotAsked) else "BROKEN"
        broken += verdict == "BROKEN"
        line = f"{verdict:7}{promise.says}"
        if error is not None:
            asked = isinstance(error, (AssertionError, NotAsked))
            kind = "" if asked else f"{type(error).__name__} "
            line += f": {kind}{' '.join(str(error).split())}"
        if verdict == "BROKEN":
            line += f". To mend: {promise.mend}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{method} breaks {broken} of {len(PROMISES)} promises", highlight=False)
    return broken == 0
