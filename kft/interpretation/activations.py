"""How strongly a stage of a vision backbone answers to an image, and the gradient in its pixels.

Where a network is full of kinks, steps along a gradient amplify rounding tenfold and more each, and
float32 rounds elsewhere on every backend. So all is computed in float64 here, whatever the backbone
itself computes in.

Shapes: `H` and `W` of the image, which are the backbone's own, `C` channels of a stage.
"""

import operator
import threading
from contextlib import contextmanager, nullcontext

import keras
import numpy as np
from keras import ops

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
    """How strongly a stage answers to a tile, and the gradient in the tile's pixels.

    The mean square of all channels, or the mean of one channel, over all positions or tokens. The
    tile is normalised in here as the backbone's encoder does it, so that the gradient is in units
    of pixels. Only stages up to the chosen one are computed, as at inference: no weight and no
    statistic changes.

    Args:
        backbone: a kft vision backbone, or a `kft.Model` with one.
        stage: name of one of its stages.
        squares: the mean square of channels; or, without it, their mean.

    Attributes:
        channels: C.
        tile: (H, W).
        value_range: of the backbone, for `read_pixels`.

    Raises:
        TypeError: a backbone that takes no images.
        ValueError: no such stage, or one with quantized weights.
    """

    def __init__(self, backbone, stage, squares):
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
                f"{backbone.name} has quantized weights, {rounded[0]} for one, through which no "
                f"gradient is followed: dream with the backbone before `quantize`."
            )
        self.stage, self.squares, self.tile = stage, squares, tuple(backbone.image_size)
        self.dtype = _precision()
        self.statistics = [
            (np.float32(x) / 255).astype(self.dtype)
            for x in (backbone.encode.mean, backbone.encode.std)
        ]
        self.value_range = backbone.encode.value_range
        self.channels = self.stages[-1].output.shape[-1]
        # A functional stage would round its input to the dtype that it was made with; the function
        # of the same tensors does not.
        self._parts = [
            keras.Function(stage.input, stage.output) if isinstance(stage, keras.Model) else stage
            for stage in self.stages
        ]
        self._gradient = _gradient_of(self._value, [w for s in self.stages for w in s.variables])

    def weights(self, channel=None):
        """What each channel counts, float (C,): all alike, or one alone.

        Raises:
            ValueError: no such channel.
        """
        if channel is None:
            return np.full(self.channels, 1 / self.channels, self.dtype)
        try:
            number = operator.index(channel)
        except TypeError:
            number = -1
        if not 0 <= number < self.channels or isinstance(channel, bool):
            raise ValueError(
                f"channel must be an integer from 0 to {self.channels - 1} in stage {self.stage}, "
                f"received {channel!r}."
            )
        return np.eye(self.channels, dtype=self.dtype)[number]

    def __call__(self, tile, weights):
        """Value and gradient.

        Args:
            tile: float array (H, W, 3) from 0 to 1.
            weights: float array (C,), of `weights`.

        Returns:
            float, and an array (H, W, 3), float64 where the device knows it.
        """
        with _computed_in(self.dtype, self._layers):
            value, gradient = self._gradient(np.array(tile[None], self.dtype), weights)
        return float(value), gradient[0]

    def _value(self, pixels, weights):
        """(1, H, W, 3) and (C,) -> ()."""
        mean, std = self.statistics
        x = ops.divide(ops.subtract(pixels, mean), std)
        with autocast(self.dtype):  # weights are cast when they are read
            for part in self._parts:
                x = part(x)  # at the end (1, positions ..., C)
        x = ops.square(x) if self.squares else x
        return ops.mean(ops.sum(ops.multiply(x, weights), axis=-1))


def _gradient_of(value, variables):
    """(pixels, weights) -> value and its gradient in the pixels, as numpy arrays.

    The one place where backends differ.

    Args:
        value: function of two tensors -> a scalar tensor, of Keras operations.
        variables: Keras variables that it reads.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        def gradient(pixels, weights):
            with torch.enable_grad():
                pixels = ops.convert_to_tensor(pixels).requires_grad_()
                found = value(pixels, ops.convert_to_tensor(weights))
                # Of the pixels alone: nothing is added to what weights may hold.
                (slope,) = torch.autograd.grad(found, pixels, allow_unused=True)
            slope = torch.zeros_like(pixels) if slope is None else slope
            return found.detach().cpu().numpy(), slope.cpu().numpy()

        return gradient
    if backend == "jax":
        import jax

        def of_state(pixels, weights, state):
            # As arguments: within the program they would be constants, which XLA folds for minutes.
            with keras.StatelessScope(state_mapping=list(zip(variables, state, strict=True))):
                return value(pixels, weights)

        compiled = jax.jit(jax.value_and_grad(of_state))
        return lambda pixels, weights: tuple(
            map(np.asarray, compiled(pixels, weights, [v.value for v in variables]))
        )
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def of_tensors(pixels, weights):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(pixels)
            found = value(pixels, weights)
        slope = tape.gradient(found, pixels, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return found, slope

    return lambda pixels, weights: tuple(
        x.numpy() for x in of_tensors(tf.constant(pixels), tf.constant(weights))
    )


def _precision():
    """float64, and float32 on Apple's graphics processors, which know no other."""
    if keras.backend.backend() == "torch":
        return "float32" if torch_device() == "mps" else "float64"
    return "float64"


@contextmanager
def _computed_in(dtype, layers):
    """Meanwhile Keras computes `layers` in `dtype`, whatever they were made for.

    Their weights stay as they are. One dream at a time: what other threads compute with Keras
    meanwhile may be computed in `dtype`, too.
    """
    with _ALONE:
        attentions = [x for x in layers if isinstance(x, keras.layers.MultiHeadAttention)]
        policies = [x.dtype_policy for x in layers]
        told = [attention_settings(x) for x in attentions]
        general = keras.config.dtype_policy()
        try:
            for layer in layers:
                layer.dtype_policy = dtype
            for layer in attentions:
                # Asked for dropout, which it does not do at inference, Keras takes the softmax of
                # its own, and not JAX's, which is one of float32. Of a number TensorFlow makes
                # float32 first, of an array not.
                set_attention_settings(layer, 1.0, np.asarray(attention_settings(layer)[1]))
            keras.config.set_dtype_policy(dtype)  # of layers that others make when they are called
            with float64_is_kept(), _doubles():
                yield
        finally:
            keras.config.set_dtype_policy(general)
            for layer, policy in zip(layers, policies, strict=True):
                layer.dtype_policy = policy
            for layer, (rate, scale) in zip(attentions, told, strict=True):
                set_attention_settings(layer, rate, scale)


def _doubles():
    """Meanwhile JAX knows float64, as other backends do anyway."""
    if keras.backend.backend() != "jax":
        return nullcontext()
    import jax

    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # its name before JAX 0.8

    return enable_x64()


def stages_of(backbone):
    """Names of the stages of a vision backbone, in order.

    Raises:
        TypeError: a backbone that takes no images.
    """
    backbone = getattr(backbone, "backbone", backbone)
    if not hasattr(backbone, "image_size") or not hasattr(backbone, "stages"):
        raise TypeError(
            f"backbone must be a vision backbone of kft, which takes images, as of "
            f'kft.load("efficientnet_lite0"); received {getattr(backbone, "name", backbone)!r}, '
            f"a {type(backbone).__name__}."
        )
    return [stage.name for stage in backbone.stages]
