"""`plan`: what a run would do, its expected time and memory; nothing is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import keras

from kft.comparison.estimating import estimate
from kft.comparison.expecting import expected_seconds, measured_step
from kft.comparison.progress import duration
from kft.finetuning.models import described, new_model, strategy_of
from kft.finetuning.reading import filled, read_data
from kft.finetuning.settings import Settings
from kft.params import parameters


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        data: Name of the data.
        task: What is predicted.
        records: Number of records of each split.
        notes: What was guessed and noted when the data were read.
        backbone: Name of the backbone.
        strategy: Name of the strategy.
        trainable: Number of trainable parameters in the last phase.
        parameters: Number of all parameters.
        seconds: Expected time of the training, compilation included.
        memory: Peak memory of this process in a training step on the longest records, in bytes.
    """

    data: str
    task: str
    records: dict[str, int]
    notes: tuple[str, ...]
    backbone: str
    strategy: str
    trainable: int
    parameters: int
    seconds: float
    memory: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {count:,}" for name, count in self.records.items())
        rows = {
            "data": f"{self.data}, {self.task}: {sizes}",
            "backbone": self.backbone,
            "strategy": f"{self.strategy}, {self.trainable:,} of {self.parameters:,} parameters",
            "time": f"about {duration(self.seconds)} on this machine",
            "memory": f"about {self.memory / 2**30:.1f} GiB",
        }
        lines = [*self.notes, *(f"{name:<10}{text}" for name, text in rows.items())]
        return "\n".join(lines)


def plan(settings: Settings) -> Plan:
    """Read the data, train one batch, and estimate time and memory of a run.

    Args:
        settings: As for `finetune`.

    Returns:
        `Plan`.

    Raises:
        ValueError: As for `finetune`.
    """
    data = filled(read_data(settings)[0])
    about = described(settings, data)
    model = new_model(about)
    head = keras.saving.deserialize_keras_object(about["head"])
    step = measured_step(model.backbone, head, data, settings.batch_size, settings.max_length)
    strategy: Any = strategy_of(about)
    if settings.epochs is not None and hasattr(strategy, "epochs"):
        strategy = replace(strategy, epochs=settings.epochs)
    model = strategy.prepare(model)
    phases = strategy.phases(model)
    seconds = expected_seconds(step, model, phases).of(1)
    phases[-1].mark(model)
    table = parameters(model)
    needed = estimate(model, settings.batch_size, step.residues)
    return Plan(
        data.name,
        str(data.task),
        {part: len(records) for part, records in data.splits.items()},
        data.notes,
        about["backbone"],
        about["strategy"],
        table.trainable,
        table.total,
        seconds,
        needed.memory,
    )
