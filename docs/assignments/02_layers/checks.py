"""Checks of assignment 2."""

from itertools import pairwise

import keras
import numpy as np
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from kft.course import Wrong, below_baseline, caption_is_complete, equal_numbers, hidden

SIDE = 14


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor)


def check_gelu(work, data, rng):
    line = work.line_of("gelu")
    for shape in ((1000,), (7, 5), (2, 3, 4, 5)):
        x = rng.normal(0, 2, shape).astype("float32")
        result = work.gelu(keras.ops.convert_to_tensor(x))
        if result is None or isinstance(result, float) or not hasattr(result, "shape"):
            raise Wrong(f"`gelu` must return a tensor, received {result!r}.", line)
        found = numbers(result)
        exact = x * norm.cdf(x)
        tanh = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        if (
            found.shape == x.shape
            and np.abs(found - tanh).max() < 1e-6 < np.abs(found - exact).max()
        ):
            raise Wrong("`gelu` is the approximation by tanh: use the error function erf.", line)
        equal_numbers(
            "gelu(x)",
            found,
            exact,
            2e-6,
            line,
            "x times the share of a standard normal distribution below x",
        )


def check_step(work, data, rng):
    line = work.line_of("step")
    for y in (-1, 1):
        for right in (True, False):
            w, b, x = rng.normal(size=3), float(rng.normal()), rng.normal(size=3)
            b += (y if right else -y) * 0.5 - (w @ x + b)  # so that w x + b has this sign
            expected = (w, b) if right else (w + 0.1 * y * x, b + 0.1 * y)
            before = w.copy()
            found = work.step(w, b, x, y, 0.1)
            if not isinstance(found, tuple | list) or len(found) != 2:
                raise Wrong("`step` must return the pair (w, b).", line)
            if not np.array_equal(w, before):
                raise Wrong("`step` changes the array `w` that it gets: return a new one.", line)
            why = "what it was, since the point was right" if right else "w + rate y x"
            equal_numbers("w after `step`", found[0], expected[0], 1e-9, line, why)
            why = why.replace("w + rate y x", "b + rate y")
            equal_numbers("b after `step`", found[1], expected[1], 1e-9, line, why)


def separates(work, x, y):
    line = work.line_of("perceptron")
    found = work.perceptron(x, y)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Wrong("`perceptron` must return the pair (w, b).", line)
    w, b = np.asarray(found[0], "float64"), float(found[1])
    if w.shape != (2,):
        raise Wrong(f"w must have shape (2,), received {w.shape}.", line)
    wrong = int((np.sign(x @ w + b) != y).sum())
    if wrong:
        raise Wrong(
            f"the perceptron is wrong on {wrong} of {len(x)} points, which a line separates: go "
            f"through the points until all are right.",
            line,
        )


@hidden
def check_perceptron(work, data, rng):
    separates(work, data["line_x"], data["line_y"])
    for _ in range(5):
        separates(work, *work.module.line(rng))


def dense_layers(model):
    return [x for x in model.layers if isinstance(x, keras.layers.Dense)]


def check_mlp(work, data, rng):
    line = work.line_of("mlp")
    for inputs, hidden_units, outputs in ((2, [5], 1), (4, [6, 3], 2), (3, [4, 4, 4], 5)):
        model = work.mlp(inputs, hidden_units, outputs)
        if not isinstance(model, keras.Model):
            raise Wrong(f"`mlp` must return a Keras model, received {model!r}.", line)
        sizes = [inputs, *hidden_units, outputs]
        expected = sum((a + 1) * b for a, b in pairwise(sizes))
        equal_numbers(
            f"the number of weights of mlp({inputs}, {hidden_units}, {outputs})",
            model.count_params(), expected, 0, line, f"that of Dense layers {sizes}",
        )  # fmt: skip
        layers = dense_layers(model)
        x = rng.normal(0, 1, (6, inputs)).astype("float32")
        for layer in layers:  # no bias is left out
            layer.bias.assign(rng.normal(0, 0.5, layer.bias.shape))
        h = x.astype("float64")
        for layer in layers:
            linear = h @ numbers(layer.kernel) + numbers(layer.bias)
            h = linear * norm.cdf(linear)
        why = "Dense layers with gelu between them, and none after the last"
        equal_numbers("what `mlp` computes", numbers(model(x)), linear, 1e-5, line, why)


def trained(work, name, x, y, seed):
    model = getattr(work, name)(x, y, seed)
    if not isinstance(model, keras.Model):
        raise Wrong(f"`{name}` must return a Keras model, received {model!r}.", work.line_of(name))
    return model


def check_rings(work, data, rng):
    line = work.line_of("train_rings")
    y = data["ring_test_y"]
    losses = []
    for seed in range(3):
        model = trained(work, "train_rings", data["ring_x"], data["ring_y"], seed)
        logits = numbers(model(data["ring_test_x"])).astype("float64")
        if logits.shape != (len(y), 1):
            raise Wrong(f"its output must have shape (points, 1), received {logits.shape}.", line)
        losses.append(np.mean(np.logaddexp(0, np.where(y == 1, -1, 1) * logits[:, 0])))
    best_line = LogisticRegression().fit(data["ring_x"], data["ring_y"])
    shares = best_line.predict_proba(data["ring_test_x"])
    baseline = -np.log(shares[np.arange(len(y)), y]).mean()
    below_baseline(losses, 0.5 * baseline, 2, line, "the loss on test points (half that of a line)")


def check_cnn(work, data, rng):
    line = work.line_of("cnn")
    model = work.cnn(4)
    if not isinstance(model, keras.Model):
        raise Wrong(f"`cnn` must return a Keras model, received {model!r}.", line)
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    if not convolutions:
        raise Wrong("`cnn` has no Conv2D.", line)
    if tuple(model.output_shape) != (None, 4):
        raise Wrong(f"its output must have shape (None, 4), received {model.output_shape}.", line)
    most = (SIDE**2 + 1) * 64 + 65 * 4
    if model.count_params() >= most:
        raise Wrong(
            f"it has {model.count_params():,} weights, and the MLP with 64 hidden units {most:,}: "
            f"pool before the last Dense layer.",
            line,
        )
    features = keras.Model(model.inputs[0], convolutions[0].output)
    image = np.zeros((1, SIDE, SIDE, 1), "float32")
    image[0, 4:9, 4:9, 0] = rng.random((5, 5))
    here, moved = (numbers(features(x)) for x in (image, np.roll(image, 1, axis=2)))
    if here.shape[1:3] != (SIDE, SIDE):
        raise Wrong("its first Conv2D must keep the size of the picture: padding='same'.", line)
    equal_numbers("its features of a moved picture", moved, np.roll(here, 1, axis=2), 1e-5, line)


def check_digits(work, data, rng):
    line = work.line_of("train_digits")
    x, y = data["image_test_x"], data["image_test_y"]
    scores = []
    for seed in range(3):
        model = trained(work, "train_digits", data["image_x"], data["image_y"], seed)
        scores.append(float((numbers(model(x)).argmax(1) == y).mean()))
    pixels, new_pixels = (images.reshape(len(images), -1) for images in (data["image_x"], x))
    varied = pixels.std(axis=0) > 0  # scikit-learn warns of pixels that are always black
    mean_picture = NearestCentroid().fit(pixels[:, varied], data["image_y"])
    baseline = mean_picture.score(new_pixels[:, varied], y)
    scores = [score + 1e-9 * i for i, score in enumerate(scores)]  # accuracies may be equal
    below_baseline(scores, baseline, 2, line, "the accuracy", higher_is_better=True)


def check_caption(work, data):
    weights = {
        "the number of training pictures": len(data["image_x"]),
        "the weights of the MLP": (SIDE**2 + 1) * 64 + 65 * 4,
        "the weights of the CNN": work.cnn(4).count_params(),
    }
    caption_is_complete(work.caption, weights, work.line_of("caption"))
