"""A real S3 server on this machine, for tests: moto's, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyarrow.fs import S3FileSystem

START_SECONDS = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def object_store(bucket: str) -> Iterator[dict[str, str]]:
    """Yields the environment that reaches a server with this bucket."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as server:
        try:
            _await(f"http://{address}/moto-api/")
            environment = {
                "AWS_ACCESS_KEY_ID": "a",
                "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_ENDPOINT_URL": f"http://{address}",
            }
            files = S3FileSystem(
                access_key="a",
                secret_key="b",
                region="us-east-1",
                scheme="http",
                endpoint_override=address,
                allow_bucket_creation=True,
            )
            files.create_dir(bucket)
            yield environment
        finally:
            server.kill()


def _await(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer; pid {os.getpid()}")
