"""Tasks: what a target is, whether it is per record, residue, pair or pixel, and its scores."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import numpy as np

Target = Literal["class", "labels", "number", "angles", "objects"]
Level = Literal["record", "residue", "pair", "pixel"]

KINDS: dict[str, tuple[Target, Level]] = {
    "classification": ("class", "record"),
    "multilabel": ("labels", "record"),
    "regression": ("number", "record"),
    "residue_classification": ("class", "residue"),
    "residue_regression": ("number", "residue"),
    "torsions": ("angles", "residue"),
    "contacts": ("class", "pair"),
    "distogram": ("class", "pair"),
    "segmentation": ("objects", "pixel"),
}
LOSSES = {
    "class": "CrossEntropy",
    "labels": "BinaryCrossEntropy",
    "number": "SquaredError",
    "angles": "VonMises",
}
OUTPUTS = {
    "class": "classes",
    "labels": "labels",
    "number": "numbers",
    "angles": "numbers",
    "objects": "objects",
}
ANGLES = ("phi", "psi", "omega")  # the targets of "torsions"
PAIR_METRICS = {
    "contacts": ("precision at L", "precision at L/2", "precision at L/5", "log loss"),
    "distogram": ("likelihood", "log loss", "accuracy"),
}


class Task(StrEnum):
    """A kind of prediction; it compares equal to, and prints as, its name.

    Raises:
        ValueError: The name is unknown; the message lists the names.

    Example:
        >>> Task("residue_regression").level
        'residue'
        >>> Task("multilabel") == "multilabel"
        True
    """

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    RESIDUE_CLASSIFICATION = "residue_classification"
    RESIDUE_REGRESSION = "residue_regression"
    TORSIONS = "torsions"
    CONTACTS = "contacts"
    DISTOGRAM = "distogram"
    SEGMENTATION = "segmentation"

    def __repr__(self) -> str:
        return repr(self.value)

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"task must be one of {', '.join(cls)}, received {value!r}.")

    @classmethod
    def of(cls, target: Target, level: Level) -> Task:
        """Return the task with this kind of target at this level.

        Args:
            target: As the property.
            level: As the property.

        Raises:
            ValueError: There is no such task.

        Example:
            >>> Task.of("class", "residue")
            'residue_classification'
        """
        for task in cls:  # of pairs there are two of a kind, and contacts are the first
            if (task.target, task.level) == (target, level):
                return task
        raise ValueError(f"There is no task with target {target!r} at level {level!r}.")

    @classmethod
    def named(cls, value: str, argument: str, allowed: Iterable[Task] | None = None) -> Task:
        """Return the task of this name, or raise an error that names the argument.

        Args:
            value: Name of the task.
            argument: What the error calls the argument.
            allowed: The tasks that are possible here; None for those whose targets are columns of
                tables: all but "segmentation", which `kft.segmentation` trains and scores, and
                those of structures.

        Raises:
            ValueError: The name is not one of those allowed.

        Example:
            >>> Task.named("regression", "task")
            'regression'
        """
        if allowed is None:
            allowed = OF_TABLES
        names = list(allowed)
        if value not in names:
            hint = ""
            if value == cls.SEGMENTATION:
                hint = " Use kft.segmentation for it."
            elif value in list(SCORED):
                hint = " kft.fit, kft.predict, kft.evaluate and kft.compare take it."
            raise ValueError(
                f"{argument} must be one of {', '.join(names)}, received {value!r}.{hint}"
            )
        return cls(value)

    @property
    def target(self) -> Target:
        """What one target is.

        "class": one of K classes. "labels": K labels, any number of them true. "number": one
        or several real numbers. "angles": phi, psi and omega in radians. "objects": any number of
        objects, each with the pixels it covers.
        """
        return KINDS[self][0]

    @property
    def level(self) -> Level:
        """Where targets are given: "record", "residue", "pair" (of residues) or "pixel"."""
        return KINDS[self][1]

    @property
    def per_residue(self) -> bool:
        """Whether every residue has its own target."""
        return self.level == "residue"

    @property
    def per_pair(self) -> bool:
        """Whether every pair of residues has its own target."""
        return self.level == "pair"

    @property
    def per_record(self) -> Task:
        """The task with the same kind of target, given once per record; of angles, a regression."""
        return Task.of("number" if self.target == "angles" else self.target, "record")

    @property
    def has_classes(self) -> bool:
        """Whether outputs have names: those of classes or labels."""
        return self.target in ("class", "labels")

    @property
    def loss(self) -> str:
        """Name of the loss in `kft.losses` that suits the task.

        Raises:
            ValueError: The task is "segmentation", whose masks `kft.segmentation` trains.
        """
        if self.target not in LOSSES:
            raise ValueError(f"{self} has no loss in kft.losses: kft.segmentation trains it.")
        return LOSSES[self.target]

    @property
    def outputs_are(self) -> str:
        """What the outputs are called in messages: "classes", "labels", "numbers" or "objects"."""
        return OUTPUTS[self.target]

    def metrics(self, outputs: int = 1) -> tuple[str, ...]:
        """Return the names of the metrics that `kft.evaluation.score` gives, the headline first.

        Args:
            outputs: Number of classes or labels.

        Example:
            >>> Task("classification").metrics(2)
            ('AUROC', 'accuracy', 'MCC')
        """
        if self.target == "objects":
            return ("SA", "TP/(TP+FP+FN)")
        if self.target == "angles":
            return ("mean cosine", *(f"MAE {angle}" for angle in ANGLES))
        if self.per_pair:
            return PAIR_METRICS[self]
        if self.target == "number":
            return ("Spearman", "Pearson", "RMSE", "MAE")
        if self.target == "labels":
            return ("macro AUROC", "macro F1", "subset accuracy")
        if outputs == 2:
            return ("AUROC", "accuracy", "MCC")
        return ("accuracy", "MCC", "macro F1", "macro AUROC")

    def headline(self, outputs: int = 1) -> str:
        """Return the name of the metric that the task is judged by.

        Args:
            outputs: Number of classes or labels.

        Example:
            >>> Task("regression").headline()
            'Spearman'
        """
        return self.metrics(outputs)[0]

    def baselines(self, input_kind: str) -> tuple[str, ...]:
        """Return the names of the functions in `kft.baselines` that can predict the task.

        Args:
            input_kind: "sequence", "pair", "image" or "table", see `kft.data.inputs.InputKind`.

        Example:
            >>> Task("residue_regression").baselines("sequence")
            ('constant', 'window')
        """
        if self.target == "objects":
            return ()  # kft.segmentation.baselines has its own
        if self.per_pair:
            return ("separation", "residue_pairs")
        if self.per_residue:
            return ("constant", "window")
        if input_kind == "sequence":
            return ("constant", "one_hot", "composition", "kmers")
        if input_kind == "pair":
            return ("constant", "degree", "similar_pairs", "pair_composition")
        if input_kind == "table":
            return ("constant", "linear", "random_forest", "gradient_boosting")
        return ("constant", "nearest_neighbours") if input_kind == "image" else ("constant",)

    def outputs(self, targets: np.ndarray | list[np.ndarray], classes: tuple | None = None) -> int:
        """Return how many numbers a model predicts for each record, residue, pair or pixel.

        Args:
            targets: Those of a split.
            classes: Names of the classes or labels, or None.

        Example:
            >>> Task("regression").outputs(np.zeros((10, 3)))
            3
        """
        if classes is not None:
            return len(classes)
        if self.target == "objects":
            return 1
        if self.target == "angles":
            return 2 * len(ANGLES)  # a sine and a cosine of each
        one = targets[0] if self.per_residue else np.asarray(targets)
        return one.shape[1] if np.ndim(one) > 1 else 1


# Tasks of `kft.fit`, `kft.predict`, `kft.evaluate` and `kft.compare`.
SCORED = tuple(task for task in Task if task is not Task.SEGMENTATION)
# Those whose targets can be columns of tables: all but the tasks of structures.
OF_TABLES = tuple(task for task in SCORED if not (task.per_pair or task.target == "angles"))
