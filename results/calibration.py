"""Thresholds without an anomaly: split-conformal p-values of held-out normal images.

A model that never saw the held-out images scores them. A new normal image is one more like them, so
its score is equally likely to take any rank among theirs, whatever the model and the images are:

    p = (1 + number of held-out scores at or above the new one) / (n + 1),   P(p <= alpha) <= alpha

for exchangeable images, in finite samples (Vovk, Gammerman, Shafer, "Algorithmic Learning in a
Random World", 2005, section 2.2; for outliers Bates, Candes, Lei, Romano, Sesia, "Testing for
Outliers with Conformal p-values", Annals of Statistics 2023, section 2). The alarm is p <= alpha,
which is a score above the ceil((1 - alpha)(n + 1))-th smallest held-out one. The rate is over draws
of held-out images as well: with those at hand it is Beta-distributed around alpha.

Pixels of one image are not exchangeable, so the threshold of a map is that of its highest value: a
normal image shows any marked pixel with probability alpha at most.

`OUT/calibration/<cell_id>.parquet` has a row for each held-out image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from results.metrics import Measured
from results.table import read_kind, schema_of

ALPHAS = (0.01, 0.05)
"""The false-alarm rates at which alarms are counted."""
ALARM = "alarm_"
"""Prefix of the names of metrics of alarms; of some, less is better."""
OWN, ONE = "own", "one"
"""A threshold for each category, and one for all of them."""
SCHEMA = schema_of(
    {
        "cell_id": pa.string(),
        "key": pa.string(),
        "category": pa.string(),
        "score": pa.float64(),
        "peak": pa.float64(),  # the highest value of the image's map
    }
)


def calibration_path(out: Path, cell_id: str) -> Path:
    """The file of the scores of a cell's held-out images."""
    return out / "calibration" / f"{cell_id}.parquet"


def needed(alpha: float) -> int:
    """The fewest held-out images with which an alarm at this rate can be raised at all."""
    # Rounded, as 1 / 0.1 - 1 is not 9 in binary numbers.
    return math.ceil(round(1 / alpha - 1, 9))


def threshold(held_N: ArrayLike, alpha: float) -> float:
    """The score above which an image is an alarm; ValueError with too few held-out ones (N,)."""
    sorted_N = np.sort(np.asarray(held_N, dtype=np.float64))
    if not 0 < alpha < 1:
        raise ValueError(f"alpha {alpha:g}: give a share between 0 and 1, such as 0.01")
    if len(sorted_N) < needed(alpha):
        raise ValueError(
            f"{len(sorted_N)} held-out normal images allow no alarm at {alpha:g}: "
            f"{needed(alpha)} are needed"
        )
    rank = math.ceil(round((1 - alpha) * (len(sorted_N) + 1), 9))
    return float(sorted_N[rank - 1])


def p_values(held_N: ArrayLike, scores_M: ArrayLike) -> NDArray[np.float64]:
    """The p-value of each score (M,), from held-out scores (N,)."""
    sorted_N = np.sort(np.asarray(held_N, dtype=np.float64))
    below_M = np.searchsorted(sorted_N, np.asarray(scores_M, dtype=np.float64), side="left")
    return np.asarray((1 + len(sorted_N) - below_M) / (len(sorted_N) + 1), dtype=np.float64)


def expected_rate(
    held: Sequence[int], tested: Sequence[int], alpha: float, level: float = 0.95
) -> tuple[float, float]:
    """The range of the false-alarm rate of test images that are like the held-out ones.

    `held` and `tested` are counts for each threshold: of the held-out images that gave it, and of
    the normal images that were tested with it. With n and m of them the number of alarms is
    beta-binomial with k = floor(alpha (n + 1)) and n + 1 - k (the rank of a new score among
    exchangeable ones; Vovk 2012, "Conditional validity of inductive conformal predictors", section
    2). A rate outside says that the test images are others, not that the threshold is wrong.
    """
    from scipy import stats  # half a second, which no process of a sweep should wait for

    chances = np.ones(1)
    for n, m in zip(held, tested, strict=True):
        alarms = n + 1 - math.ceil(round((1 - alpha) * (n + 1), 9))
        of_count = stats.betabinom(m, alarms, n + 1 - alarms).pmf(np.arange(m + 1))
        chances = np.convolve(chances, of_count)
    below = np.cumsum(chances)
    ends = (np.searchsorted(below, tail - 1e-12) for tail in ((1 - level) / 2, (1 + level) / 2))
    low, high = (min(int(end), len(below) - 1) / max(sum(tested), 1) for end in ends)
    return low, high


def read_held(folder: Path) -> pl.DataFrame:
    """All rows of SCHEMA under an output folder; ResultsError as `results.table.read`."""
    return read_kind(folder / "calibration", SCHEMA)


def alarm_metrics(
    held: Mapping[str, Sequence[float]],
    category: str,
    labels_M: NDArray[np.bool_],
    scores_M: NDArray[np.float64],
) -> dict[str, Measured]:
    """False-alarm rate and recall of one category's test images, or of POOLED, at each of ALPHAS.

    `held` are the held-out scores by category. One threshold for all comes of all of them; a
    threshold of each is not defined for POOLED.
    """
    everything = [score for scores in held.values() for score in scores]
    found: dict[str, Measured] = {}
    for alpha in ALPHAS:
        for kind, scores in ((OWN, held.get(category)), (ONE, everything)):
            alarms_M, reason = None, "all categories together have no threshold of their own"
            try:
                if scores is not None:
                    alarms_M = scores_M > threshold(scores, alpha)
            except ValueError as error:
                reason = str(error)
            for measure, what, of_M in (
                ("false", "normal", ~labels_M),
                ("recall", "anomalous", labels_M),
            ):
                if alarms_M is None:
                    measured = Measured(None, reason)
                elif not of_M.any():
                    measured = Measured(None, f"no {what} test images")
                else:
                    measured = Measured(float(alarms_M[of_M].mean()))
                found[alarm_name(measure, alpha, kind)] = measured
    return found


def alarm_name(measure: str, alpha: float, kind: str) -> str:
    """The metric's name, such as alarm_false_5_own: rate and alpha in percent."""
    return f"{ALARM}{measure}_{100 * alpha:g}_{kind}"
