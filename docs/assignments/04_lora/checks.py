"""Checks of assignment 4."""

import keras
import numpy as np
from keras import ops

import kft
from kft.course import (
    Wrong,
    caption_is_complete,
    equal_numbers,
    follows_differences,
    frozen_unmoved,
    hidden,
)


def random_dense(rng, inputs, outputs):
    dense = keras.layers.Dense(outputs)
    dense.build((None, inputs))
    dense.set_weights([rng.normal(0, 0.5, (inputs, outputs)), rng.normal(0, 0.5, outputs)])
    return dense


def layer_of(work, rng, inputs=7, outputs=5, rank=2, alpha=6.0):
    """The submission's layer on a new dense layer, built; and the arrays W and bias."""
    line, dense = work.line_of("LoRADense"), random_dense(rng, inputs, outputs)
    kernel, bias = dense.get_weights()
    layer = work.LoRADense(dense, rank, alpha)
    layer(np.zeros((1, inputs), "float32"))
    for name, shape in {"a": (inputs, rank), "b": (rank, outputs)}.items():
        found = getattr(layer, name, None)
        if found is None:
            raise Wrong(f"`LoRADense` has no weight `{name}`: make it in `build`.", line)
        if tuple(found.shape) != shape:
            raise Wrong(f"`{name}` must have shape {shape}, received {tuple(found.shape)}.", line)
    return layer, kernel, bias


def set_factors(layer, rng):
    """Give A and B random values, and return them."""
    a, b = (rng.normal(0, 0.5, x.shape).astype("float32") for x in (layer.a, layer.b))
    layer.a.assign(a)
    layer.b.assign(b)
    return a, b


def check_start(work, data, rng):
    layer, kernel, bias = layer_of(work, rng)
    line, x = work.line_of("LoRADense"), rng.normal(size=(6, 7)).astype("float32")
    if np.any(ops.convert_to_numpy(layer.b)):
        raise Wrong("`b` must begin with zeros, so that at first the layer is the old one.", line)
    if not np.any(ops.convert_to_numpy(layer.a)):
        raise Wrong("`a` begins with zeros as `b` does: then both gradients stay zero.", line)
    found = ops.convert_to_numpy(layer(x))
    equal_numbers("the layer at its start", found, x @ kernel + bias, 1e-5, line, "x W + b")


def check_formula(work, data, rng):
    line = work.line_of("LoRADense")
    for rank, alpha in ((1, 3.0), (3, 6.0)):
        layer, kernel, bias = layer_of(work, rng, rank=rank, alpha=alpha)
        a, b = set_factors(layer, rng)
        x = rng.normal(size=(6, 7)).astype("float32")
        expected = x @ kernel + bias + alpha / rank * (x @ a) @ b
        found = ops.convert_to_numpy(layer(x))
        for other, why in ((1, "without the scale s"), (alpha, "scaled by alpha, not alpha / r")):
            wrong = x @ kernel + bias + other * (x @ a) @ b
            if (
                found.shape == wrong.shape
                and other != alpha / rank
                and np.allclose(found, wrong, 1e-4)
            ):
                raise Wrong(f"`call` computes x W + b + (x A) B {why}.", line)
        equal_numbers("the output", found, expected, 1e-4, line, "x W + b + s (x A) B")
        merged = kernel + alpha / rank * a @ b
        equal_numbers("`merged`", layer.merged(), merged, 1e-4, line, "W + s A B")


def check_trainable(work, data, rng):
    layer, _, _ = layer_of(work, rng)
    names = sorted(weight.name for weight in layer.trainable_weights)
    if {id(x) for x in layer.trainable_weights} != {id(layer.a), id(layer.b)}:
        raise Wrong(
            f"only `a` and `b` may be trained, received {', '.join(names) or 'none'}: freeze the "
            f"dense layer with `trainable = False`.",
            work.line_of("LoRADense"),
        )


@hidden
def check_step(work, data, rng):
    """One step of gradient descent moves A and B by their gradients, and W not at all."""
    line = work.line_of("LoRADense")
    layer, kernel, bias = layer_of(work, rng)
    a, b = set_factors(layer, rng)
    x, y = rng.normal(size=(8, 7)).astype("float32"), rng.normal(size=(8, 5)).astype("float32")
    model = keras.Sequential([keras.Input((7,)), layer])
    model.compile(keras.optimizers.SGD(0.1), "mean_squared_error")
    model.train_on_batch(x, y)
    equal_numbers("W after a step", ops.convert_to_numpy(layer.dense.kernel), kernel, 0, line,
                  "W before it")  # fmt: skip
    moved = [(old - ops.convert_to_numpy(new)) / 0.1 for old, new in ((a, layer.a), (b, layer.b))]

    def loss(a, b):
        return float(np.mean((x @ kernel.astype("float64") + bias + 3 * (x @ a) @ b - y) ** 2))

    follows_differences(
        lambda v: loss(v, b), moved[0], a, rng, "the layer's gradient in A", 2e-3, line
    )
    follows_differences(
        lambda v: loss(a, v), moved[1], b, rng, "the layer's gradient in B", 2e-3, line
    )


def check_gradients(work, data, rng):
    line = work.line_of("lora_gradients")
    for inputs, rank, outputs in ((5, 2, 3), (3, 4, 6)):
        x, a = rng.normal(size=(9, inputs)), rng.normal(size=(inputs, rank))
        b, upstream = rng.normal(size=(rank, outputs)), rng.normal(size=(9, outputs))
        scale = float(rng.uniform(0.5, 3))

        def loss(a, b, x=x, scale=scale, upstream=upstream):
            return float(np.sum(upstream * (scale * (x @ a) @ b)))

        found = work.lora_gradients(x, a, b, scale, upstream)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise Wrong("`lora_gradients` must return two arrays, those of A and B.", line)
        in_a = scale * x.T @ upstream @ b.T
        if np.shape(found[0]) == in_a.shape and np.allclose(scale * found[0], in_a):
            raise Wrong("`lora_gradients` lacks the scale s in the gradient of A.", line)
        follows_differences(
            lambda v, b=b: loss(v, b), found[0], a, rng, "the gradient in A", line=line
        )
        follows_differences(
            lambda v, a=a: loss(a, v), found[1], b, rng, "the gradient in B", line=line
        )


def best_errors(data):
    """The errors on test records of the best corrections of ranks 1 to 6 (Eckart and Young)."""
    x, rest = data["train_x"], data["train_y"] - data["train_x"] @ data["kernel"]
    full = np.linalg.lstsq(x, rest, rcond=None)[0]
    directions = np.linalg.svd(x @ full, full_matrices=False)[2]
    errors = {}
    for rank in range(1, 7):
        kernel = data["kernel"] + full @ directions[:rank].T @ directions[:rank]
        errors[rank] = float(np.mean((data["test_x"] @ kernel - data["test_y"]) ** 2))
    return errors


def check_layers(work, data):
    line, best = work.line_of("layers"), best_errors(data)
    if not isinstance(work.layers, dict) or sorted(work.layers) != list(best):
        raise Wrong("`layers` must be a dict with a trained layer for each rank from 1 to 6.", line)
    for rank, layer in work.layers.items():
        if not isinstance(layer, work.LoRADense) or layer.a.shape[1] != rank:
            raise Wrong(f"layers[{rank}] is no `LoRADense` of rank {rank}.", line)
        equal_numbers(f"W of layers[{rank}]", ops.convert_to_numpy(layer.dense.kernel),
                      data["kernel"], 0, line, "the old matrix, which stays")  # fmt: skip
        x = data["test_x"]
        reached = float(np.mean((ops.convert_to_numpy(layer(x)) - data["test_y"]) ** 2))
        if not reached < 1.3 * best[rank]:
            raise Wrong(
                f"layers[{rank}] has a test error of {reached:.3g}, where rank {rank} can reach "
                f"{best[rank]:.3g}: it has not learned.",
                line,
            )


def check_errors(work, data):
    line = work.line_of("errors")
    if not isinstance(work.errors, dict) or set(work.errors) != set(work.layers):
        raise Wrong("`errors` must be a dict with an error for each rank in `layers`.", line)
    for rank, layer in work.layers.items():
        found = np.mean((ops.convert_to_numpy(layer(data["test_x"])) - data["test_y"]) ** 2)
        train = np.mean((ops.convert_to_numpy(layer(data["train_x"])) - data["train_y"]) ** 2)
        if abs(work.errors[rank] - train) < 1e-4 * train:
            raise Wrong(f"errors[{rank}] is that of the training records: take the test's.", line)
        equal_numbers(f"errors[{rank}]", work.errors[rank], found, 1e-3, line,
                      f"the test error of layers[{rank}]")  # fmt: skip
    best = best_errors(data)
    needed = min(rank for rank in best if best[rank] <= 1.2 * min(best.values()))
    equal_numbers("rank_needed", work.rank_needed, needed, 0, work.line_of("rank_needed"),
                  "the smallest rank within 1.2 of the smallest error")  # fmt: skip


def check_count(work, data, rng):
    line = work.line_of("lora_parameters")
    for inputs, outputs, rank in rng.integers(1, 900, (5, 3)).tolist():
        equal_numbers(f"lora_parameters({inputs}, {outputs}, {rank})",
                      work.lora_parameters(inputs, outputs, rank), rank * (inputs + outputs), 0,
                      line, "how many numbers A and B have")  # fmt: skip
    table = kft.parameters(work.model)
    equal_numbers("share", work.share, table.trainable / table.total, 1e-3, work.line_of("share"),
                  "the trainable parameters over all parameters of `model`")  # fmt: skip


def check_same_formula(work, data, rng):
    line = work.line_of("by_hand")
    dense = random_dense(rng, 6, 4)
    model = keras.Sequential([keras.Input((6,)), dense, keras.layers.Dense(1)])
    kft.add_lora(model, rank=3, alpha=5, targets=[dense.name])
    adapter = dense.adapters["default"]
    set_factors(adapter, rng)
    x = rng.normal(size=(4, 6)).astype("float32")
    expected = ops.convert_to_numpy(dense(x))
    equal_numbers("by_hand", work.by_hand(dense, x), expected, 1e-4, line, "what the layer answers")


def check_base(work, data):
    line, paths = work.line_of("paths"), work.paths
    frozen_unmoved(work.model, kft.load("kft_esm2_tiny"), line)
    layers = kft.params.layers(work.model)
    if set(paths) != {f"block_{i}/{name}" for i in range(3) for name in ("query", "value")}:
        raise Wrong(f"LoRA belongs into query and value of the 3 blocks, received {paths}.", line)
    for path in paths:
        adapter = getattr(layers[path], "adapters", {}).get("default")
        if adapter is None:
            raise Wrong(f"`model` has no adapter in {path} any more.", line)
        if (adapter.settings.rank, adapter.settings.alpha) != (4, 8):
            raise Wrong("the adapter of `model` must have rank 4 and alpha 8.", line)
        if not np.any(ops.convert_to_numpy(adapter.b)):
            raise Wrong(f"B of {path} is still zero: the adapter was not trained.", line)


def check_merge(work, data):
    now = kft.predict(work.model, data["peptides"])
    for name in ("before", "after"):
        equal_numbers(name, getattr(work, name), now, 1e-4, work.line_of(name),
                      "what `model` predicts")  # fmt: skip
    error, of_mean = np.mean((now[:, 0] - data["charges"]) ** 2), np.var(data["charges"])
    if not error < 0.8 * of_mean:
        raise Wrong(
            f"`model` has an error of {error:.4f}, their mean one of {of_mean:.4f}: train it on "
            f"the charges.",
            work.line_of("done"),
        )


def check_caption(work, data):
    numbers = {
        "the number of training records": len(data["train_x"]),
        "the rank that is needed": int(work.rank_needed),
        "the error at this rank": work.errors[work.rank_needed],
        "the error of the old matrix": np.mean(
            (data["test_x"] @ data["kernel"] - data["test_y"]) ** 2
        ),
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))
