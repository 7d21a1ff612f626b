"""Every Triton kernel compiled for sm_80 and sm_90 in a process of its own, without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED_LIMIT = {80: 163 * 1024, 90: 227 * 1024}  # bytes that one block may use

SCRIPT = """
import sys
from importlib import import_module
from pathlib import Path
names = sorted(f.stem for f in Path("kernels").glob("[!_]*.py") if f.stem != "base")
made = {}
for name in names:
    op = import_module(f"kernels.{name}").OP
    made.setdefault(op.compiled, []).append(op.name)
for compiled, ops in made.items():
    for code in compiled(int(sys.argv[1])):
        print("+".join(ops), code.kernel, code.registers, code.shared, code.spilled)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.parametrize("arch", [80, 90])
def test_kernels_compile_without_spills(arch: int, tmp_path: Path) -> None:
    # The interpreter must be off before the kernels are imported, and the cache must be empty:
    # code left by an earlier version proves nothing.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(arch)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    for ops, kernel, registers, shared, spilled in lines:
        print(f"sm_{arch} {ops} {kernel}: {registers} registers, {shared} B shared, {spilled} B")
    compiled = {op for line in lines for op in line[0].split("+")}
    assert compiled >= {"kcenter_order", "topk_edit", "topk_l2"}
    assert all(int(line[3]) <= SHARED_LIMIT[arch] for line in lines)
    assert [line for line in lines if int(line[4])] == []
