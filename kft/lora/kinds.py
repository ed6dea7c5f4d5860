"""Layers that can hold adapters, and the matrix that each is treated as.

The kernel of an `EinsumDense` is flattened to inputs x outputs, so that heads of an attention layer
do not share one factor; that of a `Conv2D` to (height, width, channels) x filters, as in PEFT; an
`Embedding` looks up rows of its table.

Shapes: `I` inputs and `O` outputs of a flattened kernel, `r` rank.
"""

import functools
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kft.backbones.token_table import TokenTable
from kft.keras_internals import change_class, own_trainable_weights
from kft.lora.layers import Adapted


@keras.saving.register_keras_serializable("kft")
class LoRADense(Adapted, keras.layers.Dense):
    """A Keras `Dense` that holds adapters."""

    base_class = keras.layers.Dense


@keras.saving.register_keras_serializable("kft")
class LoRAEinsumDense(Adapted, keras.layers.EinsumDense):
    """A Keras `EinsumDense` that holds adapters; its kernel is flattened to inputs x outputs.

    The heads of an attention layer do not share one factor: B has columns for each.
    """

    base_class = keras.layers.EinsumDense

    def _indices(self) -> tuple[str, str, str, str, str]:
        """Return the three parts of "inputs,kernel->outputs", and the indices of I and of O."""
        given, _, outputs = self.equation.partition("->")
        inputs, kernel = given.split(",")
        contracted = "".join(c for c in kernel if c not in outputs)
        made = "".join(c for c in kernel if c in outputs and c not in inputs)
        return inputs, kernel, outputs, contracted, made

    @classmethod
    def why_not(cls, layer: keras.layers.EinsumDense) -> str | None:
        """Return why an EinsumDense is not a matrix of inputs x outputs; None if it is one."""
        _, kernel, _, contracted, made = cls._indices(layer)
        if len(contracted + made) < len(kernel):  # an index of the inputs and the outputs
            return f"its equation {layer.equation!r} is not a product of inputs with one matrix"
        return None

    @classmethod
    def sizes_of(cls, layer: keras.layers.EinsumDense) -> tuple[int, int]:
        _, kernel, _, contracted, _ = cls._indices(layer)
        sizes = dict(zip(kernel, layer.kernel.shape, strict=True))
        inputs = math.prod(sizes[c] for c in contracted)
        return inputs, math.prod(sizes.values()) // inputs

    def kernel_order(self) -> list[int]:
        """Return the order of the kernel's axes in which inputs come before outputs."""
        _, kernel, _, contracted, made = self._indices()
        return [kernel.index(c) for c in contracted + made]

    def _flattened(self, matrix: Any) -> Any:
        return ops.reshape(ops.transpose(matrix, self.kernel_order()), self.sizes)

    def unflattened(self, flat: np.ndarray) -> np.ndarray:
        order, shape = self.kernel_order(), np.array(self._matrix_variable().shape)
        return np.reshape(flat, shape[order]).transpose(np.argsort(order))

    def _product(self, inputs: Any, matrix: Any) -> Any:
        return ops.einsum(self.equation, inputs, matrix)

    def _shape_of(self, indices: str) -> list[int]:
        kernel = self._indices()[1]
        return [self._matrix_variable().shape[kernel.index(c)] for c in indices]

    def _down(self, inputs: Any, a: Any) -> Any:
        x, _, outputs, contracted, made = self._indices()
        kept = "".join(c for c in outputs if c not in made)
        a = ops.reshape(a, [*self._shape_of(contracted), -1])  # (contracted ..., r)
        return ops.einsum(
            f"{x},{contracted}{self._rank_index}->{kept}{self._rank_index}", inputs, a
        )

    def _up(self, h: Any, b: Any) -> Any:
        _, _, outputs, _, made = self._indices()
        kept = "".join(c for c in outputs if c not in made)
        b = ops.reshape(b, [-1, *self._shape_of(made)])  # (r, made ...)
        return ops.einsum(f"{kept}{self._rank_index},{self._rank_index}{made}->{outputs}", h, b)

    @property
    def _rank_index(self) -> str:
        return next(c for c in "rstuvwxyzabcdefghijklmnopq" if c not in self.equation)

    def _columns(self, vector: Any) -> Any:
        _, _, outputs, _, made = self._indices()
        # (made ...) in the order of the outputs, with ones for the indices in between
        after = outputs[min(outputs.index(c) for c in made) :]
        vector = ops.reshape(vector, self._shape_of(made))
        vector = ops.transpose(vector, [made.index(c) for c in after if c in made])
        sizes = iter(vector.shape)
        return ops.reshape(vector, [next(sizes) if c in made else 1 for c in after])


@keras.saving.register_keras_serializable("kft")
class LoRAConv2D(Adapted, keras.layers.Conv2D):
    """A Keras `Conv2D` that holds adapters: A is a convolution to r channels, B one of 1 x 1."""

    base_class = keras.layers.Conv2D

    @staticmethod
    def why_not(layer: keras.layers.Conv2D) -> str | None:
        """Return why a Conv2D cannot hold adapters; None if it can."""
        return "its channels are in groups" if layer.groups > 1 else None

    def _product(self, inputs: Any, matrix: Any) -> Any:
        return self.convolution_op(inputs, matrix)

    def _down(self, inputs: Any, a: Any) -> Any:
        return self.convolution_op(inputs, ops.reshape(a, [*self.kernel.shape[:-1], -1]))

    def _up(self, h: Any, b: Any) -> Any:
        if self.data_format == "channels_last":
            return ops.matmul(h, b)
        return ops.einsum("brhw,ro->bohw", h, b)

    def _columns(self, vector: Any) -> Any:
        last = self.data_format == "channels_last"
        return vector if last else ops.reshape(vector, (-1, 1, 1))

    def _finished(self, outputs: Any, bias: Any) -> Any:
        return super()._finished(outputs, None if bias is None else self._columns(bias))


class _AdaptedTable(Adapted):
    matrix = "embeddings"

    def _drawn(
        self, inputs: int, outputs: int, rank: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((inputs, rank)), rng.standard_normal((rank, outputs))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Return the rows of the table, with those of the active adapters."""
        self._check_unmerged_in_training(training)
        outputs = super(Adapted, self).call(inputs)
        if not self.merged:
            for weight, adapter in self._parts():
                outputs = self._with(adapter, weight, inputs, outputs, False)
        return outputs

    def _down(self, inputs: Any, a: Any) -> Any:
        # A product for its gradient, see `TokenTable`.
        return ops.take(a * 1.0, inputs, axis=0)


@keras.saving.register_keras_serializable("kft")
class LoRAEmbedding(_AdaptedTable, keras.layers.Embedding):
    """A Keras `Embedding` that holds adapters."""

    base_class = keras.layers.Embedding


@keras.saving.register_keras_serializable("kft")
class LoRATokenTable(_AdaptedTable, TokenTable):
    """A `TokenTable` that holds adapters; a tied head goes on reading the table without them."""

    base_class = TokenTable

    @property
    def tied(self) -> Any:
        return self.before_merging().get(self.embeddings.path, self.embeddings)


@keras.saving.register_keras_serializable("kft")
class LoRALayerNormalization(Adapted, keras.layers.LayerNormalization):
    """A Keras `LayerNormalization` whose adapters are biases alone, for bias="all"."""

    base_class = keras.layers.LayerNormalization

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Compute the outputs of the layer with the active biases."""
        self._check_unmerged_in_training(training)
        outputs = super(Adapted, self).call(inputs)
        if self.merged or not self._biases():
            return outputs
        return outputs + ops.cast(ops.subtract(self._bias(), self.beta), outputs.dtype)

    def _matrix_variable(self) -> None:
        return None

    def _bias_variable(self) -> keras.Variable:
        return self.beta

    @classmethod
    def sizes_of(cls, layer: keras.Layer) -> tuple[int, int]:
        return 0, 0


@keras.saving.register_keras_serializable("kft")
class LoRAWhole(Adapted):
    """A layer of any other class, whose adapters are copies of all its weights, see `whole`."""

    @classmethod
    def attach(cls, layer: keras.Layer) -> Adapted:
        """Turn a built layer of any class, in place, into one that holds copies of its weights."""
        change_class(layer, whole(layer.__class__))
        layer._start_adapters()
        return layer

    def _matrix_variable(self) -> None:
        return None

    def _bias_variable(self) -> None:
        return None

    @classmethod
    def sizes_of(cls, layer: keras.Layer) -> tuple[int, int]:
        return 0, 0

    def get_config(self) -> dict[str, Any]:
        """Return the config of the layer, and the class that it has without adapters."""
        # Keras's own layers are registered under the names of their classes.
        return {**super().get_config(), "of": keras.saving.get_registered_name(self.base_class)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> keras.Layer:
        name = config["of"]
        base = keras.saving.get_registered_object(name) or getattr(keras.layers, name)
        config = {key: value for key, value in config.items() if key != "of"}
        return base.from_config.__func__(whole(base), config)


@functools.cache
def whole(base: type[keras.Layer]) -> type[keras.Layer]:
    """Return the subclass of a class of layers that also holds copies of all weights."""
    of = {"base_class": base, "call": base.call, "__doc__": base.__doc__}
    made = type(f"LoRAWhole{base.__name__}", (LoRAWhole, base), of)
    # All are registered under one name; the config holds the class that it was made of.
    return keras.saving.register_keras_serializable("kft", "LoRAWhole")(made)


KINDS = (
    LoRADense,
    LoRAEinsumDense,
    LoRAConv2D,
    LoRAEmbedding,
    LoRATokenTable,
    LoRALayerNormalization,
)


def kind_of(layer: keras.Layer) -> type[Adapted] | None:
    """Return the class with adapters for a layer, or the layer's own if it has adapters.

    Args:
        layer: Any Keras layer.

    Returns:
        The class; None if there is none.
    """
    if isinstance(layer, Adapted):
        return type(layer)
    return next((kind for kind in KINDS if type(layer) is kind.base_class), None)


def sizes_of(layer: keras.Layer) -> tuple[int, int]:
    """Return (I, O) of a layer that can hold adapters.

    Args:
        layer: A built layer, with adapters or without.

    Raises:
        TypeError: There are no adapters for its class.
    """
    kind = kind_of(layer)
    if kind is None:
        raise TypeError(f"layer must be of a class that can hold adapters: {why_not(layer)}.")
    return kind.sizes_of(layer)


def bias_size(layer: keras.Layer) -> int:
    """Return the size of the bias of a layer, 0 if it has none."""
    own = [v for v in own_trainable_weights(layer) if v.name in ("bias", "beta")]
    return math.prod(own[0].shape) if own else 0


def why_not(layer: keras.Layer) -> str | None:
    """Return why a layer cannot hold adapters of rank r; None if it can."""
    kind = kind_of(layer)
    if kind is None or issubclass(kind, LoRALayerNormalization | LoRAWhole):
        known = ", ".join(k.base_class.__name__ for k in KINDS[:4])
        return f"it is a {type(layer).__name__}, and adapters are for {known}"
    if not layer.built:
        return "it is not built: nothing calls it"
    if getattr(layer, "lora_enabled", False):
        return "Keras's own enable_lora was called on it"
    mode = getattr(layer, "quantization_mode", None)
    if mode and not (mode == "int8" and kind in (LoRADense, LoRAEinsumDense)):
        return (
            f"it is quantized, a {kind.base_class.__name__} in {mode}, and adapters are for Dense "
            f"and EinsumDense in int8: add adapters before quantizing, which leaves layers with "
            f"adapters as they are, or leave it out with the argument filters of quantize"
        )
    return kind.why_not(layer) if hasattr(kind, "why_not") else None
