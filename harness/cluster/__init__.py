"""Ray: every file that says so."""

import os

# Read when Ray is imported: else it answers SIGTERM with a stack of its C++ code.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
