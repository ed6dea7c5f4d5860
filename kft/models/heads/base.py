"""What all heads share: pooling over positions, and classes or numbers as answers.

Dense layers work in float32 under every dtype policy: answers near each other must stay apart. The
last starts from zero, and so the head from the prior (Dosovitskiy et al. 2021, section 3.2).

Shapes: `B` inputs in a batch, `L` positions, `D` width, `K` outputs.
"""

import keras
import numpy as np
from keras import ops

from kft.backbones.composite import Composite
from kft.models.losses import AbsoluteError, CrossEntropy, SquaredError

POOLINGS = ("mean", "cls", "max", "attention")


@keras.saving.register_keras_serializable("kft")
class Pooling(Composite):
    """Turns features of positions into one vector per input.

    Args:
        kind: "mean" over the positions that count; "max" over them; "cls", the first position,
            which ESM-2 and ViT reserve for the whole input; or "attention", a mean weighted by a
            learned score of each position (Bahdanau et al. 2015 with one layer; starts as the
            plain mean).

    Call with float (B, L, D), or (B, height, width, D) whose pixels are the positions, and bool
    (B, L) or (B, height, width), or None where every position counts; returns (B, D). Features
    (B, D) are pooled already and come back as they are.

    Raises:
        ValueError: unknown kind, features of another rank, or "cls" of pixels, of which none is
            reserved for the whole.

    Example:
        >>> features = np.array([[[1.0], [2.0], [6.0]]])
        >>> pooled = Pooling("max")(features, np.array([[True, True, False]]))
        >>> float(pooled[0, 0])
        2.0
    """

    def __init__(self, kind="mean", **kwargs):
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

    def build(self, features_shape, residue_mask_shape=None):
        rank = len(features_shape)
        if rank not in (2, 3, 4) or (rank == 4 and self.kind == "cls"):
            raise ValueError(
                f"{self.kind!r} pooling takes features (B, D), (B, L, D) or, unless it is 'cls', "
                f"(B, height, width, D), received shape {tuple(features_shape)}."
            )
        if self.kind == "attention" and rank > 2:
            self.score.build((features_shape[0], None, features_shape[-1]))
        self.built = True

    def call(self, features, residue_mask=None):
        if len(features.shape) == 2:
            return features
        if len(features.shape) == 4:  # (B, height, width, D) -> (B, L, D)
            batch, height, width, depth = ops.shape(features)
            features = ops.reshape(features, (batch, height * width, depth))
            if residue_mask is not None:
                residue_mask = ops.reshape(residue_mask, (batch, height * width))
        if self.kind == "cls":
            return features[:, 0]
        if residue_mask is None:
            residue_mask = ops.ones(ops.shape(features)[:2], dtype="bool")
        if self.kind == "max":
            counted = ops.expand_dims(residue_mask, -1)  # (B, L, 1)
            return ops.max(ops.where(counted, features, -float("inf")), axis=1)
        if self.kind == "attention":
            scores = ops.cast(self.score(features)[..., 0], "float32")  # (B, L)
            weights = ops.softmax(ops.where(residue_mask, scores, -1e9), axis=-1)
        else:
            counted = ops.cast(residue_mask, "float32")
            weights = counted / ops.sum(counted, axis=-1, keepdims=True)  # (B, L)
        return ops.einsum("bl,bld->bd", ops.cast(weights, features.dtype), features)

    def compute_output_spec(self, features, residue_mask=None):
        shape = features.shape[0], features.shape[-1]
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


class _Head(Composite):
    """Pooling where there is one, dropout where there is any, then a dense layer.

    Attributes:
        task: what is answered, as in `kft.data.Dataset.task`.
        per_residue: whether every position has an answer of its own.
        pooling: the `Pooling` layer, or None.
    """

    task = None
    per_residue = False
    pools = True
    activation = None
    last = "dense"  # what the layer that answers is called

    def __init__(
        self, units, pooling=None, dropout=0.0, kernel_initializer="zeros", name="head", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.units = units
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

    def build(self, features_shape, residue_mask_shape=None):
        if self.per_residue and len(features_shape) < 3:
            raise ValueError(
                f"{type(self).__name__} answers for every position of features (B, L, D), received "
                f"shape {tuple(features_shape)}."
            )
        if self.pooling is not None and not self.pooling.built:
            self.pooling.build(features_shape, residue_mask_shape)
        getattr(self, self.last).build((features_shape[0], features_shape[-1]))
        self.built = True

    def call(self, features, residue_mask=None, training=None):
        if self.pooling is not None:
            features = self.pooling(features, residue_mask)
        features = self.dropout(ops.cast(features, "float32"), training=training)
        return getattr(self, self.last)(features)

    def compute_output_spec(self, features, residue_mask=None, training=None):
        kept = features.shape[:-1] if self.per_residue else features.shape[:1]
        return keras.KerasTensor((*kept, self.units), dtype="float32")

    def make_loss(self, class_weight=None, label_smoothing=0.0):
        """The keras.losses.Loss that this head learns by, see `kft.losses`.

        Args:
            class_weight: K numbers, what each class (of labels, a 1 of each) counts.
            label_smoothing: share of the truth that is spread over all classes.

        Raises:
            ValueError: values that cannot be, or any for a head that answers with numbers.
        """
        raise NotImplementedError

    def make_metrics(self):
        """Fresh keras.metrics.Metric objects; `weighted_metrics` where per residue."""
        raise NotImplementedError

    def get_config(self):
        config = {
            "pooling": self.pooling.kind if self.pools else None,
            "dropout": self.dropout.rate,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
        return {**super().get_config(), **config}


class _Classes(_Head):
    """Answers with probabilities of K classes, of which one is true."""

    activation = "softmax"

    def __init__(self, classes, **kwargs):
        if classes < 2:
            raise ValueError(f"classes must be at least 2, received {classes}.")
        super().__init__(classes, **kwargs)
        self.classes = classes

    def make_loss(self, class_weight=None, label_smoothing=0.0):
        return CrossEntropy(class_weight, label_smoothing)

    def make_metrics(self):
        return [keras.metrics.SparseCategoricalAccuracy(name="accuracy")]

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


class _Numbers(_Head):
    """Answers with K numbers in the unit of the targets."""

    def __init__(self, targets=1, mean=0.0, std=1.0, **kwargs):
        mean, std = (_each(name, v, targets) for name, v in (("mean", mean), ("std", std)))
        if targets < 1 or np.min(std) <= 0:
            raise ValueError(
                f"{type(self).__name__} needs targets >= 1, std > 0; received {targets=}, {std=}."
            )
        super().__init__(targets, **kwargs)
        self.targets, self.mean, self.std = targets, mean, std

    def call(self, features, residue_mask=None, training=None):
        mean, std = (ops.convert_to_tensor(x, dtype="float32") for x in (self.mean, self.std))
        return mean + std * super().call(features, residue_mask, training)

    def make_loss(self, class_weight=None, label_smoothing=0.0):
        if class_weight is not None or label_smoothing:
            raise ValueError(
                f"{type(self).__name__} has no classes: leave out class_weight and label_smoothing."
            )
        return SquaredError(self.std)

    def make_metrics(self):
        return [AbsoluteError()]

    def get_config(self):
        mean, std = (list(x) if isinstance(x, tuple) else x for x in (self.mean, self.std))
        return {**super().get_config(), "targets": self.targets, "mean": mean, "std": std}


def _dense(units, name, initializer, activation=None):
    return keras.layers.Dense(units, activation, True, initializer, dtype="float32", name=name)


def _each(name, value, targets):
    """A float, or a tuple of one float for each target."""
    array = np.asarray(value, dtype="float64")
    if array.shape not in ((), (targets,)) or not np.isfinite(array).all():
        raise ValueError(
            f"{name} must be one finite number, or {targets}, one for each target, received "
            f"{name}={value}."
        )
    return tuple(array.tolist()) if array.ndim else float(array)
