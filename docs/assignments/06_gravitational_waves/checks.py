"""Checks of assignment 6."""

import numpy as np

import kft
from kft.backbones.vision.models import VisionTransformer
from kft.course import (
    Wrong,
    caption_is_complete,
    equal_numbers,
    frozen_unmoved,
    has_learned,
    hidden,
)
from kft.params.fingerprints import digests

PARTS = {"train": (0.5, 0.8), "valid": (0.05, 0.3), "test": (0.1, 0.35)}  # usual shares


def split_holds(work, stretch, seed=0):
    """Check `split` and return its parts."""
    line, found = work.line_of("split"), work.split(stretch.copy(), seed)
    if not isinstance(found, dict) or set(found) != set(PARTS):
        raise Wrong("`split` must return a dict with train, valid and test.", line)
    parts = {name: np.asarray(at) for name, at in found.items()}
    everything = np.sort(np.concatenate(list(parts.values())))
    if not np.array_equal(everything, np.arange(len(stretch))):
        raise Wrong(
            f"`split` must give each of the {len(stretch)} images to one part: it gives "
            f"{len(np.unique(everything))} of them, {len(everything)} in all.",
            line,
        )
    for one, other in (("train", "test"), ("train", "valid"), ("valid", "test")):
        both = np.intersect1d(stretch[parts[one]], stretch[parts[other]])
        if len(both):
            raise Wrong(
                f"`split` separates {len(both)} stretches of noise: they have images in {one} and in "
                f"{other}.",
                line,
            )
    for name, (low, high) in PARTS.items():
        share = len(parts[name]) / len(stretch)
        if not low <= share <= high:
            raise Wrong(f"`split` gives {share:.0%} of the images to {name}.", line)
    return parts


def log_mass(data):
    return np.log10(
        (data["mass_1"] * data["mass_2"]) ** 0.6 / (data["mass_1"] + data["mass_2"]) ** 0.2
    )


def rmse(predicted, true):
    return float(np.sqrt(np.mean((np.ravel(predicted) - true) ** 2)))


def test_images(work, data):
    at = split_holds(work, data["stretch"])["test"]
    return [data["images"][i] for i in at], data["labels"][at]


def test_chirps(work, data):
    at = split_holds(work, data["chirp_stretch"])["test"]
    return [data["chirps"][i] for i in at], log_mass(data)[at]


def model_named(work, name):
    model, line = getattr(work, name), work.line_of(name)
    if not isinstance(model, kft.Model) or not isinstance(model.backbone, VisionTransformer):
        raise Wrong(f"`{name}` must be a kft.Model on the vision transformer.", line)
    return model


def gain_is_clear(gains, needed, name, line):
    """Check that the mean gain over records is above so many standard errors."""
    error = gains.std(ddof=1) / np.sqrt(len(gains))
    if not gains.mean() > needed * error:
        raise Wrong(
            f"`{name}` is better than the baseline by {gains.mean():.3f}, which is not above {needed} standard "
            f"errors ({needed * error:.3f}) over the test images: train it longer.",
            line,
        )


def check_split(work, data):
    for name in ("stretch", "chirp_stretch"):
        split_holds(work, data[name])


@hidden
def check_others(work, data, rng):
    for seed in (0, 1):
        stretch = rng.permutation(np.repeat(rng.permutation(60), rng.integers(2, 7, 60)))
        split_holds(work, stretch, seed)


def check_tokens(work, data):
    for size, patch in ((32, 8), (224, 16), (64, 4), (518, 14)):
        equal_numbers(
            f"`tokens_of({size}, {patch})`", work.tokens_of(size, patch), (size // patch) ** 2 + 1, 1e-9,
            work.line_of("tokens_of"), "a token for each patch and one for the class",
        )  # fmt: skip
    for width in (32, 192, 768):
        equal_numbers(
            f"`parameters_of_attention({width})`", work.parameters_of_attention(width),
            4 * width * (width + 1), 1e-9, work.line_of("parameters_of_attention"),
            "four matrices with their biases",
        )  # fmt: skip


def check_classifier(work, data):
    line, model = work.line_of("classifier"), model_named(work, "classifier")
    images, labels = test_images(work, data)
    probabilities = np.asarray(kft.predict(model, images), "float64")
    if probabilities.shape != (len(labels), len(data["classes"])):
        raise Wrong(f"`classifier` must give {len(data['classes'])} probabilities.", line)
    at = split_holds(work, data["stretch"])["train"]
    counts = np.bincount(data["labels"][at], minlength=len(data["classes"])) + 1e-9
    own = -np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-7, 1))
    gain_is_clear(-np.log(counts / counts.sum())[labels] - own, 3, "classifier", line)


def check_probabilities(work, data):
    model = model_named(work, "classifier")
    images, _ = test_images(work, data)
    right = np.asarray(kft.predict(model, images))
    line = work.line_of("probabilities")
    found = np.asarray(work.probabilities, "float64")
    if found.shape == right.shape and abs(found - right).max() > 1e-3:
        raise Wrong(
            "`probabilities` are not what `classifier` gives now: if it was right before, the training for the "
            "mass has changed its backbone, which `kft.replace_head` shares.",
            line,
        )
    equal_numbers("`probabilities`", found, right, 1e-3, line, "those of `classifier`")


def check_confusion(work, data, rng):
    line, classes = work.line_of("confusion"), 5
    labels, probabilities = rng.integers(classes, size=80), rng.dirichlet(np.ones(classes), 80)
    right = np.zeros((classes, classes), int)
    np.add.at(right, (labels, probabilities.argmax(axis=1)), 1)
    found = np.asarray(work.confusion(labels, probabilities))
    if found.shape == right.shape and np.array_equal(found, right.T):
        raise Wrong("`confusion` has the true classes in columns: rows are the true ones.", line)
    equal_numbers("`confusion`", found, right, 1e-9, line, "the counts")


def check_chirp_mass(work, data, rng):
    one, other = np.exp(rng.uniform(0, 4, (2, 30)))
    right = (one * other) ** 0.6 / (one + other) ** 0.2
    equal_numbers(
        "`chirp_mass`", work.chirp_mass(one, other), right, line=work.line_of("chirp_mass"),
        why="(m1 m2)^(3/5) / (m1 + m2)^(1/5)",
    )  # fmt: skip


def check_regressor(work, data):
    line, model = work.line_of("regressor"), model_named(work, "regressor")
    classifier = model_named(work, "classifier")
    frozen_unmoved(model.backbone, digests(classifier.backbone, None), line)
    if learning := kft.parameters(model.backbone).trainable:
        raise Wrong(
            f"the backbone of `regressor` is not frozen: {learning:,} of its parameters were trained, and "
            f"with them `classifier`.",
            line,
        )
    images, targets = test_chirps(work, data)
    predicted = np.asarray(kft.predict(model, images))
    if predicted.size != len(targets):
        raise Wrong("`regressor` must give one number for each image.", line)
    if np.ptp(predicted) < 1e-4:
        raise Wrong("`regressor` gives the same number for each image: train its head.", line)
    at = split_holds(work, data["chirp_stretch"])["train"]
    if not rmse(predicted, targets) < 1.1 * rmse(log_mass(data)[at].mean(), targets):
        raise Wrong(
            "`regressor` is worse than always saying the mean: train its head longer.", line
        )


def check_tuned(work, data):
    line, model = work.line_of("tuned"), model_named(work, "tuned")
    classifier = model_named(work, "classifier")
    if model.backbone is classifier.backbone:
        raise Wrong("`tuned` shares its backbone with `classifier`: train a copy.", line)
    before = digests(classifier.backbone, None)
    has_learned(model.backbone, {x: y for x, y in before.items() if x.endswith("kernel")}, line)
    images, targets = test_chirps(work, data)
    at = split_holds(work, data["chirp_stretch"])["train"]
    own = (np.ravel(kft.predict(model, images)) - targets) ** 2
    gain_is_clear((log_mass(data)[at].mean() - targets) ** 2 - own, 2, "tuned", line)


def right_errors(work, data):
    images, targets = test_chirps(work, data)
    at = split_holds(work, data["chirp_stretch"])["train"]
    return {
        "constant": rmse(log_mass(data)[at].mean(), targets),
        "head_only": rmse(kft.predict(model_named(work, "regressor"), images), targets),
        "full": rmse(kft.predict(model_named(work, "tuned"), images), targets),
    }


def check_errors(work, data):
    line, right = work.line_of("errors"), right_errors(work, data)
    if not isinstance(work.errors, dict) or set(work.errors) != set(right):
        raise Wrong(f"`errors` must be a dict with {', '.join(right)}.", line)
    for name, value in right.items():
        equal_numbers(
            f"errors[{name!r}]", work.errors[name], value, 1e-3, line, "the RMSE in log10"
        )


def check_caption(work, data):
    right = right_errors(work, data)
    numbers = {
        "the number of training chirps": len(split_holds(work, data["chirp_stretch"])["train"]),
        "the RMSE of `tuned`": right["full"],
        "the RMSE of the constant": right["constant"],
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))
