"""`plan`: which trainings a comparison would run, their expected time and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from kft.comparison.expecting import expected_of, measured_step
from kft.comparison.progress import duration
from kft.comparison.study import methods_of, seeds_of
from kft.data import Dataset
from kft.messages import count_of
from kft.models import heads


@dataclass(frozen=True)
class Plan:
    """What a comparison would do.

    Attributes:
        data: Name of the data.
        task: What is predicted.
        records: Number of records of each split.
        trainings: Number of trainings of each strategy and control.
        each: Expected time of all trainings of each strategy or control, in seconds, compilation
            included.
        seconds: The sum.
        memory: Peak memory of this process in a step that trains all weights, in bytes.
    """

    data: str
    task: str
    records: dict[str, int]
    trainings: int
    each: dict[str, float]
    seconds: float
    memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {count:,}" for name, count in self.records.items())
        width = max(map(len, self.each))
        lines = [f"{self.data}, {self.task}: {sizes}"]
        lines += [f"{count_of(self.trainings, 'training')} of each method, expected to take"]
        lines += [f"  {name:<{width}}  {duration(seconds)}" for name, seconds in self.each.items()]
        lines += [f"about {duration(self.seconds)} in all, {self.memory / 2**30:.1f} GiB of memory"]
        return "\n".join(lines)


def plan(
    backbone: keras.Model,
    data: Dataset,
    strategies: Sequence | Mapping[str, Any] | None = None,
    seeds: int | Sequence[int] = 3,
    *,
    head: Callable[[Dataset], keras.layers.Layer] = heads.for_data,
    epochs: int | None = None,
    batch_size: int = 32,
    max_length: int | None = None,
    controls: bool = True,
) -> Plan:
    """Train one batch, and estimate what `compare` with the same arguments would take.

    Args:
        backbone: As for `compare`.
        data: A `kft.data.Dataset`.
        strategies: As for `compare`.
        seeds: As for `compare`.
        head: Function of `data` that returns a new head.
        epochs: As for `compare`.
        batch_size: As for `compare`.
        max_length: As for `compare`.
        controls: As for `compare`.

    Returns:
        `Plan`; trainings that are kept in a folder are counted as if they were not.

    Raises:
        ValueError: As for `compare`.
    """
    methods, trainings = methods_of(strategies, epochs, controls), len(seeds_of(seeds))
    step = measured_step(backbone, head(data), data, batch_size, max_length)
    each = {
        method.name: expected_of(method.strategy, step, backbone, head(data)).of(trainings)
        for method in methods
    }
    records = {part: len(rows) for part, rows in data.splits.items()}
    total = sum(each.values())
    return Plan(data.name, str(data.task), records, trainings, each, total, step.memory)
