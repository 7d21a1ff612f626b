"""A method from elsewhere, for tests."""

from __future__ import annotations

import re
from pathlib import Path


def method_of_readme() -> str:
    """The worked example of methods/README.md."""
    text = (Path(__file__).parents[1] / "methods" / "README.md").read_text()
    [found] = re.findall(r"```python\n# methods/nearest.py[^\n]*\n(.*?)```", text, re.DOTALL)
    return str(found)
