"""What all heads have in common: pooling over positions, and outputs that are classes or numbers.

Dense layers work in float32 under every dtype policy, so that outputs close to each other stay
distinct. The last layer starts from zero, so that the untrained head predicts the prior
(Dosovitskiy et al. 2021, section 3.2).

Shapes: `B` inputs in a batch, `L` positions, `D` width, `K` outputs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_fraction, check_integer
from kft.backbones.composite import Composite
from kft.data.numbers import marks
from kft.data.task import SCORED, Task
from kft.messages import count_of, shown
from kft.models.losses import AbsoluteError, CrossEntropy, SquaredError

MOST_OUTPUTS = 1_000_000
POOLINGS = ("mean", "cls", "max", "attention", "cls_and_mean")


class _OnPositions(Composite):
    """A layer that is called with features and a mask of positions."""

    def build_from_config(self, config: dict) -> None:
        """Build from the shapes in a saved model, where the mask may have its earlier name."""
        shapes = dict(config.get("shapes_dict") or {})
        if "residue_mask_shape" in shapes:
            shapes["position_mask_shape"] = shapes.pop("residue_mask_shape")
            config = {**config, "shapes_dict": shapes}
        super().build_from_config(config)


@keras.saving.register_keras_serializable("kft")
class Pooling(_OnPositions):
    """Pooling of the features of positions into one vector per input.

    Args:
        kind: "mean" over the positions that the mask marks; "max" over them; "cls", the first
            position, which ESM-2 and ViT reserve for the whole input; or "attention", a mean
            weighted by a learned score of each position (Bahdanau et al. 2015 with one layer),
            which starts as the plain mean; or "cls_and_mean", the first position and the mean over
            those marked, side by side, as the classifier of DINOv2 reads them.

    Call with float (B, L, D), or (B, height, width, D) whose pixels are the positions, and bool
    (B, L) or (B, height, width), or None for all positions;
    returns (B, D), or (B, 2 D) of "cls_and_mean". Features (B, D) are pooled already and are
    returned unchanged.

    Raises:
        ValueError: The kind is unknown, features have another rank, or "cls" or "cls_and_mean" is
            used with pixels, since no pixel is reserved for the whole image.

    Example:
        >>> features = np.array([[[1.0], [2.0], [6.0]]])
        >>> pooled = Pooling("max")(features, np.array([[True, True, False]]))
        >>> float(pooled[0, 0])
        2.0
    """

    def __init__(self, kind: str | None = "mean", **kwargs: Any):
        super().__init__(**kwargs)
        if kind not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, received {kind!r}.")
        self.kind = kind
        if kind == "attention":
            # Zero scores weight all positions alike. A bias would cancel in the softmax.
            score = keras.layers.Dense(
                1, use_bias=False, kernel_initializer="zeros", dtype=self.dtype_policy, name="score"
            )
            self.score = self.part(score)

    def build(
        self,
        features_shape: tuple[int | None, ...],
        position_mask_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights, if there are any."""
        rank = len(features_shape)
        if rank not in (2, 3, 4) or (rank == 4 and self.kind in ("cls", "cls_and_mean")):
            raise ValueError(
                f"{self.kind!r} pooling takes features (B, D), (B, L, D) or, unless it has 'cls', "
                f"(B, height, width, D), received shape {tuple(features_shape)}."
            )
        if self.kind == "attention" and rank > 2:
            self.score.build((features_shape[0], None, features_shape[-1]))
        self.built = True

    def call(self, features: Any, position_mask: Any = None) -> Any:
        """Pool features (B, L, D) into (B, D)."""
        if len(features.shape) == 2:
            return features
        if len(features.shape) == 4:  # (B, height, width, D) -> (B, L, D)
            batch, height, width, depth = ops.shape(features)
            features = ops.reshape(features, (batch, height * width, depth))
            if position_mask is not None:
                position_mask = ops.reshape(position_mask, (batch, height * width))
        if self.kind == "cls":
            return features[:, 0]
        if position_mask is None:
            position_mask = ops.ones(ops.shape(features)[:2], dtype="bool")
        if self.kind == "max":
            marked = ops.expand_dims(position_mask, -1)  # (B, L, 1)
            return ops.max(ops.where(marked, features, -float("inf")), axis=1)
        if self.kind == "attention":
            scores = ops.cast(self.score(features)[..., 0], "float32")  # (B, L)
            scores = ops.where(position_mask, scores, -1e9)
            # A softmax; Keras's warns of inputs with one position.
            weights = ops.exp(scores - ops.logsumexp(scores, axis=-1, keepdims=True))
        else:
            marked = ops.cast(position_mask, "float32")
            weights = marked / ops.sum(marked, axis=-1, keepdims=True)  # (B, L)
        pooled = ops.einsum("bl,bld->bd", ops.cast(weights, features.dtype), features)
        if self.kind == "cls_and_mean":
            return ops.concatenate([features[:, 0], pooled], axis=-1)  # (B, 2 D)
        return pooled

    def width(self, features_shape: tuple[int | None, ...]) -> int | None:
        """Return the size of the last axis of the output."""
        width = features_shape[-1]
        twice = self.kind == "cls_and_mean" and len(features_shape) > 2
        return 2 * width if twice and width else width

    def compute_output_spec(self, features: Any, position_mask: Any = None) -> Any:
        """Return the shape of the output."""
        shape = features.shape[0], self.width(features.shape)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "kind": self.kind}


class Head(_OnPositions):
    """Base class of heads: pooling (if any), dropout, then a dense layer.

    A head of your own derives from it, or from the head that is most similar. It states its `task`,
    makes a loss and metrics, and is registered with `keras.saving.register_keras_serializable`.

    Attributes:
        task: The `kft.data.Task` of the predictions, or its name.
        pools: Whether positions are pooled; False for a head with outputs at each position.
        activation: Name of the activation of the last layer, None for a linear one.
        units: Number K of outputs per record or residue.
        pooling: The `Pooling` layer, or None.

    Example:
        >>> import kft
        >>> @keras.saving.register_keras_serializable("example")
        ... class Positive(kft.heads.Regression):
        ...     activation = "softplus"
        >>> tuple(Positive(targets=2)(np.ones((1, 5, 8))).shape)
        (1, 2)
    """

    task: Task
    pools = True
    activation: str | None = None
    last = "dense"  # the attribute that holds the last layer

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "task" in vars(cls):
            cls.task = Task.named(cls.task, f"{cls.__name__}.task", SCORED)

    def __init__(
        self,
        units: int,
        pooling: str | None = None,
        dropout: float = 0.0,
        kernel_initializer: Any = "zeros",
        name: str = "head",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.units = check_integer("the number of outputs", units, 1, MOST_OUTPUTS)
        check_fraction("dropout", dropout)
        if pooling is not None and not self.pools:
            raise ValueError(f"{type(self).__name__} has no pooling, received {pooling!r}.")
        if self.pools:
            self.pooling = self.part(Pooling(pooling, dtype=self.dtype_policy, name="pooling"))
        else:
            self.pooling = None
        self.dropout = keras.layers.Dropout(dropout, seed=0, dtype="float32", name="dropout")
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        last = _dense(units, self.last, self.kernel_initializer, self.activation)
        setattr(self, self.last, self.part(last))

    @property
    def per_residue(self) -> bool:
        """Whether every position, or every pair of positions, has its own outputs."""
        return self.task.level in ("residue", "pair")

    @property
    def is_linear(self) -> bool:
        """Whether a linear probe can solve for the head: pooling, one dense layer, and no more.

        Classes need a softmax, labels a sigmoid, and numbers no activation.
        """
        usual: dict[str, str | None] = {"class": "softmax", "labels": "sigmoid", "number": None}
        if self.task.target not in usual:
            return False
        as_here = type(self).call in (Head.call, NumbersHead.call)
        return as_here and self.last == "dense" and self.activation == usual[self.task.target]

    def build(
        self,
        features_shape: tuple[int | None, ...],
        position_mask_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights."""
        if self.per_residue and len(features_shape) < 3:
            raise ValueError(
                f"{type(self).__name__} predicts for every position of features (B, L, D), "
                f"received shape {tuple(features_shape)}."
            )
        if self.pooling is not None and not self.pooling.built:
            self.pooling.build(features_shape, position_mask_shape)
        width = features_shape[-1] if self.pooling is None else self.pooling.width(features_shape)
        getattr(self, self.last).build((features_shape[0], width))
        self.built = True

    def call(self, features: Any, position_mask: Any = None, training: bool | None = None) -> Any:
        """Compute outputs (B, K), or (B, L, K) per residue, from features (B, L, D)."""
        if self.pooling is not None:
            features = self.pooling(features, position_mask)
        features = self.dropout(ops.cast(features, "float32"), training=training)
        return getattr(self, self.last)(features)

    def compute_output_spec(
        self, features: Any, position_mask: Any = None, training: bool | None = None
    ) -> Any:
        """Return the shape of the output."""
        kept = features.shape[:-1] if self.per_residue else features.shape[:1]
        return keras.KerasTensor((*kept, self.units), dtype="float32")

    def make_loss(
        self, class_weight: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> keras.losses.Loss:
        """Make the loss that suits the head, see `kft.losses`.

        Args:
            class_weight: K numbers, the weight of each class (of labels, of a 1 of each).
            label_smoothing: Fraction of each target that is spread over all classes.

        Raises:
            ValueError: A value is out of range, or given to a head that predicts numbers.
        """
        raise NotImplementedError

    def make_metrics(self) -> list[keras.metrics.Metric]:
        """Make new metrics, for `weighted_metrics` of `compile` if the head is per residue."""
        raise NotImplementedError

    def check_targets(self, targets: Any, where: str = "") -> None:
        """Raise an error if the targets do not fit the head.

        Args:
            targets: Targets of a split: an array, or a list of arrays with one entry per residue.
            where: Text that the error adds to "the targets", such as " of the valid split".

        Raises:
            TypeError: Targets are text.
            ValueError: Targets are per record for a head that predicts per residue, have another
                number of columns, or are not classes or labels.
        """
        rows = isinstance(targets, list) and np.ndim(targets[0]) > 0
        several = hasattr(targets[0], "__len__")  # of one record: residues, or several targets
        if self.per_residue != rows and (self.per_residue or not several):
            raise ValueError(
                f"{type(self).__name__} takes one target per {self.task.level}; the targets{where} "
                f"have another form: give a list with one array per record."
            )
        if rows:
            targets = np.concatenate([np.ravel(row) for row in targets])
        values = np.asarray(targets)
        if values.dtype.kind in "US":
            raise TypeError(
                f"the targets{where} must be numbers, received text such as "
                f"{shown(str(values.flat[0]))}: number the classes 0, 1, ... "
                f"(numpy.unique(labels, return_inverse=True) does)."
            )
        self._check_values(values, where)

    def _check_values(self, values: np.ndarray, where: str) -> None:
        """Check that values (n,), or (n, K) per record, are classes, labels or K numbers."""
        if not self.task.has_classes:
            self._check_numbers(values, where)
            return
        highest = self.units - 1 if self.task.target == "class" else 1
        if values.dtype.kind not in "biu" or values.min() < 0 or values.max() > highest:
            raise ValueError(
                f"{type(self).__name__} with {self.units} {self.task.outputs_are} takes integers "
                f"from 0 to {highest}; the targets{where} are {values.dtype} from {values.min()} "
                f"to {values.max()}."
            )

    def _check_numbers(self, values: np.ndarray, where: str) -> None:
        """Check that there are as many numbers per record as the head predicts, none a mark."""
        if self.per_residue:
            return  # `kft.batches` compares shapes, `Split` refuses marks
        width = 1 if values.ndim == 1 else values.shape[1]
        if width != self.units:
            argument = f": give targets={width} to the head" if hasattr(self, "targets") else ""
            raise ValueError(
                f"{type(self).__name__} predicts "
                f"{count_of(self.units, 'number')}; the targets{where} have "
                f"{width} each{argument}."
            )
        for column in np.reshape(values, (len(values), -1)).T:
            for mark, count in marks(column).items():
                warnings.warn(
                    f"The targets{where} are {mark:g} for {count:,} of {len(values):,} records, "
                    f"far from all others. If this marks missing values, leave these records out.",
                    stacklevel=5,
                )

    def get_config(self) -> dict:
        """Return the arguments."""
        config = {
            "pooling": self.pooling.kind if self.pools else None,
            "dropout": self.dropout.rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**super().get_config(), **config}


class ClassesHead(Head):
    """Base class of heads that predict probabilities of K classes, exactly one of them true."""

    activation: str | None = "softmax"

    def __init__(self, classes: int, **kwargs: Any):
        classes = check_integer("classes", classes, 2, MOST_OUTPUTS)
        super().__init__(classes, **kwargs)
        self.classes = classes

    def make_loss(
        self, class_weight: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> keras.losses.Loss:
        """Make a `kft.losses.CrossEntropy`, see `Head.make_loss`."""
        return CrossEntropy(class_weight, label_smoothing)

    def make_metrics(self) -> list[keras.metrics.Metric]:
        """Make the accuracy."""
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "classes": self.classes}


class NumbersHead(Head):
    """Base class of heads that predict K numbers in the unit of the targets."""

    def __init__(
        self,
        targets: int = 1,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        **kwargs: Any,
    ):
        targets = check_integer("targets", targets, 1, MOST_OUTPUTS)
        mean, std = _one_or_each("mean", mean, targets), _one_or_each("std", std, targets)
        if np.min(std) <= 0:
            raise ValueError(
                f"std must be above 0, received {std}: take the standard deviation of the training "
                f"targets."
            )
        super().__init__(targets, **kwargs)
        self.targets, self.mean, self.std = targets, mean, std

    def call(self, features: Any, position_mask: Any = None, training: bool | None = None) -> Any:
        """Compute numbers in the unit of the targets."""
        mean, std = (ops.convert_to_tensor(x, dtype="float32") for x in (self.mean, self.std))
        return mean + std * super().call(features, position_mask, training)

    def make_loss(
        self, class_weight: Sequence[float] | None = None, label_smoothing: float = 0.0
    ) -> keras.losses.Loss:
        """Make a `kft.losses.SquaredError` in units of `std`; there are no classes to weight."""
        if class_weight is not None or label_smoothing:
            raise ValueError(
                f"{type(self).__name__} has no classes: leave out class_weight and label_smoothing."
            )
        return SquaredError(self.std)

    def make_metrics(self) -> list[keras.metrics.Metric]:
        """Make the mean absolute error, in the unit of the targets."""
        return [AbsoluteError()]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        mean, std = (list(x) if isinstance(x, tuple) else x for x in (self.mean, self.std))
        return {**super().get_config(), "targets": self.targets, "mean": mean, "std": std}


def _dense(
    units: int, name: str, initializer: Any, activation: str | None = None
) -> keras.layers.Dense:
    return keras.layers.Dense(
        units, activation, kernel_initializer=initializer, dtype="float32", name=name
    )


def _one_or_each(name: str, value: Any, targets: int) -> float | tuple[float, ...]:
    """Return a float, or a tuple of one float for each target."""
    try:
        array = np.asarray(value, dtype="float64")
    except (TypeError, ValueError):  # text, or lists of different lengths
        array = np.full(0, np.nan)
    if array.shape not in ((), (targets,)) or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be one finite number, or {targets}, one for each target, received "
            f"{shown(value)}."
        )
    return tuple(array.tolist()) if array.ndim else float(array)
