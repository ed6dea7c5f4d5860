"""How strongly an image activates a stage of a vision backbone, and the gradient in its pixels.

Each step along the gradient of a piecewise linear network can amplify rounding errors tenfold and
more, and float32 rounding differs between backends. So everything is computed in float64 here,
for any dtype of the backbone.

Shapes: `H` and `W` of the backbone's images, `C` channels of a stage.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.arguments import check_integer
from kft.keras_internals import (
    attention_settings,
    autocast,
    float64_is_kept,
    set_attention_settings,
    sublayers_of,
    torch_device,
)

_ALONE = threading.RLock()


class Activation:
    """Activation of a stage by a tile, and its gradient in the tile's pixels.

    The activation is the mean square of all channels, or the mean of one channel, over all
    positions or tokens. The tile is normalised here as by the backbone's encoder, so the gradient
    is in units of pixels. Only the stages up to the chosen one are computed, in inference mode: no
    weight and no statistic changes.

    Args:
        backbone: A vision backbone of kft, or a `kft.Model` with one.
        stage: Name of one of its stages.
        squares: True for the mean square of channels, False for their mean.

    Attributes:
        channels: Number of channels C.
        tile: Size (H, W).
        value_range: Value range of the backbone, for `read_pixels`.

    Raises:
        TypeError: The backbone takes no images.
        ValueError: There is no such stage, or it has quantized weights.
    """

    def __init__(self, backbone: keras.Model, stage: str, squares: bool) -> None:
        backbone = getattr(backbone, "backbone", backbone)
        stages = stages_of(backbone)
        if stage not in stages:
            raise ValueError(
                f"stage must be one of {', '.join(stages)} of {backbone.name}, received {stage!r}."
            )
        self.stages = backbone.stages[: stages.index(stage) + 1]
        self._layers = [layer for each in self.stages for layer in sublayers_of(each)]
        if rounded := [layer.path for layer in self._layers if layer.quantization_mode]:
            raise ValueError(
                f"{backbone.name} has quantized weights, for example in {rounded[0]}, which have "
                f"no gradient: use the backbone before `quantize`."
            )
        self.stage, self.squares, self.tile = stage, squares, tuple(backbone.image_size)
        self.dtype = _precision()
        self.statistics = [
            (np.float32(x) / 255).astype(self.dtype)
            for x in (backbone.encode.mean, backbone.encode.std)
        ]
        self.value_range = backbone.encode.value_range
        self.channels = self.stages[-1].output.shape[-1]
        # A functional stage would cast its input to its own dtype; a function of the same tensors
        # does not.
        self._parts = [
            keras.Function(stage.input, stage.output) if isinstance(stage, keras.Model) else stage
            for stage in self.stages
        ]
        self._gradient = _gradient_of(self._value, [w for s in self.stages for w in s.variables])

    def weights(self, channel: int | None = None) -> np.ndarray:
        """Return the weight of each channel in the activation.

        Args:
            channel: Number of the only channel with a weight; None for equal weights.

        Returns:
            Float array (C,) with a sum of 1.

        Raises:
            ValueError: There is no such channel.
        """
        if channel is None:
            return np.full(self.channels, 1 / self.channels, self.dtype)
        number = check_integer(f"channel of stage {self.stage}", channel, 0, self.channels - 1)
        return np.eye(self.channels, dtype=self.dtype)[number]

    def __call__(self, tile: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Compute the activation and its gradient.

        Args:
            tile: Float array (H, W, 3) from 0 to 1.
            weights: Float array (C,), as returned by `weights`.

        Returns:
            The activation, and its gradient (H, W, 3), float64 if the device supports it.
        """
        with _computed_in(self.dtype, self._layers):
            value, gradient = self._gradient(np.array(tile[None], self.dtype), weights)
        return float(value), gradient[0]

    def _value(self, pixels: Any, weights: Any) -> Any:
        """Compute the activation () of pixels (1, H, W, 3) with weights (C,)."""
        mean, std = self.statistics
        x = ops.divide(ops.subtract(pixels, mean), std)
        with autocast(self.dtype):  # weights are cast when they are read
            for part in self._parts:
                x = part(x)  # at the end (1, positions ..., C)
        x = ops.square(x) if self.squares else x
        return ops.mean(ops.sum(ops.multiply(x, weights), axis=-1))


def _gradient_of(
    value: Callable[[Any, Any], Any], variables: Sequence[keras.Variable]
) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
    """Make a function that computes a value and its gradient in the pixels, as numpy arrays.

    This is the only code here that differs between backends.

    Args:
        value: Function (pixels, weights) -> scalar tensor, made of Keras operations.
        variables: Keras variables that it reads.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        def gradient(pixels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
            with torch.enable_grad():
                pixels = ops.convert_to_tensor(pixels).requires_grad_()
                mean_activation = value(pixels, ops.convert_to_tensor(weights))
                # For the pixels only: the gradients stored with weights stay as they are.
                (slope,) = torch.autograd.grad(mean_activation, pixels, allow_unused=True)
            slope = torch.zeros_like(pixels) if slope is None else slope
            return mean_activation.detach().cpu().numpy(), slope.cpu().numpy()

        return gradient
    if backend == "jax":
        import jax

        def of_state(pixels: Any, weights: Any, state: Any) -> Any:
            # As arguments: as constants of the program XLA would fold them for minutes.
            with keras.StatelessScope(state_mapping=list(zip(variables, state, strict=True))):
                return value(pixels, weights)

        compiled = jax.jit(jax.value_and_grad(of_state))
        return lambda pixels, weights: tuple(
            map(np.asarray, compiled(pixels, weights, [v.value for v in variables]))
        )
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def of_tensors(pixels: Any, weights: Any) -> tuple[Any, Any]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            mean_activation = value(pixels, weights)
        slope = tape.gradient(
            mean_activation, pixels, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return mean_activation, slope

    return lambda pixels, weights: tuple(
        x.numpy() for x in of_tensors(tf.constant(pixels), tf.constant(weights))
    )


def _precision() -> str:
    """Return float64, or float32 on Apple's graphics processors, which have no float64."""
    if keras.backend.backend() == "torch":
        return "float32" if torch_device() == "mps" else "float64"
    return "float64"


@contextmanager
def _computed_in(dtype: str, layers: Sequence[keras.layers.Layer]) -> Iterator[None]:
    """Let Keras compute `layers` in `dtype` instead of their own dtype.

    Their weights do not change. A lock admits one thread at a time; other threads that use Keras
    meanwhile may also compute in `dtype`.
    """
    with _ALONE:
        attentions = [x for x in layers if isinstance(x, keras.layers.MultiHeadAttention)]
        policies = [x.dtype_policy for x in layers]
        settings = [attention_settings(x) for x in attentions]
        general = keras.config.dtype_policy()
        try:
            for layer in layers:
                layer.dtype_policy = dtype
            for layer in attentions:
                # With a dropout rate, which is not applied at inference, Keras uses its own softmax
                # instead of JAX's, which is in float32. TensorFlow converts a Python number to
                # float32 first, but not an array.
                set_attention_settings(layer, 1.0, np.asarray(attention_settings(layer)[1]))
            keras.config.set_dtype_policy(dtype)  # for layers that others create when called
            with float64_is_kept(), _doubles():
                yield
        finally:
            keras.config.set_dtype_policy(general)
            for layer, policy in zip(layers, policies, strict=True):
                layer.dtype_policy = policy
            for layer, (rate, scale) in zip(attentions, settings, strict=True):
                set_attention_settings(layer, rate, scale)


def _doubles() -> AbstractContextManager[Any]:
    """Enable float64 on JAX; other backends have it always."""
    if keras.backend.backend() != "jax":
        return nullcontext()
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # its name before JAX 0.8

    return enable_x64()


def stages_of(backbone: keras.Model) -> list[str]:
    """List the names of the stages of a vision backbone, in order.

    Args:
        backbone: A vision backbone of kft, or a `kft.Model` with one.

    Returns:
        Names that `dream` and `feature_grid` accept as stages.

    Raises:
        TypeError: The backbone takes no images.
    """
    backbone = getattr(backbone, "backbone", backbone)
    if not hasattr(backbone, "image_size") or not hasattr(backbone, "stages"):
        raise TypeError(
            f"backbone must be a vision backbone of kft, which takes images, as of "
            f'kft.load("efficientnet_lite0"); received {getattr(backbone, "name", backbone)!r}, '
            f"a {type(backbone).__name__}."
        )
    return [stage.name for stage in backbone.stages]
