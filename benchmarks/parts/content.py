"""Work over the content of samples: identity, faults and copies of images."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from benchmarks.base import Benchmark, DataError, Sample

Item = TypeVar("Item")
Result = TypeVar("Result")
_HASHES: dict[tuple[Path, int, int], str] = {}
"""(file, size, time) -> SHA-256 of its bytes."""


def map_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`map` over threads, results in order; decoding and hashing release the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


def map_ahead(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`map`, with the next result made in a thread while this one is worked on."""
    with ThreadPoolExecutor(1) as pool:
        ahead = [pool.submit(function, item) for item in items[:1]]
        for following in items[1:]:
            result = ahead.pop().result()
            ahead.append(pool.submit(function, following))
            yield result
        yield from (last.result() for last in ahead)


def fingerprint(
    benchmark: Benchmark, samples: Sequence[Sample], count: Callable[[int], None] | None = None
) -> str:
    """Identity of the samples' content, 16 hex characters: keys, image bytes and mask bytes.

    Neither order nor paths matter; a changed byte does. DataError for a file that cannot be read.
    `count` is told of each image, in the caller's thread.
    """

    def digest(sample: Sample) -> bytes:
        sha = hashlib.sha256(sample.key.encode())
        for part in _content(benchmark, sample):
            sha.update(hashlib.sha256(part).digest())
        return sha.digest()

    ordered = sorted(samples, key=lambda sample: sample.key)
    whole = hashlib.sha256()
    for part in map_threads(digest, ordered):
        whole.update(part)
        if count is not None:
            count(1)
    return whole.hexdigest()[:16]


def image_hashes(benchmark: Benchmark, samples: Sequence[Sample]) -> Iterator[str]:
    """SHA-256 of each image, without masks, in hex; DataError for a file that cannot be read.

    A file is hashed once a process, unless its size or time has changed.
    """

    def digest(sample: Sample) -> str:
        if sample.path is None:
            return hashlib.sha256(next(_content(benchmark, sample))).hexdigest()
        try:
            status = sample.path.stat()
        except OSError as error:
            raise DataError.unreadable(error, sample.path) from error
        mark = (sample.path, status.st_size, status.st_mtime_ns)
        if mark not in _HASHES:
            _HASHES[mark] = hashlib.sha256(next(_content(benchmark, sample))).hexdigest()
        return _HASHES[mark]

    return map_threads(digest, samples)


def check(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    on_done: Callable[[], None] | None = None,
    *,
    trust_masks: bool = False,
) -> list[str]:
    """Decodes every image and mask; returns all problems, one line each, with the file's name.

    Doubts about masks are problems unless these are trusted. `on_done()` is called once per sample
    in the caller's thread, for a progress bar.
    """

    def decode(sample: Sample) -> list[str]:
        lines: list[str] = []
        for read in (benchmark.read_image, benchmark.read_mask):
            try:
                read(sample)
            except DataError as error:
                lines += str(error).splitlines()
        return lines or ([] if trust_masks else benchmark.doubts(sample))

    problems: list[str] = []
    for lines in map_threads(decode, samples):
        problems += lines
        if on_done is not None:
            on_done()
    problems += benchmark.problems(sorted({sample.category for sample in samples}))
    return list(dict.fromkeys(problems))


def losses(benchmark: Benchmark, samples: Sequence[Sample]) -> list[str]:
    """Notes, one line each: what of the images is not kept, and of how many in a category."""
    found = Counter(
        (sample.category, loss)
        for sample, of_sample in zip(samples, map_threads(benchmark.losses, samples), strict=True)
        for loss in of_sample
    )
    where = benchmark.location or benchmark.name
    return [
        f"{where}: {category}, {count} images: {loss}" for (category, loss), count in found.items()
    ]


def duplicates(benchmark: Benchmark, train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """Notes, one line each: test images that equal a training image, and training images twice."""
    first_keys: dict[str, str] = {}
    notes: list[str] = []
    for sample, image in zip(train, image_hashes(benchmark, train), strict=True):
        if (first_key := first_keys.setdefault(image, sample.key)) != sample.key:
            notes.append(f"{sample.key}: the same image as {first_key}; twice in training")
    for sample, image in zip(test, image_hashes(benchmark, test), strict=True):
        if image in first_keys:
            notes.append(
                f"{sample.key}: the same image as {first_keys[image]}; a leak from training"
            )
    return notes


def _content(benchmark: Benchmark, sample: Sample) -> Iterator[bytes]:
    """`Benchmark.content`, with DataError for a file that cannot be read."""
    try:
        yield from benchmark.content(sample)
    except OSError as error:
        raise DataError.unreadable(error, error.filename) from error
