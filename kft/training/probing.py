"""Linear probing: the head that fits frozen features best, solved for in closed form.

Alain and Bengio 2017, "Understanding intermediate layers using linear classifier probes". Ridge
regression for numbers, logistic regression for classes, both scikit-learn's; the strength of the
penalty is chosen on the validation split.

Shapes: `R` rows (records, or residues for a per-residue head), `D` width, `K` outputs.
"""

import keras
import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression, Ridge

from kft.keras_internals import nodes_of
from kft.models.graphs import flat

# Of the L2 penalty on features of deviation 1, per row. From strong to weak: the search ends when
# a weaker one does worse.
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def solve(model, train, valid=None, class_weight=None, rows=200_000, seed=0):
    """Sets the last dense layer of a model to the linear model that fits its inputs best.

    Args:
        model: a `kft.Model` with a linear head, or a functional Keras model whose last layer with
            weights is Dense.
        train, valid: batches of `kft.batches` with targets; without `valid` a fifth of the
            training rows chooses the penalty.
        class_weight: one weight per class, or None.
        rows: most training rows; more are drawn at random.
        seed: int from which rows are drawn.

    Returns:
        float, the penalty chosen, per row of features of deviation 1.

    Raises:
        ValueError: the head is not linear, or `class_weight` for numbers.
    """
    features, dense, kind, mean, std = _linear(model)
    body = keras.Model(flat(model).input, features)
    rng = np.random.default_rng(seed)
    x, y = _rows_of(body, train, rows, rng)
    x_valid, y_valid = _rows_of(body, valid, rows, rng) if valid is not None else (None, None)
    if kind == "regression" and y.dtype.kind != "f" and dense.units > 1 and y.ndim == 1:
        raise ValueError(
            f"The last layer has {dense.units} linear units and the targets are classes: a linear "
            f"probe does not see that a loss takes logits. Use a softmax, or kft.replace_head."
        )
    if kind == "regression":  # the head multiplies by std and adds mean
        y = (y - mean) / std
        y_valid = None if y_valid is None else (y_valid - mean) / std
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-6 * scale.max()] = 1.0  # a constant feature says nothing
    x = (x - centre) / scale
    if x_valid is None:
        order = rng.permutation(len(x))
        part = order[: max(1, len(x) // 5)]
        fitted, chosen = np.delete(np.arange(len(x)), part), part
        x_fit, y_fit, x_valid, y_valid = x[fitted], y[fitted], x[chosen], y[chosen]
    else:
        x_fit, y_fit, x_valid = x, y, (x_valid - centre) / scale
    solver = {"regression": _Ridge, "classification": _Logistic, "multilabel": _EachLabel}[kind]
    found = [np.inf, None, None]
    for penalty in PENALTIES:
        one = solver(penalty, class_weight, dense.units)
        loss = one.fit(x_fit, y_fit).loss(x_valid, y_valid)
        if loss >= found[0]:
            break
        found = [loss, penalty, one]
    _, penalty, best = found
    if len(x_fit) < len(x):
        best = solver(penalty, class_weight, dense.units).fit(x, y)
    kernel = best.kernel / scale[:, None]  # (D, K)
    dense.kernel.assign(kernel.astype("float32"))
    dense.bias.assign((best.bias - centre @ kernel).astype("float32"))
    return penalty


def _linear(model):
    """(what the dense layer is called with, the layer, the kind of answer, mean, std)."""
    head = getattr(model, "head", None)
    if getattr(head, "task", None) is not None:
        dense = getattr(head, "dense", None)
        if not isinstance(dense, keras.layers.Dense) or head.last != "dense":
            raise ValueError(
                f"A linear probe needs a linear head, received {type(head).__name__}: train it "
                f"with the strategy 'head_only'."
            )
        features = model.backbone.output
        if head.pooling is not None:
            features = head.pooling(features, getattr(model.backbone, "residue_mask", None))
        return features, dense, head.task.removeprefix("residue_"), *_scale(head)
    graph = flat(model)
    nodes = nodes_of(graph, outputs_first=True)
    # From the output back to the dense layer: nothing but one activation may lie between.
    names = [_activation(node.operation) for node in nodes[:2]]
    found = next((i for i in (0, 1) if isinstance(nodes[i].operation, keras.layers.Dense)), None)
    kinds = {"softmax": "classification", "sigmoid": "multilabel", "linear": "regression"}
    kind = {name for name in names[: (found or 0) + 1] if name != "linear"} or {"linear"}
    if found is None or len(graph.outputs) > 1 or len(kind) > 1 or not kind <= kinds.keys():
        raise ValueError(
            f"A linear probe needs a model that ends in one Dense layer with a linear, sigmoid or "
            f"softmax activation; {model.name} ends in "
            f"{', '.join(node.operation.name for node in nodes[1::-1])}. Put a head on it with "
            f"kft.replace_head."
        )
    dense = nodes[found]
    return dense.input_tensors[0], dense.operation, kinds[kind.pop()], 0.0, 1.0


def _activation(operation):
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(operation, "activation", None), "__name__", None)


def _scale(head):
    return np.asarray(getattr(head, "mean", 0.0)), np.asarray(getattr(head, "std", 1.0))


def _rows_of(body, batches, most, rng):
    """Features (R, D) and targets (R, ...) of what counts, at most so many."""
    found = []
    for i in range(len(batches)):
        inputs, targets, *weights = batches[i]
        features = keras.ops.convert_to_numpy(body.predict_on_batch(inputs))
        counts = weights[0] > 0 if weights else np.ones(len(targets), dtype=bool)
        found.append((features[counts], targets[counts]))
    x, y = (np.concatenate(column) for column in zip(*found, strict=True))
    if len(x) > most:
        chosen = rng.choice(len(x), most, replace=False)
        x, y = x[chosen], y[chosen]
    return x.astype("float64"), y


class _Ridge:
    """Least squares with an L2 penalty; `kernel` (D, K), `bias` (K,)."""

    def __init__(self, penalty, class_weight, outputs):
        if class_weight is not None:
            raise ValueError("class_weight is for heads that classify.")
        self.penalty, self.outputs = penalty, outputs

    def fit(self, x, y):
        model = Ridge(alpha=self.penalty * len(x)).fit(x, y.reshape(len(y), self.outputs))
        self.kernel, self.bias = model.coef_.reshape(self.outputs, -1).T, model.intercept_
        return self

    def loss(self, x, y):
        answers = x @ self.kernel + self.bias
        return float(np.mean((answers - y.reshape(answers.shape)) ** 2))


class _Logistic:
    """Multinomial logistic regression; a class without rows gets the bias of a rare one."""

    def __init__(self, penalty, class_weight, outputs):
        self.penalty, self.outputs = penalty, outputs
        self.class_weight = None if class_weight is None else dict(enumerate(class_weight))

    def fit(self, x, y):
        y = y.reshape(-1).astype("int64")
        self.kernel = np.zeros((x.shape[1], self.outputs))
        # Half a row that was never seen: its probability is small, and its logarithm finite.
        self.bias = np.full(self.outputs, np.log(0.5 / len(y)))
        seen = np.unique(y)
        if len(seen) == 1:
            self.bias[seen] = 0.0
            return self
        weight = self.class_weight and {k: self.class_weight[k] for k in seen}
        model = LogisticRegression(
            C=1 / (self.penalty * len(x)), max_iter=1000, class_weight=weight
        ).fit(x, y)
        kernel, bias = model.coef_, model.intercept_
        if len(seen) == 2:  # scikit-learn keeps the difference of the two
            kernel, bias = np.concatenate([-kernel, kernel]) / 2, np.concatenate([-bias, bias]) / 2
        self.kernel[:, seen] = kernel.T
        self.bias[seen] = bias
        return self

    def loss(self, x, y):
        logits = x @ self.kernel + self.bias
        log = logits - logsumexp(logits, axis=1, keepdims=True)
        y = y.reshape(-1).astype("int64")
        weights = np.array([(self.class_weight or {}).get(k, 1.0) for k in y])
        return float(np.average(-log[np.arange(len(y)), y], weights=weights))


class _EachLabel:
    """One logistic regression per label."""

    def __init__(self, penalty, class_weight, outputs):
        weights = [None] * outputs if class_weight is None else [[1.0, w] for w in class_weight]
        self.labels = [_Logistic(penalty, weight, 2) for weight in weights]

    def fit(self, x, y):
        for label, column in zip(self.labels, y.reshape(len(y), -1).T, strict=True):
            label.fit(x, column)
        # The logit of one is the difference of the two.
        self.kernel = np.stack([m.kernel[:, 1] - m.kernel[:, 0] for m in self.labels], axis=1)
        self.bias = np.array([m.bias[1] - m.bias[0] for m in self.labels])
        return self

    def loss(self, x, y):
        columns = zip(self.labels, y.reshape(len(y), -1).T, strict=True)
        return float(np.mean([label.loss(x, column) for label, column in columns]))
