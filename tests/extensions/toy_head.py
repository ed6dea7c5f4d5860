"""A head of one's own: it predicts a count, the mean of a Poisson distribution."""

import keras

import kft


@keras.saving.register_keras_serializable("toy")
class CountHead(kft.heads.Head):
    """Head that predicts one count per input.

    Args:
        pooling: See `kft.heads.Pooling`.
        **kwargs: Further arguments of `kft.heads.Head`: dropout, kernel_initializer, name.

    Call with float (B, L, D) and bool (B, L) or None; returns float32 (B, 1) above 0.
    """

    task = "regression"
    activation = "exponential"

    def __init__(self, pooling="mean", **kwargs):
        super().__init__(1, pooling=pooling, **kwargs)

    def make_loss(self, class_weight=None, label_smoothing=0.0):
        if class_weight is not None or label_smoothing:
            raise ValueError("Counts have no classes: leave out class_weight and label_smoothing.")
        return keras.losses.Poisson()

    def make_metrics(self):
        return [keras.metrics.MeanAbsoluteError(name="mae")]
