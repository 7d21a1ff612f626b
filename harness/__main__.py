"""`python -m harness` is `lafite-bench`."""

from harness.cli import main

main()
