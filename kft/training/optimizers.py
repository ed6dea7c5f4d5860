"""Optimizers of a training: schedule of a phase, AdamW and Muon, learning rates by layer.

Within a phase the learning rate warms up linearly and falls along a cosine (Loshchilov and Hutter
2017, "SGDR"). Learning rates by layer are those of Howard and Ruder 2018, "Universal language model
fine-tuning", section 3.2 (discriminative fine-tuning).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import ops

from kft.backbones.attention import on_processor
from kft.keras_internals import (
    ClippedAdamW,
    averages_of,
    batches_seen,
    learning_rate_of,
    optimizer_weights,
)
from kft.params import weights

# A number or a schedule, as Keras's optimizers take it.
LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule
# What `kft.fit` and others take as `optimizer`: called with a learning rate and the variables.
OptimizerFactory: TypeAlias = Callable[[Any, Sequence[keras.Variable]], keras.optimizers.Optimizer]


@keras.saving.register_keras_serializable("kft")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that rises linearly during a warm-up, then falls along a cosine to zero.

    Args:
        learning_rate: Highest learning rate.
        steps: Length of the phase in optimizer steps.
        warmup: Steps of the rise, fewer than `steps`.
        begin: Step count of the optimizer when the phase begins: an optimizer that continues from
            an earlier phase keeps its count, for Adam's bias correction.
        accumulate: Batches whose gradients the optimizer averages for one step: Keras calls a
            schedule with the number of batches.

    Example:
        >>> schedule = WarmupCosine(1e-3, steps=10, warmup=2)
        >>> round(float(schedule(0)), 6), round(float(schedule(1)), 6)
        (0.0005, 0.001)
    """

    def __init__(
        self,
        learning_rate: float,
        steps: int,
        warmup: int = 0,
        begin: int = 0,
        accumulate: int = 1,
    ):
        self.learning_rate, self.steps, self.warmup = learning_rate, steps, warmup
        self.begin, self.accumulate = begin, accumulate

    def __call__(self, step: Any) -> Any:
        """Compute the learning rate at an optimizer step, or at each of several.

        Args:
            step: Number of batches so far, of any shape.

        Returns:
            float32 tensor of the same shape.
        """
        step = ops.floor(ops.cast(step, "float32") / self.accumulate) - self.begin
        rise = (step + 1.0) / max(self.warmup, 1)
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        fall = 0.5 * (1.0 + ops.cos(np.pi * ops.clip(done, 0.0, 1.0)))
        return self.learning_rate * ops.where(step < self.warmup, rise, fall)

    def get_config(self) -> dict:
        """Return the arguments as a dict."""
        names = ("learning_rate", "steps", "warmup", "begin", "accumulate")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_config(cls, config: dict) -> "WarmupCosine":
        """Make a schedule from its config.

        Args:
            config: Of `get_config`; version 0.1 wrote `rate` for `learning_rate`.

        Returns:
            WarmupCosine.
        """
        return cls(**{"learning_rate" if k == "rate" else k: v for k, v in config.items()})


@keras.saving.register_keras_serializable("kft")
class AdamW(ClippedAdamW):
    """Keras's AdamW, updated by PyTorch's fused kernel where weights are on a processor.

    The numbers are Keras's, to rounding. Keras's own update makes several copies of all weights
    on PyTorch; the fused kernel reads and writes each weight once. On other backends and devices
    it is Keras's.

    Args:
        *args: As for keras.optimizers.AdamW.
        **options: As for keras.optimizers.AdamW.

    Example:
        >>> AdamW(1e-3).weight_decay
        0.004
    """

    def clipped(self, gradient: Any) -> Any:
        """Return a gradient of norm `clipnorm` at most."""
        if not _on_processor_of_torch(gradient):
            return super().clipped(gradient)
        import torch

        norm = float(torch.linalg.vector_norm(gradient))
        return gradient if norm <= self.clipnorm else gradient * (self.clipnorm / norm)

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Update one weight."""
        averages = [average.value for average in averages_of(self, variable)]
        tensors = [variable.value, gradient, *averages]
        if self.amsgrad or not _on_processor_of_torch(*tensors):
            super().update_step(gradient, variable, learning_rate)
            return
        import torch
        from torch.optim.adamw import adamw as fused

        steps = int(self.iterations)  # before this one, which PyTorch counts itself
        with torch.no_grad():
            fused(
                *([tensor] for tensor in tensors),
                [],
                [torch.tensor(float(steps))],
                fused=True,
                amsgrad=False,
                beta1=self.beta_1,
                beta2=self.beta_2,
                lr=float(learning_rate),
                weight_decay=0.0,  # Keras has applied it
                # Keras adds it to the average before that is corrected, PyTorch after.
                eps=self.epsilon / (1 - self.beta_2 ** (steps + 1)) ** 0.5,
                maximize=False,
            )


def _on_processor_of_torch(*tensors: Any) -> bool:
    """Return whether these are tensors of PyTorch that its kernels for a processor can update."""
    return keras.backend.backend() == "torch" and all(
        x.device.type == "cpu"
        and x.is_contiguous()
        and (x.shape, x.dtype) == (tensors[0].shape, tensors[0].dtype)
        for x in tensors
    )


def adamw(
    learning_rate: LearningRate, variables: Sequence[keras.Variable], **options: Any
) -> keras.optimizers.AdamW:
    """Make AdamW with the settings of kft: weight decay 0.01 on matrices, gradients cut to norm 1.

    Args:
        learning_rate: A number or a Keras schedule.
        variables: Variables to train; biases and norms among them do not decay.
        **options: Arguments of keras.optimizers.AdamW that differ.

    Returns:
        keras.optimizers.AdamW, not built yet; `AdamW` on PyTorch on a processor.

    Source: Loshchilov and Hutter 2019, "Decoupled weight decay regularization".

    Example:
        >>> adamw(1e-3, [], weight_decay=0.1).weight_decay
        0.1
    """
    on_torch = keras.backend.backend() == "torch" and on_processor()
    kind = AdamW if on_torch else keras.optimizers.AdamW
    optimizer = kind(learning_rate, **{"weight_decay": 0.01, "clipnorm": 1.0, **options})
    return _matrices_decay(optimizer, variables)


@keras.saving.register_keras_serializable("kft")
class Muon(keras.optimizers.Muon):
    """Keras's Muon, with an option to make its updates orthogonal in another dtype.

    Five Newton-Schulz iterations at every step are most of the cost of Muon. They work well in
    bfloat16 (Jordan et al. 2024), which takes a third of the time on a processor that has matrix
    units for it.

    Args:
        *args: As for keras.optimizers.Muon.
        dtype: Dtype of the orthogonalisation; None for the dtype of the weights.
        **options: As for keras.optimizers.Muon.

    Example:
        >>> Muon(1e-3, dtype="bfloat16").get_config()["dtype"]
        'bfloat16'
    """

    def __init__(self, *args: Any, dtype: str | None = None, **options: Any):
        super().__init__(*args, **options)
        self.dtype = dtype

    def update_step(self, gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        """Update one weight, with the learning rate in the dtype of the weight."""
        # Keras would multiply half precision by single, which TensorFlow refuses.
        super().update_step(gradient, variable, ops.cast(learning_rate, variable.dtype))

    def lr_adjust(self, x: Any) -> Any:
        """Scale an update (n, m) to a root mean square of `rms_rate`."""
        return x if self.rms_rate is None else x * (max(x.shape) ** 0.5 * self.rms_rate)

    def zeropower_via_newtonschulz5(self, x: Any, steps: int) -> Any:
        """Approximate the orthogonal matrix nearest to x (n, m), in `dtype`: Jordan et al. 2024."""
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

    def get_config(self) -> dict:
        """Return the arguments."""
        return {**super().get_config(), "dtype": self.dtype}


def muon(
    learning_rate: LearningRate,
    variables: Sequence[keras.Variable],
    weight_decay: float = 0.01,
    **options: Any,
) -> Muon:
    """Make Muon with the settings of kft: matrices move by their orthogonalised momentum.

    The momentum of each kernel is made orthogonal (five Newton-Schulz iterations), so that rare
    directions move as far as common ones, and scaled so that learning rates of AdamW fit. Token
    tables, biases and norms are trained by AdamW. In pre-training it needs fewer steps, each of
    which takes longer; weights that AdamW pre-trained are better fine-tuned by AdamW.

    Args:
        learning_rate: A number or a Keras schedule.
        variables: Variables to train; biases and norms among them do not decay.
        weight_decay: Weight decay of matrices and tables.
        **options: Arguments of `Muon` that differ; `dtype="bfloat16"` is faster.

    Returns:
        Muon, not built yet.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; scaled
    as in Liu et al. 2025, "Muon is scalable for LLM training", section 2.2.

    Example:
        >>> muon(1e-3, [], dtype="bfloat16").dtype
        'bfloat16'
    """
    decay = {"weight_decay": weight_decay, "adam_weight_decay": weight_decay}
    optimizer = Muon(learning_rate, **{**decay, "clipnorm": 1.0, **options})
    return _matrices_decay(optimizer, variables)


def _matrices_decay(optimizer: Any, variables: Sequence[keras.Variable]) -> Any:
    """Exclude biases and norms from the weight decay of an optimizer."""
    vectors = [v for v in variables if len(v.shape) < 2]
    if vectors and len(vectors) == len(variables):
        optimizer.weight_decay = 0.0  # on torch, Keras raises an error where all are excluded
    else:
        optimizer.exclude_from_weight_decay(var_list=vectors)
    return optimizer


class Optimizers:
    """The optimizers of all phases; slots are carried from one phase to the next, by path.

    Weights that have the same learning rate and are trainable since the same phase have an
    optimizer with a step count of their own: Adam corrects its young averages by that count, and a
    count from the first phase on would make steps up to six times too large for weights that were
    just unfrozen.

    Args:
        optimizer: Called as `optimizer(learning_rate, variables)`, returns a Keras optimizer; see
            `adamw`. Where it takes a constant learning rate instead of the given schedule, changes
            of that rate by a callback are carried, too.
    """

    def __init__(self, optimizer: OptimizerFactory = adamw):
        self.optimizer = optimizer
        self.since: dict[str, int] = {}  # phase since which a weight is trainable
        self.slots: dict[str, dict[str, np.ndarray]] = {}
        self.steps: dict[int, int] = {}
        self.reduction = 1.0  # factor by which callbacks have changed a constant learning rate

    def next(
        self, model: keras.Model, phase: Any, number: int, steps_per_epoch: int
    ) -> keras.optimizers.Optimizer:
        """Make and build the optimizer of a phase.

        Args:
            model: The model to train, marked for the phase.
            phase: A `kft.strategies.Phase`.
            number: Number of the phase, from 0.
            steps_per_epoch: Batches of an epoch.

        Returns:
            A Keras optimizer; a `keras.optimizers.MultiOptimizer` where learning rates or step
            counts differ.
        """
        steps = phase.epochs * steps_per_epoch
        warmup = int(phase.warmup * steps)
        groups: dict[tuple[float, int], list[keras.Variable]] = {}
        paths = {}
        for weight in weights(model):
            if weight.trainable:
                paths[id(weight.variable)] = weight.path
                since = self.since.setdefault(weight.path, number)
                key = phase.learning_rate_multipliers.get(weight.path, 1.0), since
                groups.setdefault(key, []).append(weight.variable)
        made = {}
        for (multiplier, since), variables in groups.items():
            begin = self.steps.get(since, 0)
            schedule = WarmupCosine(phase.learning_rate * multiplier, steps, warmup, begin)
            made[multiplier, since] = self.optimizer(schedule, variables)
        optimizer = _joined(made, groups)
        optimizer.build(model.trainable_variables)
        for key, inner in made.items():
            if (constant := _constant_rate(inner)) is not None:
                inner.learning_rate = constant * self.reduction
            batches_seen(inner).assign(self.steps.get(key[1], 0))
            for variable, slots in _slots(inner, groups[key]):
                for name, value in self.slots.get(paths[id(variable)], {}).items():
                    slots[name].assign(value)
        self._made, self._groups, self._paths = made, groups, paths
        self._began = _constant_rate(next(iter(made.values())))
        return optimizer

    def keep(self) -> None:
        """Keep the slots and step counts, after the phase has run."""
        now = _constant_rate(next(iter(self._made.values())))
        if self._began and now is not None:
            self.reduction *= now / self._began
        for key, inner in self._made.items():
            self.steps[key[1]] = int(ops.convert_to_numpy(batches_seen(inner).value))
            for variable, slots in _slots(inner, self._groups[key]):
                self.slots[self._paths[id(variable)]] = {
                    name: ops.convert_to_numpy(slot.value) for name, slot in slots.items()
                }


def _constant_rate(optimizer: keras.optimizers.Optimizer) -> float | None:
    """The learning rate, None where it follows a schedule."""
    if isinstance(learning_rate_of(optimizer), keras.optimizers.schedules.LearningRateSchedule):
        return None
    return float(ops.convert_to_numpy(optimizer.learning_rate))


def _joined(
    made: Mapping[Any, keras.optimizers.Optimizer], groups: Mapping[Any, list[keras.Variable]]
) -> keras.optimizers.Optimizer:
    """One optimizer that holds those of all groups."""
    if len(made) == 1:
        return next(iter(made.values()))
    by_path = {v.path: made[key] for key, variables in groups.items() for v in variables}
    if len(by_path) < sum(map(len, groups.values())):
        raise ValueError(
            "Two weights have the same Keras path, by which Keras assigns learning rates: give "
            "their layers different names."
        )
    rest = next(iter(made.values()))
    return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(rest, by_path))


def _slots(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[keras.Variable]
) -> Iterator[tuple[keras.Variable, dict[str, keras.Variable]]]:
    """Yield each variable with {name: its slot}, such as Adam's two averages."""
    lists = {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, list) and name != "_trainable_variables"
        if len(value) == len(variables)
        if all(v is None or isinstance(v, keras.Variable) for v in value)
    }
    for i, variable in enumerate(optimizer_weights(optimizer)):
        # Muon's matrices have no velocity.
        yield variable, {name: slots[i] for name, slots in lists.items() if slots[i] is not None}
