"""Heads: what turns a backbone's output into an answer.

A head is a Keras layer called with the backbone's features and, where the backbone has one, the
mask of positions that count. "Chopping the head" is replacing it.

Shapes: `B` inputs in a batch, `L` positions, `D` width, `K` outputs.
"""

import keras
from keras import ops

POOLINGS = ("mean", "cls", "attention")


@keras.saving.register_keras_serializable("kft")
class Pooling(keras.layers.Layer):
    """Turns features of positions into one vector per input.

    Args:
        kind: "mean" over the positions that count; "cls", the first position, which ESM-2 and
            ViT reserve for the whole input; or "attention", a mean weighted by a learned score
            of each position (Bahdanau et al. 2015 with one layer; starts as the plain mean).

    Call with float (B, L, D) and bool (B, L), or None where every position counts; returns
    (B, D).

    Raises:
        ValueError: unknown kind.
    """

    def __init__(self, kind="mean", **kwargs):
        super().__init__(**kwargs)
        if kind not in POOLINGS:
            raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}, received {kind!r}.")
        self.kind = kind
        if kind == "attention":
            # Zero scores weight all positions alike. A bias would cancel in the softmax.
            self.score = keras.layers.Dense(
                1, use_bias=False, kernel_initializer="zeros", dtype=self.dtype_policy, name="score"
            )

    def build(self, features_shape, residue_mask_shape=None):
        if self.kind == "attention":
            self.score.build(features_shape)
        self.built = True

    def call(self, features, residue_mask=None):
        if self.kind == "cls":
            return features[:, 0]
        if residue_mask is None:
            residue_mask = ops.ones(ops.shape(features)[:2], dtype="bool")
        if self.kind == "attention":
            scores = ops.cast(self.score(features)[..., 0], "float32")  # (B, L)
            weights = ops.softmax(ops.where(residue_mask, scores, -1e9), axis=-1)
        else:
            counted = ops.cast(residue_mask, "float32")
            weights = counted / ops.sum(counted, axis=-1, keepdims=True)  # (B, L)
        return ops.einsum("bl,bld->bd", ops.cast(weights, features.dtype), features)

    def get_config(self):
        return {**super().get_config(), "kind": self.kind}


class _PooledHead(keras.layers.Layer):
    """Pooling, then one dense layer, zero-initialised (Dosovitskiy et al. 2021, section 3.2).

    The dense layer works in float32 under every policy: it is cheap, and answers near each
    other must stay apart.
    """

    default_loss = None  # what `kft.Model.compile` takes when no loss is given
    default_metrics = ()

    def __init__(self, units, pooling="mean", activation=None, name="head", **kwargs):
        super().__init__(name=name, **kwargs)
        self.pooling = Pooling(pooling, dtype=self.dtype_policy, name="pooling")
        self.dense = keras.layers.Dense(
            units, activation=activation, kernel_initializer="zeros", dtype="float32", name="dense"
        )

    def build(self, features_shape, residue_mask_shape=None):
        self.pooling.build(features_shape, residue_mask_shape)
        self.dense.build((features_shape[0], features_shape[-1]))
        self.built = True

    def call(self, features, residue_mask=None):
        return self.dense(ops.cast(self.pooling(features, residue_mask), "float32"))

    def compute_output_spec(self, features, residue_mask=None):
        return keras.KerasTensor((features.shape[0], self.dense.units), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "pooling": self.pooling.kind}


@keras.saving.register_keras_serializable("kft")
class Classification(_PooledHead):
    """Answers with the probabilities of K classes.

    Args:
        classes: number K of classes, at least 2; targets are integers 0 ... K-1.
        pooling: "mean", "cls" or "attention", see `Pooling`.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K), rows sum to 1.

    Raises:
        ValueError: fewer than two classes, or an unknown pooling.
    """

    default_loss = "sparse_categorical_crossentropy"
    default_metrics = ("accuracy",)

    def __init__(self, classes, pooling="mean", **kwargs):
        if classes < 2:
            raise ValueError(f"classes must be at least 2, received {classes}.")
        super().__init__(classes, pooling, activation="softmax", **kwargs)
        self.classes = classes

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable("kft")
class Regression(_PooledHead):
    """Answers with numbers in the unit of the targets.

    Args:
        targets: how many numbers K per input.
        mean, std: the dense layer's answer is multiplied by `std` and added to `mean`. Give those
            of the training targets, so that an untrained head predicts their mean.
        pooling: "mean", "cls" or "attention", see `Pooling`.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, K).

    Raises:
        ValueError: no target, a `std` that is not positive, or an unknown pooling.
    """

    default_loss = "mean_squared_error"
    default_metrics = ("mean_absolute_error",)

    def __init__(self, targets=1, mean=0.0, std=1.0, pooling="mean", **kwargs):
        if targets < 1 or not std > 0:
            raise ValueError(
                f"Regression needs targets >= 1 and std > 0, received {targets=}, {std=}."
            )
        super().__init__(targets, pooling, **kwargs)
        self.targets, self.mean, self.std = targets, float(mean), float(std)

    def call(self, features, residue_mask=None):
        return self.mean + self.std * super().call(features, residue_mask)

    def get_config(self):
        config = {"targets": self.targets, "mean": self.mean, "std": self.std}
        return {**super().get_config(), **config}
