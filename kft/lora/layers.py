"""Layers with low-rank adapters (LoRA, Hu et al. 2021).

References: Hu et al. 2021, "LoRA", arXiv:2106.09685, equation 3; Kalajdzievski 2023, "A rank
stabilization scaling factor", arXiv:2312.03732 (rsLoRA); Liu et al. 2024, "DoRA",
arXiv:2402.09353, equation 5; and `peft` 0.21, `tuners/lora`, with the same outputs.

A layer computes x W + b. With an adapter it computes x W + s (x A) B + b, s = alpha / r, and does
not compute A B in training. W is treated as a matrix, inputs x outputs: the kernel of an
`EinsumDense` or `Conv2D` is flattened, and an `Embedding` looks up rows of W. Of a layer that is
quantized to int8, W is what the stored integers stand for, int8 / scale: it is computed when it is
needed, forward and backward, and inputs are not quantized, as with the 8-bit base of QLoRA
(Dettmers et al. 2023, arXiv:2305.14314, equation 5).

For a layer that is trained in full, such as a head, an adapter has a copy of all its weights, as
PEFT's `modules_to_save` are. The copy of the active adapter is in the layer itself; those of the
others and of the base are kept as numpy arrays.

Differences from the reference: a bias that an adapter trains is a copy, so that without the adapter
the layer computes what it did before; the norm of W + s A B that DoRA divides by is computed
without A B; where several adapters are active, their copies are combined like their updates, while
PEFT takes one of them.

Shapes: `I` inputs and `O` outputs of a flattened kernel, `r` rank.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import keras
import numpy as np
from keras import ops

from kft.keras_internals import (
    change_class,
    dequantised,
    is_quantized,
    own_trainable_weights,
    own_weights,
    remove_seed_generator,
    remove_weight,
    set_untracked,
    unlocked,
)

if TYPE_CHECKING:  # what a mixin does not define is in the layer's class
    from keras import Layer as Mixin
else:
    Mixin = object


MOST_RANK = 65_536  # above the width of any model


@dataclass(frozen=True)
class Settings:
    """Settings of an adapter of one layer.

    Attributes:
        rank: r; 0 for an adapter that is a bias alone, or a copy of all weights.
        alpha: Numerator of the scale.
        dropout: Fraction of the inputs of A that are dropped in training.
        rslora: Whether the scale is alpha / sqrt(r) instead of alpha / r.
        dora: Whether the columns of W + s A B have trained magnitudes.
        bias: Whether the adapter has its own bias.
        full: Whether the adapter is a copy of all weights of the layer, as for a head.
        prefix: Prefix of the names of modules in the model that its file was made for; None for an
            adapter that was not read from a file.
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    bias: bool = False
    full: bool = False
    prefix: str | None = field(default=None, compare=False)

    @property
    def scale(self) -> float:
        """Factor s of the product A B."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(eq=False)
class Adapter:
    """An adapter of one layer: its settings and its variables, None for those it does not have.

    Attributes:
        settings: Its `Settings`.
        a: A, float32 (I, r).
        b: B, float32 (r, O).
        magnitude: Magnitudes of DoRA, float32 (O,).
        bias: Bias that replaces the layer's own.
        full: Numpy arrays that replace all weights of the layer, as they were when the adapter was
            last active; `Adapted.full_values` returns the present ones.
    """

    settings: Settings
    a: keras.Variable | None = None
    b: keras.Variable | None = None
    magnitude: keras.Variable | None = None
    bias: keras.Variable | None = None
    full: list[np.ndarray] | None = None

    @property
    def variables(self) -> dict[str, keras.Variable]:
        """The variables by part: "a", "b", "magnitude", "bias"."""
        parts = {part: getattr(self, part) for part in ("a", "b", "magnitude", "bias")}
        return {part: variable for part, variable in parts.items() if variable is not None}


class Adapted(Mixin):
    """Mixin with which a Keras layer holds adapters; comes before the layer's class.

    The layer's own weights are not trainable, even if `trainable` is set to True; the active
    adapters are trainable if the layer is. An adapter that is a copy of all weights replaces them
    while it is active, and is trainable; a sum of several is not trainable, since it belongs to no
    single adapter.

    Args:
        *args: Arguments of the layer's class.
        adapters: {name: settings}, as `get_config` returns them.
        active: {name: weight}, as `get_config` returns it.
        merged: Whether the weights that are loaded next are merged ones.
        **kwargs: Arguments of the layer's class.

    Attributes:
        adapters: {name: `Adapter`}.
        active: {name: weight} of the active adapters.
        merged: Whether W holds the active adapters.
    """

    matrix = "kernel"  # the attribute that holds W
    base_class: type  # the layer's class without adapters

    adapters: dict[str, Adapter]
    active: dict[str, float]

    path: str
    compute_dtype: str

    _from_config: tuple[dict[str, dict], dict[str, float], bool]  # adapters, active, merged
    _before: dict[str, np.ndarray] | None  # weights before merging; {} if they are not known
    _in_place: dict[str, float]  # the adapters whose copies of all weights are in the layer
    _base: list[np.ndarray] | None  # the base's weights while such copies are in the layer
    _drops: keras.random.SeedGenerator  # only where an adapter has dropout

    def __init__(
        self,
        *args: Any,
        adapters: dict[str, dict] | None = None,
        active: dict[str, float] | None = None,
        merged: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self._start_adapters()
        set_untracked(self, _from_config=(adapters or {}, active or {}, merged))

    def build(self, input_shape: Any = None) -> None:
        """Create the layer's weights, and the adapters that its config names."""
        super().build(input_shape)
        self.restore_adapters(*self._from_config)

    def restore_adapters(
        self, adapters: dict[str, dict], active: dict[str, float], merged: bool
    ) -> None:
        """Add the adapters of a config, with values that a file will overwrite.

        Args:
            adapters: {name: settings}.
            active: {name: weight}.
            merged: Whether the weights that are loaded next are merged ones.
        """
        for name, settings in adapters.items():
            if name not in self.adapters:
                self.add_adapter(name, Settings(**settings), np.random.default_rng(0))
        self.use(active)
        if merged and self.active:  # W will be set to merged values
            set_untracked(self, _before={})

    @classmethod
    def attach(cls, layer: keras.Layer) -> "Adapted":
        """Turn a built layer, in place, into one that can hold adapters."""
        change_class(layer, cls)
        layer._start_adapters()
        return layer

    def _start_adapters(self) -> None:
        # Keras tracks the variables of adapters already.
        set_untracked(self, adapters={}, active={}, _before=None, _in_place={}, _base=None)

    def detach(self, merged: bool) -> None:
        """Turn the layer back into one of its class without adapters.

        Args:
            merged: Whether merged adapters stay in its weights.
        """
        trainable = self.trainable and all(x.settings.full for x in self.adapters.values())
        if merged:
            set_untracked(self, _in_place={}, _base=None)  # what is in place stays
        for name in list(self.adapters):
            self.remove_adapter(name)
        for name in ("adapters", "active", "_before", "_from_config", "_in_place", "_base"):
            self.__dict__.pop(name, None)
        change_class(self, self.base_class)
        # TensorFlow's layers ignore an attribute that is set to its present value.
        self.trainable = not trainable
        self.trainable = trainable

    # Adapters -----------------------------------------------------------------------------------

    def add_adapter(self, name: str, settings: Settings, rng: np.random.Generator) -> None:
        """Add an adapter that is not active yet and does not change the outputs.

        Args:
            name: Identifier.
            settings: Its settings.
            rng: Generator from which A is drawn (Kaiming uniform, as in PEFT).
        """
        with unlocked(self):
            self.adapters[name] = self._new_adapter(name, settings, rng)
        self._update_trainable()

    def _new_adapter(self, name: str, settings: Settings, rng: np.random.Generator) -> Adapter:
        adapter, (inputs, outputs) = Adapter(settings), self.sizes
        if settings.rank:
            a, b = self._drawn(inputs, outputs, settings.rank, rng)
            adapter.a = self._variable(f"lora_a_{name}", a)
            adapter.b = self._variable(f"lora_b_{name}", b)
        if settings.dora:
            norm = np.linalg.norm(self._flat(), axis=0)
            adapter.magnitude = self._variable(f"lora_magnitude_{name}", norm)
        if settings.bias:
            bias = ops.convert_to_numpy(self._bias_variable())
            adapter.bias = self._variable(f"lora_bias_{name}", bias)
        if settings.full:
            adapter.full = [value.copy() for value in self._base_arrays()]
        if settings.dropout and not hasattr(self, "_drops"):
            self._drops = keras.random.SeedGenerator(int(rng.integers(2**31)))
        return adapter

    def remove_adapter(self, name: str) -> None:
        """Remove an adapter, its variables and its copy of the weights."""
        if name in self._in_place:
            self._put_in_place({n: weight for n, weight in self._in_place.items() if n != name})
        for variable in self.adapters.pop(name).variables.values():
            remove_weight(self, variable)
        self.active.pop(name, None)
        self._update_trainable()
        if hasattr(self, "_drops") and not any(x.settings.dropout for x in self.adapters.values()):
            remove_seed_generator(self, self._drops)
            del self._drops

    def use(self, active: dict[str, float]) -> None:
        """Make adapters active, {name: weight}, and no others; unknown names are ignored."""
        active = {n: float(w) for n, w in active.items() if n in self.adapters}
        full = {n: w for n, w in active.items() if self.adapters[n].settings.full}
        self._put_in_place(full)
        set_untracked(self, active=active)
        self._update_trainable()

    def _variable(self, name: str, values: Any) -> keras.Variable:
        constant = keras.initializers.Constant(np.asarray(values, dtype="float32"))
        return self.add_weight(np.shape(values), constant, dtype="float32", name=name)

    def _drawn(
        self, inputs: int, outputs: int, rank: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        bound = inputs**-0.5
        return rng.uniform(-bound, bound, (inputs, rank)), np.zeros((rank, outputs))

    @property
    def trainable(self) -> bool:
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._mark(value)

    def _mark(self, value: bool) -> None:
        # A method: TensorFlow's layers ignore an attribute that is set to its present value.
        keras.layers.Layer.trainable.fset(self, value)
        self._update_trainable()

    def _update_trainable(self) -> None:
        """Freeze the variables that must not be trained, even if `trainable` is True."""
        trainable = {id(v) for n in self.active for v in self.adapters[n].variables.values()}
        if self._own_is_trainable():
            trainable |= {id(v) for v in self.base_weights()}
        for variable in own_trainable_weights(self):
            variable.trainable = bool(self.trainable) and id(variable) in trainable

    def _own_is_trainable(self) -> bool:
        """Whether the layer's own weights are a copy of one adapter, or the base of such copies."""
        if self.active:
            return self.active == self._in_place and list(self.active.values()) == [1.0]
        return bool(self.adapters) and all(x.settings.full for x in self.adapters.values())

    # Copies of all weights ------------------------------------------------------------------------

    def _put_in_place(self, wanted: dict[str, float]) -> None:
        """Put the weights of adapters, {name: weight}, into the layer; without any, the base's."""
        if wanted == self._in_place:
            return
        now = self._arrays()
        if list(self._in_place.values()) == [1.0]:
            self.adapters[next(iter(self._in_place))].full = now
        base = self._base_arrays()
        set_untracked(self, _in_place=dict(wanted), _base=base if wanted else None)
        self._assign(self._combined(base, wanted))

    def _combined(self, base: list[np.ndarray], wanted: dict[str, float]) -> list[np.ndarray]:
        """Return arrays: base + weight (adapter - base), summed over adapters."""
        copies = [
            (weight, full)
            for name, weight in wanted.items()
            if (full := self.adapters[name].full) is not None
        ]
        if not copies:
            return base
        if [weight for weight, _ in copies] == [1.0]:
            return copies[0][1]
        values = [value.astype("float64") for value in base]
        return [
            value + sum(weight * (copy[i].astype("float64") - value) for weight, copy in copies)
            for i, value in enumerate(values)
        ]

    def full_values(self, name: str) -> list[np.ndarray] | None:
        """Return the copy of all weights that an adapter is; None for one of another kind."""
        return self._arrays() if self._in_place == {name: 1.0} else self.adapters[name].full

    def set_full(self, name: str, values: Sequence[np.ndarray]) -> None:
        """Set what `full_values` returns."""
        if self._in_place == {name: 1.0}:
            self._assign(values)
        else:
            self.adapters[name].full = [np.asarray(value) for value in values]

    def own_paths(self) -> list[str]:
        """Return the last parts of the paths of the layer's own weights: "kernel", "bias"."""
        return [variable.name for variable in self.base_weights()]

    def _base_arrays(self) -> list[np.ndarray]:
        return self._arrays() if self._base is None else self._base

    def _arrays(self) -> list[np.ndarray]:
        return [ops.convert_to_numpy(v).copy() for v in self.base_weights()]

    def _assign(self, values: Sequence[np.ndarray]) -> None:
        for variable, value in zip(self.base_weights(), values, strict=True):
            variable.assign(np.asarray(value).astype(variable.dtype))

    # Merging ------------------------------------------------------------------------------------

    @property
    def merged(self) -> bool:
        return self._before is not None

    def merge(self) -> None:
        """Add the active adapters to W and the bias; do nothing if they are merged already."""
        if self.merged or not self.active:
            return
        matrix, bias = self._merged_matrix(), self._merged_bias()
        if matrix is None and bias is None:
            return  # copies of all weights are in place
        paths = (v.path for v in self.base_weights())
        set_untracked(self, _before=dict(zip(paths, self._arrays(), strict=True)))
        if matrix is not None:
            self._matrix_variable().assign(matrix)
        if bias is not None:
            self._bias_variable().assign(bias)

    def is_finite(self) -> bool:
        """Return whether the active adapters hold finite numbers alone."""
        active = [v for n in self.active for v in self.adapters[n].variables.values()]
        return all(np.isfinite(ops.convert_to_numpy(v)).all() for v in active)

    def enable_lora(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse Keras's own adapters beside those of kft.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{self.path} holds adapters of kft, beside which Keras's enable_lora cannot be used: "
            f"call kft.add_lora(model, name=...) for another adapter, or kft.lora.remove(model) "
            f"first."
        )

    def unmerge(self) -> None:
        """Restore W and the bias, bit by bit; do nothing if nothing is merged."""
        before = self.before_merging()
        for variable in self.base_weights() if before else ():
            variable.assign(before[variable.path])
        set_untracked(self, _before=None)

    def before_merging(self) -> dict[str, np.ndarray]:
        """Return {path: array} of the weights before merging; {} if nothing is merged."""
        if self._before == {}:
            raise ValueError(
                f"{self.path} was copied weight by weight from a layer with merged adapters, and "
                f"its kernel before merging is not known. Copy the model by copy.deepcopy or by "
                f"its files, or call kft.unmerge_lora on the original first; kft.lora.remove makes "
                f"this copy a plain model."
            )
        return self._before or {}

    def _merged_matrix(self) -> np.ndarray | None:
        parts = self._parts()
        if not parts:
            return None
        flat = self._flat("float64")
        for weight, adapter in parts:
            a, b = (ops.convert_to_numpy(v).astype("float64") for v in (adapter.a, adapter.b))
            flat = flat + weight * adapter.settings.scale * (a @ b)
        if (magnitude := parts[0][1].magnitude) is not None:
            norm = np.linalg.norm(flat, axis=0)
            flat = flat * (ops.convert_to_numpy(magnitude).astype("float64") / norm)
        return self.unflattened(flat)

    def _merged_bias(self) -> np.ndarray | None:
        own, biases = self._bias_variable(), self._biases()
        if not biases:
            return None
        value = ops.convert_to_numpy(own).astype("float64")
        base = ops.convert_to_numpy(self._base_bias()).astype("float64")
        return value + sum(
            weight * (ops.convert_to_numpy(bias).astype("float64") - base)
            for weight, bias in biases
        )

    def base_values(self) -> dict[str, np.ndarray]:
        """Return {path: array} of the layer's own weights as they are without adapters."""
        if self._base is not None:
            return dict(zip((v.path for v in self.base_weights()), self._base, strict=True))
        values = {v.path: ops.convert_to_numpy(v) for v in self.base_weights()}
        return values | self.before_merging()

    # Computing ----------------------------------------------------------------------------------

    def quantized_call(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs: `call` knows of quantized weights."""
        return self.call(*args, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Compute the outputs of the layer with the active adapters."""
        self._check_unmerged_in_training(training)
        outputs = self._base_product(inputs)
        if not self.merged:
            for weight, adapter in self._parts():
                outputs = self._with(adapter, weight, inputs, outputs, training)
        return self._finished(outputs, self._bias())

    def _check_unmerged_in_training(self, training: bool | None) -> None:
        if training and self.merged and self.trainable:
            raise ValueError(
                f"{self.path}: merged adapters cannot be trained. Call kft.unmerge_lora(model) "
                f"first, or freeze the layer."
            )

    def _parts(self) -> list[tuple[float, Adapter]]:
        """Return [(weight, adapter)] of the active adapters that have A and B."""
        active = [(weight, self.adapters[name]) for name, weight in self.active.items()]
        return [(weight, adapter) for weight, adapter in active if adapter.a is not None]

    def _with(
        self, adapter: Adapter, weight: float, inputs: Any, outputs: Any, training: bool | None
    ) -> Any:
        """Apply equation 3 of Hu et al. 2021 or equation 5 of Liu et al. 2024, without the bias."""
        settings = adapter.settings
        dropped = settings.dropout and training
        x = keras.random.dropout(inputs, settings.dropout, seed=self._drops) if dropped else inputs
        # Adapters are kept in float32 under every policy, as in PEFT.
        a, b = (ops.cast(v, self.compute_dtype) for v in (adapter.a, adapter.b))
        # The scale is applied where there are the fewest numbers.
        added = self._up(self._down(x, a) * (weight * settings.scale), b)
        if adapter.magnitude is None:
            return outputs + added
        magnitude = ops.cast(adapter.magnitude, self.compute_dtype)
        ratio = self._columns(magnitude / self._norm(adapter))
        if dropped:  # as in PEFT
            return outputs + (ratio - 1) * self._base_product(x) + ratio * added
        return ratio * (outputs + added)

    def _norm(self, adapter: Adapter) -> Any:
        """Return ||W + s A B|| by columns, (O,), constant for the gradient (section 4.3).

        |w + s A b|^2 = |w|^2 + 2 s (A^T w) b + s^2 b^T (A^T A) b for each column, so that W squared
        is the only temporary array of the size of W.
        """
        flat = ops.cast(self._flattened(self._matrix()), "float32")
        a, b = (ops.cast(v, "float32") for v in (adapter.a, adapter.b))
        scale, a_transposed = adapter.settings.scale, ops.transpose(a)  # (r, I)
        squared = ops.sum(flat * flat, axis=0)
        squared = squared + 2 * scale * ops.sum(ops.matmul(a_transposed, flat) * b, axis=0)
        inner = ops.matmul(a_transposed, a)  # (r, r)
        squared = squared + scale**2 * ops.sum(ops.matmul(inner, b) * b, axis=0)
        return ops.cast(ops.stop_gradient(ops.sqrt(squared)), self.compute_dtype)

    def _biases(self) -> list[tuple[float, keras.Variable]]:
        """Return [(weight, bias)] of the active adapters that have a bias."""
        active = [(weight, self.adapters[name].bias) for name, weight in self.active.items()]
        return [(weight, x) for weight, x in active if x is not None]

    def _bias(self) -> Any:
        own, biases = self._bias_variable(), self._biases()
        if self.merged or not biases:
            return own
        biases = [(weight, ops.cast(bias, self.compute_dtype)) for weight, bias in biases]
        if len(biases) == 1 and biases[0][0] == 1:
            return biases[0][1]
        base = ops.cast(self._base_bias(), self.compute_dtype)
        return ops.add(own, sum(weight * ops.subtract(bias, base) for weight, bias in biases))

    def _base_bias(self) -> Any:
        """Return the layer's bias without adapters."""
        own = self._bias_variable()
        if self._base is None:
            return own
        return self._base[next(i for i, v in enumerate(self.base_weights()) if v is own)]

    def _finished(self, outputs: Any, bias: Any) -> Any:
        if bias is not None:
            outputs = ops.add(outputs, bias)
        activation = getattr(self, "activation", None)
        return outputs if activation is None else activation(outputs)

    # The layer as a matrix ----------------------------------------------------------------------

    def _matrix_variable(self) -> Any:
        """Return the variable that is W; None for a layer whose adapters have no A and B."""
        return getattr(self, self.matrix)

    def _bias_variable(self) -> Any:
        """Return the variable that is the bias; None for a layer without one."""
        return getattr(self, "bias", None)

    @classmethod
    def sizes_of(cls, layer: keras.Layer) -> tuple[int, int]:
        """Return (I, O) of a layer of this class, with adapters or without."""
        shape = getattr(layer, cls.matrix).shape
        return math.prod(shape[:-1]), shape[-1]

    @property
    def sizes(self) -> tuple[int, int]:
        """(I, O)."""
        return self.sizes_of(self)

    def _flattened(self, matrix: Any) -> Any:
        """Reshape the kernel, or an array of its shape, to (I, O)."""
        return ops.reshape(matrix, self.sizes)

    def unflattened(self, flat: np.ndarray) -> np.ndarray:
        """Reshape (I, O) to the shape of the kernel."""
        return np.reshape(flat, self._matrix_variable().shape)

    def _flat(self, dtype: str = "float32") -> np.ndarray:
        matrix = self._flattened(ops.convert_to_tensor(self._matrix()))
        return ops.convert_to_numpy(matrix).astype(dtype)

    def _matrix(self) -> Any:
        """Return W, a tensor of floats of the shape of the kernel."""
        if is_quantized(self):
            return dequantised(self, self.compute_dtype)
        return self._matrix_variable()

    def _base_product(self, inputs: Any) -> Any:
        """x W."""
        if is_quantized(self):  # or W in floats would be kept for the gradient
            return keras.remat(lambda x: self._product(x, self._matrix()))(inputs)
        return self._product(inputs, self._matrix_variable())

    def _product(self, inputs: Any, matrix: Any) -> Any:
        """Multiply inputs by W, of the shape of the kernel."""
        return ops.matmul(inputs, matrix)

    def _down(self, inputs: Any, a: Any) -> Any:
        """x A."""
        return ops.matmul(inputs, a)

    def _up(self, h: Any, b: Any) -> Any:
        """h B."""
        return ops.matmul(h, b)

    def _columns(self, vector: Any) -> Any:
        """Reshape (O,) so that it is broadcast against the outputs."""
        return vector

    # Files --------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Return the config of the layer, with the settings of its adapters."""
        return {
            **super().get_config(),
            "adapters": {name: asdict(x.settings) for name, x in self.adapters.items()},
            "active": dict(self.active),
            "merged": self.merged,
        }

    def base_weights(self) -> list[keras.Variable]:
        """Return the layer's own weights and statistics, in the order in which Keras saves them."""
        added = {id(v) for x in self.adapters.values() for v in x.variables.values()}
        return [v for v in own_weights(self) if id(v) not in added]

    def save_own_variables(self, store: Any) -> None:
        """Write the base's weights and those of the adapters to a store of Keras."""
        base = self.base_values()
        for i, variable in enumerate(self.base_weights()):
            store[str(i)] = base[variable.path]
        for name, adapter in self.adapters.items():
            for part, variable in adapter.variables.items():
                store[f"lora_{part}_{name}"] = ops.convert_to_numpy(variable)
            for i, value in enumerate(self.full_values(name) or ()):
                store[f"lora_full_{i}_{name}"] = value

    def load_own_variables(self, store: Any) -> None:
        """Read what `save_own_variables` has written, from a store of Keras."""
        merged = self.merged
        set_untracked(self, _before=None)
        active = dict(self.active)
        self.use({})
        self._assign([store[str(i)] for i in range(len(self.base_weights()))])
        for name, adapter in self.adapters.items():
            for part, variable in adapter.variables.items():
                variable.assign(self._stored(store, f"lora_{part}_{name}", name))
            if adapter.settings.full:
                keys = [f"lora_full_{i}_{name}" for i in range(len(self.base_weights()))]
                adapter.full = [np.asarray(self._stored(store, key, name)) for key in keys]
        self.use(active)
        if merged:
            self.merge()

    def _stored(self, store: Any, key: str, name: str) -> Any:
        if key not in store:
            raise ValueError(
                f"{self.path} has an adapter {name!r}, and the file does not: load the weights "
                f"before kft.add_lora, or adapters with kft.load_adapter."
            )
        return store[key]
