"""Heads with a prediction for every pair of positions.

A pair is described by what its two residues have in common: the sum and the product of projected
features, and how far they are apart in the sequence, as in the pair representation of AlphaFold
(Jumper et al. 2021, supplement 1.5 and 1.6: outer sum, relative position; outer product).

Differences from the reference: the projections of both residues are the same, so that the pair
(i, j) is predicted as (j, i), and only |i - j| is seen; nothing is passed between pairs.

Shapes: `B` inputs in a batch, `L` positions, `D` width, `P` width of a pair, `K` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_integer
from kft.data.separations import FARTHEST
from kft.data.task import Task
from kft.models.heads.base import ClassesHead, _dense
from kft.models.heads.hugging_face import Drawn


class PairsHead(ClassesHead):
    """Base class of heads that predict probabilities of K classes for every pair of positions.

    Args:
        classes: Number K of classes.
        prior: Probabilities (101, K) of the classes of pairs that are 0, 1, ... or at least 100
            positions apart, which the untrained head predicts; None for equal ones.
        width: Width P of a pair. The time and memory of a step grow with L * L * (P + K).
        seed: Integer from which the projections are drawn.
    """

    pools = False
    activation: str | None = None  # of the last layer: the softmax comes after the prior is added

    def __init__(
        self,
        classes: int,
        prior: Sequence[Sequence[float]] | None = None,
        width: int = 32,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(classes, **kwargs)
        self.width, self.seed = check_integer("width", width), check_integer("seed", seed, 0)
        # Products with rows of an identity are lookups, whose gradient is alike on all backends.
        self.sum = self.part(_dense(width, "sum", Drawn(seed)))
        self.product = self.part(_dense(width, "product", Drawn(seed + 1)))
        self.apart = self.part(_dense(width, "apart", Drawn(seed + 2)))
        self.prior = None if prior is None else np.asarray(prior, dtype="float64").tolist()
        if prior is not None and (
            np.shape(prior) != (FARTHEST + 1, self.classes) or np.min(prior) <= 0
        ):
            raise ValueError(
                f"prior must be probabilities above 0 of shape {(FARTHEST + 1, self.classes)}, "
                f"received an array of shape {np.shape(prior)}: kft.heads.for_data(data) counts "
                f"them."
            )

    def build(
        self,
        features_shape: tuple[int | None, ...],
        position_mask_shape: tuple[int | None, ...] | None = None,
    ) -> None:
        """Create the weights."""
        if len(features_shape) != 3:
            raise ValueError(
                f"{type(self).__name__} predicts for pairs of the positions of features (B, L, D), "
                f"received shape {tuple(features_shape)}."
            )
        for layer in (self.sum, self.product):
            layer.build((None, None, features_shape[-1]))
        self.apart.build((None, None, FARTHEST + 1))
        self.dense.build((None, None, None, self.width))
        self.built = True

    def call(self, features: Any, position_mask: Any = None, training: bool | None = None) -> Any:
        """Compute probabilities (B, L, L, K) from features (B, L, D)."""
        features = self.dropout(ops.cast(features, "float32"), training=training)
        sums, factors = self.sum(features), self.product(features)  # (B, L, P)
        place = ops.cumsum(ops.ones_like(features[0, :, 0]))  # (L,): also where L is not known yet
        apart = ops.abs(ops.expand_dims(place, 1) - ops.expand_dims(place, 0))  # (L, L)
        rows = ops.cast(ops.minimum(apart, FARTHEST), "int32")
        distance = ops.one_hot(rows, FARTHEST + 1, dtype="float32")  # (L, L, FARTHEST + 1)
        pairs = ops.expand_dims(sums, 2) + ops.expand_dims(sums, 1)
        pairs = pairs + ops.expand_dims(factors, 2) * ops.expand_dims(factors, 1)  # (B, L, L, P)
        pairs = ops.gelu(pairs + self.apart(distance))
        logits = self.dense(pairs)
        if self.prior is not None:
            logits = logits + ops.matmul(distance, np.log(self.prior).astype("float32"))
        return ops.softmax(logits, axis=-1)

    def compute_output_spec(
        self, features: Any, position_mask: Any = None, training: bool | None = None
    ) -> Any:
        """Return the shape of the output."""
        batch, length = features.shape[:2]
        return keras.KerasTensor((batch, length, length, self.units), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {**super().get_config(), "prior": self.prior, "width": self.width, "seed": self.seed}


@keras.saving.register_keras_serializable("kft", name="ContactsHead")  # ESM-2 has Contacts, too
class Contacts(PairsHead):
    """Head that predicts for every pair of positions whether they are in contact.

    Args:
        prior: Probabilities (101, 2) of the classes of pairs that are 0, 1, ... or at least 100
            positions apart, which the untrained head predicts; None for equal ones.
        width: Width of a pair. The time and memory of a step grow with its product with the square
            of the length.
        dropout: Fraction of the features that is set to zero in training.
        kernel_initializer: Initializer of the last layer.
        seed: Integer from which the projections are drawn.

    Call with float (B, L, D) and bool (B, L) or None, the mask, which is ignored, since the weights
    from `kft.batches` mark the pairs that have a target. Returns float32 (B, L, L, 2),
    probabilities of no contact and of a contact, the same for (i, j) and (j, i).

    Raises:
        ValueError: The width is below 1, the prior has another shape, or the features have no
            positions.

    Example:
        >>> tuple(Contacts()(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 5, 2)
    """

    task = Task.CONTACTS

    def __init__(self, **kwargs: Any):
        super().__init__(2, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        config = super().get_config()
        del config["classes"]
        return config


@keras.saving.register_keras_serializable("kft")
class Distogram(PairsHead):
    """Head that predicts the distance of every pair of positions, in bins.

    Args:
        classes: Number K of bins; those of `kft.structure.distogram` are 64.
        prior: As for `Contacts`, of shape (101, K).
        width: As for `Contacts`.
        dropout: As for `Contacts`.
        kernel_initializer: As for `Contacts`.
        seed: As for `Contacts`.

    Call with float (B, L, D) and bool (B, L) or None, as for `Contacts`. Returns float32
    (B, L, L, K), probabilities of the bins, the same for (i, j) and (j, i).

    Raises:
        ValueError: As for `Contacts`.

    Example:
        >>> tuple(Distogram()(keras.ops.ones((2, 5, 8))).shape)
        (2, 5, 5, 64)
    """

    task = Task.DISTOGRAM

    def __init__(self, classes: int = 64, **kwargs: Any):
        super().__init__(classes, **kwargs)
