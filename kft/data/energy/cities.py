"""Daily energy use of buildings in two cities, simulated: "two_cities".

A building uses energy for heating below 15 and cooling above 22 degrees Celsius, in proportion to
its area and its losses (degree days, as in ASHRAE Guideline 14), for appliances, and for people,
who are there on other days in offices than in homes. The first city is cold and has many small
homes; the second is hot and dry, people there work on other days of the week, and use air
conditioning before they heat. So the same columns mean nearly, but not quite, the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kft.arguments import check_choice, check_integer
from kft.data.dataset import Dataset, Split
from kft.data.splits import group_split
from kft.data.task import Task

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
KINDS = ("home", "office", "shop")


@dataclass(frozen=True)
class City:
    """Climate and behaviour of a city.

    Attributes:
        temperature: Mean temperature of a year, in degrees Celsius.
        season: Half of the difference of the warmest and the coldest day, in degrees.
        humidity: Mean relative humidity, from 0 to 1.
        heating: Energy per square metre and degree below 15, in kWh a day.
        cooling: Energy per square metre and degree above 22, in kWh a day.
        weekend: Numbers of the days without work, Monday being 0.
        shares: Share of homes, offices and shops.
    """

    temperature: float
    season: float
    humidity: float
    heating: float
    cooling: float
    weekend: tuple[int, int]
    shares: tuple[float, float, float]


CITIES = {
    "north": City(9.0, 12.0, 0.75, 0.060, 0.010, (5, 6), (0.7, 0.2, 0.1)),
    "south": City(23.0, 10.0, 0.45, 0.020, 0.045, (4, 5), (0.4, 0.35, 0.25)),
}


def load_two_cities(city: str = "south", records: int = 4000, seed: int = 0) -> Dataset:
    """Simulate the daily energy use of buildings in one of two cities.

    Args:
        city: "north", on which a model can be trained first, or "south".
        records: Number of days of all buildings together, 20 of each.
        seed: Integer; the same seed gives the same records.

    Returns:
        A regression of the energy in kWh on rows of 8 columns. Buildings are groups, which the
        splits keep together.

    Raises:
        ValueError: The city is unknown, or there are fewer than 600 records.

    Example:
        >>> data = load_two_cities("north", records=600)
        >>> data.input_kind, list(data.train.inputs[0])[:3]
        ('table', ['temperature', 'humidity', 'sunshine'])
    """
    check_choice("city", city, list(CITIES))
    check_integer("records", records, 600)
    rng = np.random.default_rng((check_integer("seed", seed, 0), list(CITIES).index(city)))
    rows, targets, buildings = _simulated(CITIES[city], records, rng)
    everything = Split(rows, targets, buildings)
    parts: dict[str, Any] = {
        name: everything.take(at) for name, at in group_split(buildings, seed=seed).items()
    }
    return Dataset(
        name="two_cities",
        task=Task.REGRESSION,
        **parts,
        source=f"simulated by kft (city {city!r}, seed {seed})",
        licence="Apache-2.0 (made by kft)",
        citation="Degree days as in ASHRAE Guideline 14-2014",
        checksum=hashlib.sha256(repr((rows, targets.tolist())).encode()).hexdigest(),
        notes=(f"Split by building, {len(set(buildings)):,} buildings of 20 days, seed {seed}.",),
        target="energy in kWh",
    )


def _simulated(
    city: City, records: int, rng: np.random.Generator
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    """Return rows, the energy of each in kWh, and the number of its building."""
    building = np.repeat(np.arange(-(-records // 20)), 20)[:records]
    count = building[-1] + 1
    kind = rng.choice(3, count, p=city.shares)[building]
    area = (np.array([90.0, 800.0, 300.0])[kind]) * np.exp(rng.normal(0, 0.4, count))[building]
    age = rng.uniform(0, 80, count)[building]
    losses = (0.7 + age / 80) * np.exp(rng.normal(0, 0.15, count))[building]  # not a column
    day = rng.integers(0, 365, records)
    temperature = city.temperature - city.season * np.cos(2 * np.pi * (day - 20) / 365)
    temperature += rng.normal(0, 3, records)
    humidity = np.clip(city.humidity + rng.normal(0, 0.12, records), 0.1, 1)
    sunshine = np.clip(8 - 4 * np.cos(2 * np.pi * day / 365) - 6 * (humidity - 0.5), 0, 14)
    weekday = rng.integers(0, 7, records)
    free = np.isin(weekday, city.weekend)
    occupied = np.where(kind == 0, 0.7 + 0.3 * free, np.where(free, 0.25 + 0.6 * (kind == 2), 1))
    heating = city.heating * losses * np.maximum(15 - temperature - 0.2 * sunshine, 0)
    felt = temperature + 6 * (humidity - 0.5)
    cooling = city.cooling * np.maximum(felt - 22, 0) * (0.6 + 0.4 * losses) * occupied
    appliances = np.array([0.06, 0.09, 0.16])[kind] * occupied
    energy = area * (heating + cooling + appliances) * np.exp(rng.normal(0, 0.08, records))
    columns: dict[str, Sequence[Any]] = {
        "temperature": temperature.round(1).tolist(),
        "humidity": humidity.round(2).tolist(),
        "sunshine": sunshine.round(1).tolist(),
        "day": (day + 1.0).tolist(),
        "weekday": [DAYS[k] for k in weekday],
        "kind": [KINDS[k] for k in kind],
        "area": area.round(0).tolist(),
        "age": age.round(0).tolist(),
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return rows, energy.round(2), building
