"""Heads with one answer per input: a class, labels, or numbers."""

import keras

from kft.models.heads.base import _Classes, _Head, _Numbers
from kft.models.losses import BinaryCrossEntropy


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
