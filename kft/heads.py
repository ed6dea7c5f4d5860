"""Heads: what turns a backbone's output into an answer.

A head is a Keras layer called with the backbone's features and, where the backbone has one, the
mask of positions that count. "Chopping the head" is replacing it. A head says itself what it
answers (`task`, `per_residue`), by which loss it learns and by which metrics it is watched:

    model.compile("adam", head.make_loss(), metrics=head.make_metrics())           # per record
    model.compile("adam", head.make_loss(), weighted_metrics=head.make_metrics())  # per residue

Dense layers work in float32 under every dtype policy: answers near each other must stay apart. The
last starts from zero, and so the head from the prior (Dosovitskiy et al. 2021, section 3.2).

Shapes: `B` inputs in a batch, `L` positions, `D` width, `K` outputs.
"""

import keras
import numpy as np
from keras import ops

from kft.backbones.composite import Composite
from kft.losses import AbsoluteError, BinaryCrossEntropy, CrossEntropy, SquaredError

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


# What heads share -------------------------------------------------------------------------------


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


# One answer per input ---------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class Classification(_Classes):
    """Answers with the probabilities of K classes.

    Args:
        classes: number K of classes, at least 2; targets are integers 0 ... K-1.
        pooling: see `Pooling`.
        dropout: share of the features that is set to zero in training.
        kernel_initializer: what the dense layer starts from.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K), rows sum to 1.

    Raises:
        ValueError: fewer than two classes, or an unknown pooling.

    Example:
        >>> ops.convert_to_numpy(Classification(4)(np.ones((1, 5, 8)))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
    """

    task = "classification"

    def __init__(self, classes, pooling="mean", **kwargs):
        super().__init__(classes, pooling=pooling, **kwargs)


@keras.saving.register_keras_serializable("kft")
class MultiLabel(_Head):
    """Answers with the probabilities of K labels, of which any number may be true.

    Args:
        labels: number K of labels, at least 1; targets are 0 or 1, (B, K).
        pooling, dropout, kernel_initializer: see `Classification`.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K), each 0 to 1.

    Raises:
        ValueError: no label, or an unknown pooling.

    Example:
        >>> ops.convert_to_numpy(MultiLabel(2)(np.ones((1, 5, 8)))).tolist()
        [[0.5, 0.5]]
    """

    task = "multilabel"
    activation = "sigmoid"

    def __init__(self, labels, pooling="mean", **kwargs):
        if labels < 1:
            raise ValueError(f"labels must be at least 1, received {labels}.")
        super().__init__(labels, pooling=pooling, **kwargs)
        self.labels = labels

    def make_loss(self, class_weight=None, label_smoothing=0.0):
        return BinaryCrossEntropy(class_weight, label_smoothing)

    def make_metrics(self):
        return [keras.metrics.BinaryAccuracy(name="accuracy")]

    def get_config(self):
        return {**super().get_config(), "labels": self.labels}


@keras.saving.register_keras_serializable("kft")
class Regression(_Numbers):
    """Answers with numbers in the unit of the targets.

    Args:
        targets: how many numbers K per input.
        mean, std: the dense layer's answer is multiplied by `std` and added to `mean`, each one
            number or one per target: those of the training targets, whose mean is the prior.
        pooling, dropout, kernel_initializer: see `Classification`.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K).

    Raises:
        ValueError: no target, a `std` that is not positive, a `mean` or `std` of another size, or
            an unknown pooling.

    Example:
        >>> head = Regression(targets=2, mean=[310.0, -8.5], std=[12.0, 1.5])
        >>> ops.convert_to_numpy(head(np.ones((1, 5, 8)))).tolist()
        [[310.0, -8.5]]
    """

    task = "regression"

    def __init__(self, targets=1, mean=0.0, std=1.0, pooling="mean", **kwargs):
        super().__init__(targets, mean, std, pooling=pooling, **kwargs)


# One answer per position ------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class ResidueClassification(_Classes):
    """Answers at every position with the probabilities of K classes.

    Args:
        classes, dropout, kernel_initializer: see `Classification`.

    Call with float (B, L, D) and bool (B, L) or None, which is not looked at: what counts is said
    by the weights of `kft.batches`. Returns float32 (B, L, K), whose last axis sums to 1.

    Raises:
        ValueError: fewer than two classes, or features without positions.

    Example:
        >>> tuple(ResidueClassification(3)(np.ones((2, 5, 8))).shape)
        (2, 5, 3)
    """

    task = "residue_classification"
    per_residue = True
    pools = False


@keras.saving.register_keras_serializable("kft")
class ResidueRegression(_Numbers):
    """Answers at every position with numbers in the unit of the targets.

    Args:
        targets, mean, std: see `Regression`.
        dropout, kernel_initializer: see `Classification`.

    Call with float (B, L, D) and bool (B, L) or None, which is not looked at; returns float32
    (B, L, K).

    Raises:
        ValueError: as `Regression`, or features without positions.

    Example:
        >>> tuple(ResidueRegression(mean=0.5)(np.ones((2, 5, 8))).shape)
        (2, 5, 1)
    """

    task = "residue_regression"
    per_residue = True
    pools = False


# Hugging Face's forms ---------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kft")
class Drawn(keras.initializers.Initializer):
    """Normal with deviation 1 / sqrt(inputs), drawn by numpy: the same on every backend.

    Args:
        seed: int.
    """

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        values = np.random.default_rng(self.seed).standard_normal(shape) / np.sqrt(shape[0])
        return ops.convert_to_tensor(values, dtype=dtype)

    def get_config(self):
        return {"seed": self.seed}


@keras.saving.register_keras_serializable("kft")
class EsmClassification(_Classes):
    """The head of transformers' `EsmForSequenceClassification`, with a softmax on top.

    First token, dropout, dense D x D, tanh, dropout, dense D x K (`EsmClassificationHead` of
    transformers 5, `models/esm/modeling_esm.py`; the layers have its names).

    Args:
        classes, dropout, kernel_initializer: see `Classification`.
        seed: from which `dense` is drawn, normal with deviation 1 / sqrt(D).

    Call with float (B, L, D), whose first position is taken, or (B, D); returns float32 (B, K).

    Raises:
        ValueError: fewer than two classes, or a dropout outside [0, 1].

    Example:
        >>> tuple(EsmClassification(3, dropout=0.1)(np.ones((2, 5, 8))).shape)
        (2, 3)
    """

    task = "classification"
    pools = False
    last = "out_proj"

    def __init__(self, classes, dropout=0.0, seed=0, **kwargs):
        super().__init__(classes, dropout=dropout, **kwargs)
        self.seed = seed

    def build(self, features_shape, residue_mask_shape=None):
        width = features_shape[-1]
        self.dense = self.part(_dense(width, "dense", Drawn(self.seed), "tanh"))
        self.dense.build((features_shape[0], width))
        super().build(features_shape, residue_mask_shape)

    def call(self, features, residue_mask=None, training=None):
        if len(features.shape) == 3:
            features = features[:, 0]
        features = self.dropout(ops.cast(features, "float32"), training=training)
        return super().call(self.dense(features), None, training)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


@keras.saving.register_keras_serializable("kft")
class EsmTokenClassification(ResidueClassification):
    """The head of transformers' `EsmForTokenClassification`, with a softmax on top.

    Dropout, then a dense layer at every position (transformers 5, `models/esm/modeling_esm.py`):
    a `ResidueClassification` under another name, with the same arguments.
    """


# The head that fits -----------------------------------------------------------------------------


def for_data(data, pooling="mean"):
    """Builds the head that answers a data set.

    Args:
        data: a `kft.data.Dataset`, or what has its `task`, `classes` and `train`. A regression
            starts from mean and deviation of the training targets that count.
        pooling: see `Pooling`, for tasks with one answer per record.

    Returns:
        the head, by `data.task`.

    Raises:
        ValueError: a task without a head, an unknown pooling, or targets that are all alike.

    Example:
        >>> from kft.data import load
        >>> for_data(load("amp")).classes
        2
    """
    makers = {
        "classification": lambda: Classification(len(data.classes), pooling),
        "multilabel": lambda: MultiLabel(np.shape(data.train.targets)[1], pooling),
        "regression": lambda: Regression(**_scale(data.train.targets), pooling=pooling),
        "residue_classification": lambda: ResidueClassification(len(data.classes)),
        "residue_regression": lambda: ResidueRegression(**_scale(_counted(data.train))),
    }
    if data.task not in makers:
        raise ValueError(f"data.task must be one of {', '.join(makers)}, received {data.task!r}.")
    return makers[data.task]()


def _scale(targets):
    """How many targets there are, and the mean and deviation of each."""
    targets = np.asarray(targets, dtype="float64")
    mean, std = targets.mean(axis=0), targets.std(axis=0)
    return {"targets": np.size(mean), "mean": mean.tolist(), "std": std.tolist()}


def _counted(split):
    rows, masks = split.targets, getattr(split, "masks", None)
    if masks is not None:
        rows = [row[mask] for row, mask in zip(rows, masks, strict=True)]
    return np.concatenate(rows)
