"""A method and a data set from elsewhere, for tests: the worked examples of the READMEs."""

from __future__ import annotations

import re
from pathlib import Path


def method_of_readme() -> str:
    """A plug-in that defines METHOD."""
    return _example("methods/nearest.py")


def data_of_readme() -> str:
    """A plug-in that defines BENCHMARK."""
    return _example("benchmarks/stripes.py")


def _example(path: str) -> str:
    text = (Path(__file__).parents[1] / path).with_name("README.md").read_text()
    [found] = re.findall(rf"```python\n# {path}[^\n]*\n(.*?)```", text, re.DOTALL)
    return str(found)
