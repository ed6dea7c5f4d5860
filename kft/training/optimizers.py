"""How fast weights learn: the schedule of a phase, rates by layer, and the range test.

Within a phase the rate warms up linearly and falls along a cosine (Loshchilov and Hutter 2017,
"SGDR"). Rates by layer are those of Howard and Ruder 2018, "Universal language model
fine-tuning", section 3.2 (discriminative fine-tuning). The range test is Smith 2017, "Cyclical
learning rates", section 3.3.
"""

import keras
import numpy as np
from keras import ops

from kft.params import weights


@keras.saving.register_keras_serializable("kft")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `rate` during `warmup` steps, then falls along a cosine to zero.

    Args:
        rate: the highest learning rate.
        steps: length of the phase in optimizer steps.
        warmup: steps of the rise, fewer than `steps`.
        begin: the optimizer's step count when the phase begins: one that goes on from an earlier
            phase keeps its count, for Adam's bias correction.
        accumulate: batches whose gradients the optimizer averages for one step: Keras calls a
            schedule with the number of batches.
    """

    def __init__(self, rate, steps, warmup=0, begin=0, accumulate=1):
        self.rate, self.steps, self.warmup, self.begin = rate, steps, warmup, begin
        self.accumulate = accumulate

    def __call__(self, step):
        """The rate at an optimizer step, or a batch of one."""
        step = ops.floor(ops.cast(step, "float32") / self.accumulate) - self.begin
        rise = (step + 1.0) / max(self.warmup, 1)
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        fall = 0.5 * (1.0 + ops.cos(np.pi * ops.clip(done, 0.0, 1.0)))
        return self.rate * ops.where(step < self.warmup, rise, fall)

    def get_config(self):
        return {
            name: getattr(self, name) for name in ("rate", "steps", "warmup", "begin", "accumulate")
        }


def adamw(schedule, variables, **options):
    """AdamW as kft uses it: decay 0.01 on matrices only, each gradient cut to norm 1.

    Args:
        schedule: a rate or a Keras schedule.
        variables: what it is to train; biases and norms among them do not decay.
        options: of keras.optimizers.AdamW, where they are to differ.

    Returns:
        keras.optimizers.AdamW, not built yet.

    Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization".
    """
    optimizer = keras.optimizers.AdamW(
        schedule, **{"weight_decay": 0.01, "clipnorm": 1.0, **options}
    )
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    return optimizer


@keras.saving.register_keras_serializable("kft")
class Muon(keras.optimizers.Muon):
    """Keras's Muon, which may make its updates orthogonal in another dtype.

    Five steps of Newton and Schulz at every step of the training are most of what Muon costs; they
    bear bfloat16 well (Jordan et al. 2024), in which they take a third of the time where the
    processor has matrix units for it.

    Args:
        dtype: of the orthogonalisation; None keeps that of the weights.
        options: of keras.optimizers.Muon.
    """

    def __init__(self, *args, dtype=None, **options):
        super().__init__(*args, **options)
        self.dtype = dtype

    def update_step(self, gradient, variable, learning_rate):
        # Keras would multiply half precision by single, which TensorFlow refuses.
        super().update_step(gradient, variable, ops.cast(learning_rate, variable.dtype))

    def lr_adjust(self, x):
        """Scales an update (n, m) to a root mean square of `rms_rate`."""
        return x if self.rms_rate is None else x * (max(x.shape) ** 0.5 * self.rms_rate)

    def zeropower_via_newtonschulz5(self, x, steps):
        """The orthogonal matrix nearest to x (n, m), roughly: Jordan et al. 2024, in `dtype`."""
        tall = x.shape[0] > x.shape[1]
        y = ops.transpose(x) if tall else x
        # Not in half precision, where a sum of so many squares is lost.
        y = ops.cast(y / (ops.norm(y) + 1e-7), self.dtype or x.dtype)
        for _ in range(steps):
            square = ops.matmul(y, ops.transpose(y))
            bent = self.muon_b * square + self.muon_c * ops.matmul(square, square)
            y = self.muon_a * y + ops.matmul(bent, y)
        y = ops.cast(y, x.dtype)
        return ops.transpose(y) if tall else y

    def get_config(self):
        return {**super().get_config(), "dtype": self.dtype}


def muon(schedule, variables, weight_decay=0.01, **options):
    """Muon as kft uses it: matrices turn by what is left of their momentum without its scale.

    The momentum of each kernel is made orthogonal (five steps of Newton and Schulz), so that rare
    directions move as far as common ones, and scaled so that rates of AdamW fit it. Token tables,
    biases and norms learn by AdamW. In pre-training it needs fewer steps, each of which takes
    longer; weights that AdamW pre-trained are better fine-tuned by AdamW.

    Args:
        schedule: a rate or a Keras schedule.
        variables: what it is to train; biases and norms among them do not decay.
        weight_decay: of matrices and tables.
        options: of `Muon`, where they are to differ; `dtype="bfloat16"` is faster.

    Returns:
        Muon, not built yet.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; scaled
    as in Liu et al. 2025, "Muon is scalable for LLM training", section 2.2.
    """
    decay = {"weight_decay": weight_decay, "adam_weight_decay": weight_decay}
    optimizer = Muon(schedule, **{**decay, "clipnorm": 1.0, **options})
    optimizer.exclude_from_weight_decay(var_list=[v for v in variables if len(v.shape) < 2])
    return optimizer


class Optimizers:
    """Makes the optimizer of each phase, and carries slots from one to the next by path.

    Weights that learn at the same rate since the same phase share an optimizer with a step count
    of its own: Adam corrects for the youth of its averages by that count, and one that counted
    from the first phase would take steps up to six times too large with weights just unfrozen.

    Args:
        make: called as `make(schedule, variables)`, returns a Keras optimizer; `adamw` above. Where
            it takes a constant rate instead of the schedule, what a callback has made of that rate
            is carried, too.
    """

    def __init__(self, make=adamw):
        self.make = make
        self.since, self.slots, self.steps = {}, {}, {}
        self.share = 1.0  # what callbacks have left of constant rates

    def next(self, phase, number, steps_per_epoch):
        """The built optimizer of a phase whose model is marked for it.

        Args:
            phase: has `model`, `epochs`, `rate` (the highest), `warmup` (share of the steps) and
                `factors` ({path of a weight: what multiplies its rate}).
            number: of the phase.
            steps_per_epoch: optimizer steps.

        Returns:
            A Keras optimizer, a `keras.optimizers.MultiOptimizer` where rates or ages differ.
        """
        model, steps = phase.model, phase.epochs * steps_per_epoch
        warmup = int(phase.warmup * steps)
        groups, paths = {}, {}
        for weight in weights(model):
            if weight.trainable:
                paths[id(weight.variable)] = weight.path
                since = self.since.setdefault(weight.path, number)
                key = phase.factors.get(weight.path, 1.0), since
                groups.setdefault(key, []).append(weight.variable)
        made = {}
        for (factor, since), variables in groups.items():
            begin = self.steps.get(since, 0)
            schedule = WarmupCosine(phase.rate * factor, steps, warmup, begin)
            made[factor, since] = self.make(schedule, variables)
        optimizer = _joined(made, groups)
        optimizer.build(model.trainable_variables)
        for key, inner in made.items():
            if (constant := _constant_rate(inner)) is not None:
                inner.learning_rate = constant * self.share
            inner.iterations.assign(self.steps.get(key[1], 0))
            for variable, slots in _slots(inner, groups[key]):
                for name, value in self.slots.get(paths[id(variable)], {}).items():
                    slots[name].assign(value)
        self._made, self._groups, self._paths = made, groups, paths
        self._began = _constant_rate(next(iter(made.values())))
        return optimizer

    def keep(self):
        """Remembers the slots and step counts, after the phase has run."""
        if self._began:
            self.share *= _constant_rate(next(iter(self._made.values()))) / self._began
        for key, inner in self._made.items():
            self.steps[key[1]] = int(ops.convert_to_numpy(inner.iterations.value))
            for variable, slots in _slots(inner, self._groups[key]):
                self.slots[self._paths[id(variable)]] = {
                    name: ops.convert_to_numpy(slot.value) for name, slot in slots.items()
                }


def _constant_rate(optimizer):
    """The learning rate, None where it follows a schedule."""
    if isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return None
    return float(ops.convert_to_numpy(optimizer.learning_rate))


def _joined(made, groups):
    if len(made) == 1:
        return next(iter(made.values()))
    by_path = {v.path: made[key] for key, variables in groups.items() for v in variables}
    if len(by_path) < sum(map(len, groups.values())):
        raise ValueError(
            "Two weights have the same Keras path, by which their learning rates would be told "
            "apart: give their layers names that differ."
        )
    rest = next(iter(made.values()))
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rest, by_path))


def _slots(optimizer, variables):
    """Yields each variable with {name: its slot}, such as Adam's two averages."""
    lists = {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, list) and name != "_trainable_variables"
        if len(value) == len(variables)
        if all(v is None or isinstance(v, keras.Variable) for v in value)
    }
    for i, variable in enumerate(optimizer._trainable_variables):
        # Muon's matrices have no velocity.
        yield variable, {name: slots[i] for name, slots in lists.items() if slots[i] is not None}
