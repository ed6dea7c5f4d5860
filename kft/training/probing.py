"""Linear probing: the linear head that fits frozen features best, in closed form.

Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes". Ridge
regression for numbers, logistic regression for classes, both of scikit-learn; the strength of the
penalty is chosen on the validation split.

Shapes: `R` rows (records, or residues for a per-residue head), `D` width, `K` outputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression, Ridge

from kft.data.task import Task
from kft.keras_internals import nodes_of
from kft.models.graphs import flat
from kft.training.batching import Batches
from kft.training.features import MEMORY_LIMIT, FeatureBatches, features_of

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]  # features (R, D), targets (R, ...), weights (R,)

# L2 penalties on features of deviation 1, per row. From strong to weak: the search ends when a
# weaker one has a higher validation loss.
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


class _Linear(NamedTuple):
    """A dense layer at the end of a model.

    Attributes:
        features: Its inputs.
        dense: The layer.
        kind: What it predicts: "number", "class" or "labels".
        mean: Added to its outputs, if they are numbers.
        std: By which they are multiplied before.
    """

    features: Any
    dense: keras.layers.Dense
    kind: str
    mean: Any
    std: Any


def solve(
    model: keras.Model,
    train: Batches,
    valid: Batches | None = None,
    class_weight: Sequence[float] | None = None,
    rows: int = 200_000,
    seed: int = 0,
    cache: Path | str | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> float:
    """Set the last dense layer of a model to the linear model that fits its inputs best.

    Args:
        model: A `kft.Model` with a linear head, or a functional Keras model whose last layer with
            weights is Dense.
        train: Batches of `kft.batches` with targets.
        valid: Batches with targets by which the penalty is chosen; None for a fifth of the training
            rows.
        class_weight: One weight per class, or None.
        rows: Most training rows; more are drawn at random.
        seed: Int from which rows are drawn.
        cache: As for `kft.fit_frontier`.
        memory_limit: As for `kft.fit_frontier`.

    Returns:
        The chosen penalty, per row of features of deviation 1.

    Raises:
        ValueError: The head is not linear, or `class_weight` is given for numbers.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> model = kft.Model(backbone, kft.heads.Regression())
        >>> records = ["MKTAYI", "GSS", "AAK", "WYV", "LLD"], [0.0, 1.0, 0.5, 0.2, 0.1]
        >>> solve(model, kft.batches(records, backbone.encode)) > 0
        True
    """
    linear, rng = _linear(model), np.random.default_rng(seed)
    body = _body(model, linear)

    def rows_of(records: Batches) -> Rows:
        kept = features_of(body, records, cache, memory_limit)
        return _rows_of(FeatureBatches(records, kept), rows, rng)

    fitted, held = rows_of(train), None if valid is None else rows_of(valid)
    return _solved(linear, fitted, held, class_weight, rng)


def seconds_to_solve(model: keras.Model, train: Batches) -> float:
    """Measure the time that `solve` takes once the features are computed.

    Args:
        model: As for `solve`; its last dense layer is set.
        train: As for `solve`.

    Returns:
        Seconds.

    Raises:
        ValueError: As for `solve`.
    """
    linear, rng = _linear(model), np.random.default_rng(0)
    kept = features_of(_body(model, linear), train)
    rows = _rows_of(FeatureBatches(train, kept), sum(map(len, train.record_indices)), rng)
    started = time.perf_counter()
    _solved(linear, rows, None, None, rng)
    return time.perf_counter() - started


def _body(model: keras.Model, linear: _Linear) -> keras.Model:
    """Return the model of the features that a dense layer takes."""
    outputs = {"frontier_0": linear.features}
    return keras.Model(flat(model).input, outputs, name=f"{model.name}_features")


def _solved(
    linear: _Linear,
    train: Rows,
    valid: Rows | None,
    class_weight: Sequence[float] | None,
    rng: np.random.Generator,
) -> float:
    """Set a dense layer to what fits some rows best, and return the penalty, see `solve`."""
    _, dense, kind, mean, std = linear
    x, y, w = train
    held: Any = (None, None, None) if valid is None else valid
    x_valid, y_valid, w_valid = held
    if kind == "number" and y.dtype.kind != "f" and dense.units > 1 and y.ndim == 1:
        raise ValueError(
            f"The last layer has {dense.units} linear units and the targets are classes: whether "
            f"the loss takes logits cannot be seen here. Use a softmax, or kft.replace_head."
        )
    if kind == "number":  # the head multiplies by std and adds mean
        y = (y - mean) / std
        y_valid = None if y_valid is None else (y_valid - mean) / std
    centre = np.average(x, axis=0, weights=w)
    scale = np.sqrt(np.average((x - centre) ** 2, axis=0, weights=w))
    scale[scale < 1e-6 * scale.max()] = 1.0  # a constant feature holds nothing
    x = (x - centre) / scale
    if x_valid is None:
        order = rng.permutation(len(x))
        part = order[: max(1, len(x) // 5)]
        fitted = np.delete(np.arange(len(x)), part)
        x_fit, y_fit, w_fit = x[fitted], y[fitted], w[fitted]
        x_valid, y_valid, w_valid = x[part], y[part], w[part]
    else:
        x_fit, y_fit, w_fit, x_valid = x, y, w, (x_valid - centre) / scale
    solver: Callable[..., Any] = {"number": _Ridge, "class": _Logistic, "labels": _EachLabel}[kind]

    def fitted_with(penalty: float, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> Any:
        return solver(penalty, class_weight, dense.units).fit(x, y, w)

    parts = (x_fit, y_fit, w_fit), (x_valid, y_valid, w_valid)
    penalty, best = _best_penalty(fitted_with, *parts)
    if len(x_fit) < len(x):
        best = fitted_with(penalty, x, y, w)
    kernel = best.kernel / scale[:, None]  # (D, K)
    dense.kernel.assign(kernel.astype("float32"))
    dense.bias.assign((best.bias - centre @ kernel).astype("float32"))
    return penalty


def _best_penalty(
    fitted_with: Callable,
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    valid: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[float, Any]:
    """The penalty of the lowest validation loss, and the linear model fitted with it."""
    lowest, chosen, best = np.inf, None, None
    for penalty in PENALTIES:
        candidate = fitted_with(penalty, *train)
        loss = candidate.loss(*valid)
        if loss >= lowest:
            break
        lowest, chosen, best = loss, penalty, candidate
    if chosen is None:
        raise FloatingPointError(
            "The validation loss of the linear model is infinite: look for huge targets or "
            "features, or train the head with the strategy 'head_only'."
        )
    return chosen, best


def _linear(model: keras.Model) -> _Linear:
    head: Any = getattr(model, "head", None)
    if getattr(head, "task", None) is not None:
        if not getattr(head, "is_linear", False):
            raise ValueError(
                f"A linear probe needs a linear head, received {type(head).__name__}{_why(head)}: "
                f"train it with the strategy 'head_only'."
            )
        features = model.backbone.output
        if head.pooling is not None:
            features = head.pooling(features, getattr(model.backbone, "position_mask", None))
        return _Linear(features, head.dense, head.task.target, *_scale(head))
    graph = flat(model)
    nodes = nodes_of(graph, outputs_first=True)
    # From the output back to the dense layer: only one activation may be between them.
    names = [_activation(node.operation) for node in nodes[:2]]
    position = next((i for i in (0, 1) if isinstance(nodes[i].operation, keras.layers.Dense)), None)
    kinds: dict[str | None, str] = {"softmax": "class", "sigmoid": "labels", "linear": "number"}
    kind = {name for name in names[: (position or 0) + 1] if name != "linear"} or {"linear"}
    if position is None or len(graph.outputs) > 1 or len(kind) > 1 or not kind <= kinds.keys():
        raise ValueError(
            f"A linear probe needs a model that ends in one Dense layer with a linear, sigmoid or "
            f"softmax activation; {model.name} ends in "
            f"{', '.join(node.operation.name for node in nodes[1::-1])}. Put a head on it with "
            f"kft.replace_head."
        )
    dense = nodes[position]
    if head is not None and len(head.weights) > len(dense.operation.weights):
        raise ValueError(
            f"A linear probe solves for one Dense layer, and the head {head.name!r} has more "
            f"weights: train it with the strategy 'head_only'."
        )
    if dense.operation.bias is None:
        raise ValueError(
            f"A linear probe sets a bias, which {dense.operation.name!r} lacks: leave out "
            f"use_bias=False, or train it with the strategy 'head_only'."
        )
    return _Linear(dense.input_tensors[0], dense.operation, kinds[kind.pop()], 0.0, 1.0)


def _why(head: Any) -> str:
    """Return why a head of kft is not linear, where it is known."""
    task = Task(head.task)
    if task == Task.CONTACTS:
        return (
            ", which has a hidden layer (kft.fit_contacts solves for the contact head of ESM-2, "
            "which is linear in the attention maps)"
        )
    if task.per_pair:
        return ", which has a hidden layer"
    return ", whose loss has no solution in closed form" if task.target == "angles" else ""


def _activation(operation: keras.Operation) -> str | None:
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(operation, "activation", None), "__name__", None)


def _scale(head: keras.Layer) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(getattr(head, "mean", 0.0)), np.asarray(getattr(head, "std", 1.0))


def _rows_of(batches: FeatureBatches, most: int, rng: np.random.Generator) -> Rows:
    """Features (R, D), targets (R, ...) and weights (R,) above 0 of at most `most` rows."""
    parts = []
    for i in range(len(batches)):
        inputs, targets, *weights = batches[i]
        features = inputs["frontier_0"]
        each = weights[0] if weights else np.ones(len(targets))
        parts.append((features[each > 0], targets[each > 0], each[each > 0]))
    x, y, w = (np.concatenate(column) for column in zip(*parts, strict=True))
    if len(x) > most:
        chosen = rng.choice(len(x), most, replace=False)
        x, y, w = x[chosen], y[chosen], w[chosen]
    return x.astype("float64"), y, w.astype("float64") / w.mean(dtype="float64")


class _Ridge:
    """Least squares with an L2 penalty; `kernel` (D, K), `bias` (K,)."""

    def __init__(self, penalty: float, class_weight: Sequence[float] | None, outputs: int):
        if class_weight is not None:
            raise ValueError("class_weight is for heads that classify.")
        self.penalty, self.outputs = penalty, outputs

    def fit(self, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> _Ridge:
        model = Ridge(alpha=self.penalty * len(x)).fit(x, y.reshape(len(y), self.outputs), w)
        self.kernel, self.bias = model.coef_.reshape(self.outputs, -1).T, model.intercept_
        return self

    def loss(self, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        outputs = x @ self.kernel + self.bias
        squares = (outputs - y.reshape(outputs.shape)) ** 2
        return float(np.average(squares.mean(axis=1), weights=w))


class _Logistic:
    """Multinomial logistic regression; a class without rows gets the bias of a rare class."""

    def __init__(self, penalty: float, class_weight: Sequence[float] | None, outputs: int):
        self.penalty, self.outputs = penalty, outputs
        self.class_weight = None if class_weight is None else dict(enumerate(class_weight))

    def fit(self, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> _Logistic:
        y = y.reshape(-1).astype("int64")
        self.kernel = np.zeros((x.shape[1], self.outputs))
        # As if half a row were of it: its probability is small, and its logarithm finite.
        self.bias = np.full(self.outputs, np.log(0.5 / len(y)))
        seen = np.unique(y)
        if len(seen) == 1:
            self.bias[seen] = 0.0
            return self
        weight = self.class_weight and {k: self.class_weight[k] for k in seen}
        model = LogisticRegression(
            C=1 / (self.penalty * len(x)), max_iter=1000, class_weight=weight
        ).fit(x, y, w)
        kernel, bias = model.coef_, model.intercept_
        if len(seen) == 2:  # scikit-learn keeps the difference of the two
            kernel, bias = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
        self.kernel[:, seen] = kernel.T
        self.bias[seen] = bias
        return self

    def loss(self, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        logits = x @ self.kernel + self.bias
        log = logits - logsumexp(logits, axis=1, keepdims=True)
        y = y.reshape(-1).astype("int64")
        weights = np.array([(self.class_weight or {}).get(k, 1.0) for k in y])
        return float(np.average(-log[np.arange(len(y)), y], weights=w * weights))


class _EachLabel:
    """One logistic regression per label."""

    def __init__(self, penalty: float, class_weight: Sequence[float] | None, outputs: int):
        weights: Sequence[Sequence[float] | None] = [None] * outputs
        if class_weight is not None:
            weights = [[1.0, weight] for weight in class_weight]
        self.labels = [_Logistic(penalty, weight, 2) for weight in weights]

    def fit(self, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> _EachLabel:
        for label, column in zip(self.labels, y.reshape(len(y), -1).T, strict=True):
            label.fit(x, column, w)
        # The logit of one is the difference of the two.
        self.kernel = np.stack([m.kernel[:, 1] - m.kernel[:, 0] for m in self.labels], axis=1)
        self.bias = np.array([m.bias[1] - m.bias[0] for m in self.labels])
        return self

    def loss(self, x: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
        columns = zip(self.labels, y.reshape(len(y), -1).T, strict=True)
        return float(np.mean([label.loss(x, column, w) for label, column in columns]))
