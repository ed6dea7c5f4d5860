"""Layers with low-rank adapters: what Hu et al. 2021 add to a weight matrix.

References: Hu et al. 2021, "LoRA", arXiv:2106.09685, equation 3; Kalajdzievski 2023, "A rank
stabilization scaling factor", arXiv:2312.03732 (rsLoRA); Liu et al. 2024, "DoRA",
arXiv:2402.09353, equation 5; and `peft` 0.21, `tuners/lora`, whose numbers these are.

A layer computes x W + b. With an adapter it computes x W + s (x A) B + b, s = alpha / r, and never
forms A B while it learns. W is seen as a matrix, inputs x outputs: an `EinsumDense` or `Conv2D`
kernel is flattened, and what an `Embedding` looks up is a row of W.

What an adapter has of a layer that learns in full, a head for one, is a copy of all its weights, as
PEFT's `modules_to_save` are. The copy of the adapter that counts is in the layer itself, the others
and the base's are kept aside.

Differences from the reference: a bias that an adapter trains is a copy of its own, so that without
the adapter the layer answers as before; the norm of W + s A B that DoRA divides by is found
without forming A B; of several adapters together the copies are combined as their updates are,
where PEFT takes one alone.

Shapes: `I` inputs and `O` outputs of a flattened kernel, `r` rank.
"""

import math
from dataclasses import asdict, dataclass, field

import keras
import numpy as np
from keras import ops

from kft.keras_internals import (
    change_class,
    own_trainable_weights,
    own_weights,
    remove_seed_generator,
    remove_weight,
    unlocked,
)


@dataclass(frozen=True)
class Settings:
    """What an adapter of one layer is.

    Attributes:
        rank: r, 0 for an adapter that has a bias alone, or all weights.
        alpha: numerator of the scale.
        dropout: share of the inputs of A that are dropped in training.
        rslora: whether the scale is alpha / sqrt(r), not alpha / r.
        dora: whether the columns of W + s A B have learned magnitudes.
        bias: whether the adapter has a bias of its own.
        full: whether the adapter has all weights of the layer, as it has those of a head.
        prefix: what stands before the names of modules in the model that its file was made for,
            None for an adapter that was not read from a file.
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
    def scale(self):
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


@dataclass(eq=False)
class Adapter:
    """One adapter of one layer: its settings and its variables, None for those it lacks.

    Attributes:
        a, b: (I, r) and (r, O).
        magnitude: (O,), for DoRA.
        bias: in place of the layer's own.
        full: numpy arrays in place of all the layer's own, those that the layer was left with last;
            `Adapted.full_values` tells those of now.
    """

    settings: Settings
    a: keras.Variable | None = None
    b: keras.Variable | None = None
    magnitude: keras.Variable | None = None
    bias: keras.Variable | None = None
    full: list[np.ndarray] | None = None

    @property
    def variables(self):
        """dict from part to variable, of those there are."""
        parts = {part: getattr(self, part) for part in ("a", "b", "magnitude", "bias")}
        return {part: variable for part, variable in parts.items() if variable is not None}


class Adapted:
    """What a Keras layer needs to hold adapters; stands before its class.

    The layer's own weights never learn, whatever `trainable` is set to; the active adapters do
    if the layer does. Where an adapter has all weights, its own are the layer's while it counts,
    and learn; those of several that are combined do not, since they would be nobody's.

    Attributes:
        adapters: {name: Adapter}.
        active: {name: share with which it counts}, of those that count.
        merged: whether W holds the active adapters now.
    """

    matrix = "kernel"  # attribute that holds W
    base_class: type  # the Keras class that has adapters here

    def __init__(self, *args, adapters=None, active=None, merged=False, **kwargs):
        super().__init__(*args, **kwargs)
        self._begin()
        vars(self)["_planned"] = adapters or {}, active or {}, merged

    def build(self, input_shape=None):
        super().build(input_shape)
        self.resume(*self._planned)

    def resume(self, adapters, active, merged):
        """Adds the adapters that a config tells of, with values that a file will overwrite."""
        for name, settings in adapters.items():
            if name not in self.adapters:
                self.add_adapter(name, Settings(**settings), np.random.default_rng(0))
        self.use(active)
        if merged and self.active:  # W will be merged, by weights that are set or a file
            vars(self)["_before"] = {}

    @classmethod
    def take_over(cls, layer):
        """Makes a built layer of the kind one that can hold adapters."""
        change_class(layer, cls)
        layer._begin()
        return layer

    def _begin(self):
        # Plain dicts that no backend tracks: the variables are tracked where they are made.
        vars(self).update(adapters={}, active={}, _before=None, _in_place={}, _base=None)

    def leave(self, merged):
        """Makes the layer what it was before; it goes on answering as it does if merged."""
        learned = self.trainable and all(x.settings.full for x in self.adapters.values())
        if merged:
            vars(self).update(_in_place={}, _base=None)  # what is in place is the layer's own now
        for name in list(self.adapters):
            self.remove_adapter(name)
        for name in ("adapters", "active", "_before", "_planned", "_in_place", "_base"):
            vars(self).pop(name, None)
        change_class(self, self.base_class)
        # TensorFlow's layers take what is set to its present value for no change.
        self.trainable = not learned
        self.trainable = learned

    # Adapters -----------------------------------------------------------------------------------

    def add_adapter(self, name, settings, rng):
        """Adds an adapter that changes nothing yet, and does not count yet.

        Args:
            name: identifier.
            settings: `Settings`.
            rng: numpy generator that draws A (Kaiming uniform, as PEFT does).
        """
        with unlocked(self):
            self.adapters[name] = self._new_adapter(name, settings, rng)
        self._settle()

    def _new_adapter(self, name, settings, rng):
        adapter, (inputs, outputs) = Adapter(settings), self.sizes
        if settings.rank:
            a, b = self._drawn(inputs, outputs, settings.rank, rng)
            adapter.a = self._variable(f"lora_a_{name}", a)
            adapter.b = self._variable(f"lora_b_{name}", b)
        if settings.dora:
            norm = np.linalg.norm(self._flat(), axis=0)
            adapter.magnitude = self._variable(f"lora_magnitude_{name}", norm)
        if settings.bias:
            own = ops.convert_to_numpy(self._bias_variable())
            adapter.bias = self._variable(f"lora_bias_{name}", own)
        if settings.full:
            adapter.full = [value.copy() for value in self._base_arrays()]
        if settings.dropout and not hasattr(self, "_drops"):
            self._drops = keras.random.SeedGenerator(int(rng.integers(2**31)))
        return adapter

    def remove_adapter(self, name):
        """Forgets an adapter, its variables and its copy of the weights."""
        if name in self._in_place:
            self._put({n: share for n, share in self._in_place.items() if n != name})
        for variable in self.adapters.pop(name).variables.values():
            remove_weight(self, variable)
        self.active.pop(name, None)
        self._settle()
        if hasattr(self, "_drops") and not any(x.settings.dropout for x in self.adapters.values()):
            remove_seed_generator(self, self._drops)
            del self._drops

    def use(self, active):
        """Says which adapters count, and with what share: {name: share}."""
        active = {n: float(w) for n, w in active.items() if n in self.adapters}
        self._put({n: share for n, share in active.items() if self.adapters[n].settings.full})
        vars(self)["active"] = active
        self._settle()

    def _variable(self, name, values):
        constant = keras.initializers.Constant(np.asarray(values, dtype="float32"))
        return self.add_weight(np.shape(values), constant, dtype="float32", name=name)

    def _drawn(self, inputs, outputs, rank, rng):
        bound = inputs**-0.5
        return rng.uniform(-bound, bound, (inputs, rank)), np.zeros((rank, outputs))

    @property
    def trainable(self):
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value):
        self._mark(value)

    def _mark(self, value):
        # A method: TensorFlow's layers take what is set to its present value for no change.
        keras.layers.Layer.trainable.fset(self, value)
        self._settle()

    def _settle(self):
        """Lets those variables sleep that are not to learn, whatever `trainable` says."""
        awake = {id(v) for n in self.active for v in self.adapters[n].variables.values()}
        if self._own_learn():
            awake |= {id(v) for v in self._own()}
        for variable in own_trainable_weights(self):
            variable.trainable = bool(self.trainable) and id(variable) in awake

    def _own_learn(self):
        """Whether the layer's own weights are one adapter's, or the base's of a layer like that."""
        if self.active:
            return self.active == self._in_place and list(self.active.values()) == [1.0]
        return bool(self.adapters) and all(x.settings.full for x in self.adapters.values())

    # Copies of all weights ------------------------------------------------------------------------

    def _put(self, wanted):
        """Puts the weights of adapters, {name: share}, into the layer; of none, the base's."""
        if wanted == self._in_place:
            return
        now = self._arrays()
        if list(self._in_place.values()) == [1.0]:
            self.adapters[next(iter(self._in_place))].full = now
        base = self._base_arrays()
        vars(self).update(_in_place=dict(wanted), _base=base if wanted else None)
        self._assign(self._combined(base, wanted))

    def _combined(self, base, wanted):
        """Arrays: base + share (adapter - base), summed over adapters."""
        copies = [(share, self.adapters[name].full) for name, share in wanted.items()]
        if not copies:
            return base
        if [share for share, _ in copies] == [1.0]:
            return copies[0][1]
        values = [value.astype("float64") for value in base]
        return [
            value + sum(share * (copy[i].astype("float64") - value) for share, copy in copies)
            for i, value in enumerate(values)
        ]

    def full_values(self, name):
        """The layer's weights as an adapter with all weights has them, a list of numpy arrays."""
        return self._arrays() if self._in_place == {name: 1.0} else self.adapters[name].full

    def set_full(self, name, values):
        """Gives an adapter with all weights their values."""
        if self._in_place == {name: 1.0}:
            self._assign(values)
        else:
            self.adapters[name].full = [np.asarray(value) for value in values]

    def own_paths(self):
        """The ends of the paths of the layer's own weights: "kernel", "bias"."""
        return [variable.name for variable in self._own()]

    def _base_arrays(self):
        return self._base if self._in_place else self._arrays()

    def _arrays(self):
        return [ops.convert_to_numpy(v).copy() for v in self._own()]

    def _assign(self, values):
        for variable, value in zip(self._own(), values, strict=True):
            variable.assign(np.asarray(value).astype(variable.dtype))

    # Merging ------------------------------------------------------------------------------------

    @property
    def merged(self):
        return self._before is not None

    def merge(self):
        """Puts the active adapters into W and the bias; does nothing if they are there."""
        if self.merged or not self.active:
            return
        matrix, bias = self._merged_matrix(), self._merged_bias()
        if matrix is None and bias is None:
            return  # copies of all weights are in place already
        vars(self)["_before"] = dict(
            zip((v.path for v in self._own()), self._arrays(), strict=True)
        )
        if matrix is not None:
            self._matrix_variable().assign(matrix)
        if bias is not None:
            self._bias_variable().assign(bias)

    def unmerge(self):
        """Gives W and the bias back, bit by bit; does nothing if nothing is merged."""
        before = self.before_merging()
        for variable in self._own() if before else ():
            variable.assign(before[variable.path])
        vars(self)["_before"] = None

    def before_merging(self):
        """{path: numpy array} of W and the bias as they were; {} if nothing is merged."""
        if self._before == {}:
            raise ValueError(
                f"{self.path} was copied weight by weight from a layer with merged adapters, and "
                f"what its kernel was before is not known here. Copy the model by copy.deepcopy or "
                f"by its files, or call kft.unmerge_lora on the original first; kft.lora.remove "
                f"leaves this copy as a plain model."
            )
        return self._before or {}

    def _merged_matrix(self):
        parts = self._parts()
        if not parts:
            return None
        flat = self._flat("float64")
        for share, adapter in parts:
            a, b = (ops.convert_to_numpy(v).astype("float64") for v in (adapter.a, adapter.b))
            flat = flat + share * adapter.settings.scale * (a @ b)
        if (magnitude := parts[0][1].magnitude) is not None:
            norm = np.linalg.norm(flat, axis=0)
            flat = flat * (ops.convert_to_numpy(magnitude).astype("float64") / norm)
        return self._unflat(flat)

    def _merged_bias(self):
        own, biases = self._bias_variable(), self._biases()
        if not biases:
            return None
        value = ops.convert_to_numpy(own).astype("float64")
        base = ops.convert_to_numpy(self._base_bias()).astype("float64")
        return value + sum(
            share * (ops.convert_to_numpy(bias).astype("float64") - base) for share, bias in biases
        )

    def base_values(self):
        """{path: numpy array} of the layer's own weights, those of the base without adapters."""
        if self._in_place:
            return dict(zip((v.path for v in self._own()), self._base, strict=True))
        return {v.path: ops.convert_to_numpy(v) for v in self._own()} | self.before_merging()

    # Computing ----------------------------------------------------------------------------------

    def call(self, inputs, training=None):
        self._insist(training)
        outputs = self._product(inputs)
        if not self.merged:
            for share, adapter in self._parts():
                outputs = self._with(adapter, share, inputs, outputs, training)
        return self._finished(outputs, self._bias())

    def _insist(self, training):
        if training and self.merged and self.trainable:
            raise ValueError(
                f"{self.path}: merged adapters cannot learn. Call kft.unmerge_lora(model) first, "
                f"or freeze the layer."
            )

    def _parts(self):
        """[(share, adapter)] of the active ones that have A and B."""
        active = [(share, self.adapters[name]) for name, share in self.active.items()]
        return [(share, adapter) for share, adapter in active if adapter.a is not None]

    def _with(self, adapter, share, inputs, outputs, training):
        """Equation 3 of Hu et al. 2021, or equation 5 of Liu et al. 2024, without the bias."""
        settings = adapter.settings
        dropped = settings.dropout and training
        x = keras.random.dropout(inputs, settings.dropout, seed=self._drops) if dropped else inputs
        # Adapters are kept in float32 under every policy, as in PEFT.
        a, b = (ops.cast(v, self.compute_dtype) for v in (adapter.a, adapter.b))
        # The scale goes to where the numbers are fewest.
        added = self._up(self._down(x, a) * (share * settings.scale), b)
        if adapter.magnitude is None:
            return outputs + added
        magnitude = ops.cast(adapter.magnitude, self.compute_dtype)
        ratio = self._columns(magnitude / self._norm(adapter))
        if dropped:  # as PEFT does: what the dropped inputs give, in place of what all give
            return outputs + (ratio - 1) * self._product(x) + ratio * added
        return ratio * (outputs + added)

    def _norm(self, adapter):
        """||W + s A B|| by columns, (O,), a constant for the gradient (section 4.3 of the paper).

        |w + s A b|^2 = |w|^2 + 2 s (A^T w) b + s^2 b^T (A^T A) b for each column, so that nothing
        of the size of W is formed but its squares.
        """
        flat = ops.cast(self._flattened(self._matrix_variable()), "float32")
        a, b = (ops.cast(v, "float32") for v in (adapter.a, adapter.b))
        scale, over = adapter.settings.scale, ops.transpose(a)  # (r, I)
        squared = ops.sum(flat * flat, axis=0)
        squared = squared + 2 * scale * ops.sum(ops.matmul(over, flat) * b, axis=0)
        squared = squared + scale**2 * ops.sum(ops.matmul(ops.matmul(over, a), b) * b, axis=0)
        return ops.cast(ops.stop_gradient(ops.sqrt(squared)), self.compute_dtype)

    def _biases(self):
        """[(share, bias)] of the active adapters that have one."""
        active = [(share, self.adapters[name].bias) for name, share in self.active.items()]
        return [(share, x) for share, x in active if x is not None]

    def _bias(self):
        own, biases = self._bias_variable(), self._biases()
        if self.merged or not biases:
            return own
        biases = [(share, ops.cast(bias, self.compute_dtype)) for share, bias in biases]
        if len(biases) == 1 and biases[0][0] == 1:
            return biases[0][1]
        base = ops.cast(self._base_bias(), self.compute_dtype)
        return ops.add(own, sum(share * ops.subtract(bias, base) for share, bias in biases))

    def _base_bias(self):
        """The layer's bias without any adapter, beside which others may have all its weights."""
        own = self._bias_variable()
        if not self._in_place:
            return own
        return self._base[next(i for i, v in enumerate(self._own()) if v is own)]

    def _finished(self, outputs, bias):
        if bias is not None:
            outputs = ops.add(outputs, bias)
        activation = getattr(self, "activation", None)
        return outputs if activation is None else activation(outputs)

    # The layer seen as a matrix -----------------------------------------------------------------

    def _matrix_variable(self):
        return getattr(self, self.matrix)

    def _bias_variable(self):
        return getattr(self, "bias", None)

    @classmethod
    def sizes_of(cls, layer):
        """(I, O) of a layer of the kind, which may not hold adapters yet."""
        shape = getattr(layer, cls.matrix).shape
        return math.prod(shape[:-1]), shape[-1]

    @property
    def sizes(self):
        return self.sizes_of(self)

    def _flattened(self, matrix):
        """The kernel, or one of its shape -> (I, O)."""
        return ops.reshape(matrix, self.sizes)

    def _unflat(self, flat):
        return np.reshape(flat, self._matrix_variable().shape)

    def _flat(self, dtype="float32"):
        matrix = self._flattened(ops.convert_to_tensor(self._matrix_variable()))
        return ops.convert_to_numpy(matrix).astype(dtype)

    def _product(self, inputs):
        """x W."""
        return ops.matmul(inputs, self._matrix_variable())

    def _down(self, inputs, a):
        """x A."""
        return ops.matmul(inputs, a)

    def _up(self, h, b):
        """h B."""
        return ops.matmul(h, b)

    def _columns(self, vector):
        """(O,) -> what is broadcast against the outputs."""
        return vector

    # Files --------------------------------------------------------------------------------------

    def get_config(self):
        return {
            **super().get_config(),
            "adapters": {name: asdict(x.settings) for name, x in self.adapters.items()},
            "active": dict(self.active),
            "merged": self.merged,
        }

    def _own(self):
        """The layer's own weights and statistics, in the order in which Keras writes them."""
        added = {id(v) for x in self.adapters.values() for v in x.variables.values()}
        return [v for v in own_weights(self) if id(v) not in added]

    def save_own_variables(self, store):
        base = self.base_values()
        for i, variable in enumerate(self._own()):
            store[str(i)] = base[variable.path]
        for name, adapter in self.adapters.items():
            for part, variable in adapter.variables.items():
                store[f"lora_{part}_{name}"] = ops.convert_to_numpy(variable)
            for i, value in enumerate(self.full_values(name) or ()):
                store[f"lora_full_{i}_{name}"] = value

    def load_own_variables(self, store):
        merged = self.merged
        vars(self)["_before"] = None
        active = dict(self.active)
        self.use({})
        self._assign([store[str(i)] for i in range(len(self._own()))])
        for name, adapter in self.adapters.items():
            for part, variable in adapter.variables.items():
                variable.assign(self._stored(store, f"lora_{part}_{name}", name))
            if adapter.settings.full:
                keys = [f"lora_full_{i}_{name}" for i in range(len(self._own()))]
                adapter.full = [np.asarray(self._stored(store, key, name)) for key in keys]
        self.use(active)
        if merged:
            self.merge()

    def _stored(self, store, key, name):
        if key not in store:
            raise ValueError(
                f"{self.path} has an adapter {name!r}, and the file has none of it: load "
                f"the weights before kft.add_lora, or adapters with kft.load_adapter."
            )
        return store[key]
