"""On which ports Ray's processes of this user listen, read from /proc."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

LISTENS = "0A"
"""The state of a socket that listens, in /proc/net/tcp."""
LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def listening(proc: Path = Path("/proc")) -> list[str]:
    """A line for each process of Ray with its ports; `all` are those that other machines reach."""
    ports = dict(_ports(proc))
    lines = []
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            name = (process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            kind = name.rsplit("/", 1)[-1]
            if not kind.startswith(("raylet", "gcs_server", "ray::")):
                continue
            links = [str(link.readlink()) for link in (process / "fd").iterdir()]
            inodes = [link[len("socket:[") : -1] for link in links if link.startswith("socket:[")]
            reached = sorted({ports[inode] for inode in inodes if inode in ports})
            if reached:
                lines.append(f"{kind} (pid {process.name}): {', '.join(reached)}")
    return lines


def _ports(proc: Path) -> Iterator[tuple[str, str]]:
    """The inode of each socket that listens, and who reaches it."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (proc / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].partition(":")
                if fields[3] == LISTENS:
                    who = "this machine" if address in LOOPBACK else "all"
                    yield fields[9], f"{int(port, 16)} from {who}"
