"""Decide whether numbers fall into two groups: by one or two Gaussians, or by the valley between two peaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_STARTS = (0.5, 0.8, 0.95, 0.98)
"""The quantiles at which the values are first divided. The fit with the highest likelihood is kept."""
_STEPS = 200
_NARROWEST = 0.01
"""A share of the standard deviation of all values that is added to each group's deviation: without it, equal values
would have an infinite likelihood."""

_DEEP = 0.6
"""A valley counts if its density is at most this multiple of the lower peak's."""
_PLACES = 200
_MOST_VALUES = 4000
"""The number of places at which a density is estimated, and the number of values from which it is."""


@dataclass(frozen=True)
class Split:
    """Two groups of values.

    Attributes:
        separation: 2 (L2 - L1) / n, in nats per value: how much better two Gaussians explain the values than one, with
            the log-likelihoods L2 and L1 and n values. It is about 0 if there is only one group.
        upper: (n,) float64 in [0, 1], the probability that a value belongs to the upper group; 0 for values below the
            mean of the lower group.
    """

    separation: float
    upper: Values


def split(values: Values) -> Split:
    """Divide values into two groups by expectation maximisation (Dempster, Laird and Rubin 1977).

    Args:
        values: (n,) finite numbers in any order. If fewer than two of them differ, they form one group.
    """
    deviation = float(values.std()) if len(values) else 0.0
    if deviation == 0:
        return Split(0.0, np.zeros(len(values)))
    scaled = (values - values.mean()) / deviation
    fits = [_fit(scaled, float(np.quantile(scaled, share))) for share in _STARTS]
    likelihood, upper = max(fits, key=lambda fit: fit[0])
    one = -0.5 * len(scaled) * (1 + np.log(2 * np.pi))
    return Split(float(2 * (likelihood - one) / len(scaled)), upper)


def _fit(values: Values, border: float) -> tuple[float, Values]:
    """The log-likelihood, and for each value its probability of belonging to the upper group."""
    upper = (values > border).astype(np.float64)
    for _ in range(_STEPS):
        shares = np.stack([1 - upper, upper])  # (2, n)
        counts = shares.sum(1) + 1e-9
        means = shares @ values / counts
        deviations = np.sqrt((shares * (values - means[:, None]) ** 2).sum(1) / counts) + _NARROWEST
        distances = (values - means[:, None]) / deviations[:, None]
        logs = np.log(counts / len(values) / deviations)[:, None] - 0.5 * (distances**2 + np.log(2 * np.pi))
        total = np.logaddexp(logs[0], logs[1])
        upper = np.exp(logs[1] - total)
    high = int(means.argmax())
    probability = upper if high == 1 else 1 - upper
    return float(total.sum()), np.where(values > means[1 - high], probability, 0.0)


def valley(values: Values, border: float) -> float:
    """The value between two peaks at which there are the fewest values; infinite if there is no clear valley.

    The density is a Gaussian kernel estimate whose width follows from the quartiles (Silverman 1986).

    Args:
        values: (n,) finite numbers in any order.
        border: a number between the peaks, which need not be near the valley. It is looked for between the medians of
            the values on both sides.
    """
    above = values > border
    if above.all() or not above.any():
        return np.inf
    places = np.linspace(np.median(values[~above]), np.median(values[above]), _PLACES)
    some = np.sort(values)[:: max(1, len(values) // _MOST_VALUES)]
    quartiles = np.quantile(some, (0.25, 0.75))
    width = max(1e-6, float(quartiles[1] - quartiles[0]) / 1.34 * len(some) ** -0.2)
    density = np.exp(-0.5 * ((places[:, None] - some) / width) ** 2).sum(1)
    lowest = int(density.argmin())
    lower_peak = min(density[: lowest + 1].max(), density[lowest:].max())
    return float(places[lowest]) if density[lowest] <= _DEEP * lower_peak else np.inf
