"""Checks of assignment 3."""

import keras
import numpy as np

import kft
from kft.course import (
    Wrong,
    below_baseline,
    caption_is_complete,
    equal_numbers,
    frozen_unmoved,
    has_learned,
    hidden,
)
from kft.params import digests


def small(rng):
    """A network with a batch normalisation, as another student could have it."""
    filters, width, classes = rng.integers(2, 6, 3).tolist()
    keras.utils.set_random_seed(int(rng.integers(2**31)))
    images = x = keras.Input((8, 8, 1))
    for layer in [
        keras.layers.Conv2D(filters, 3, name="conv"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.GlobalAveragePooling2D(name="pool"),
        keras.layers.Dense(width, "relu", name="features"),
        keras.layers.Dense(classes, "softmax", name="head"),
    ]:
        x = layer(x)
    return keras.Model(images, x)


def check_count(work, data, rng):
    for a, b, c in rng.integers(1, 60, (4, 3)).tolist():
        for name, arguments, right, why in (
            (
                "conv_parameters",
                (a, b, c),
                (a * a * b + 1) * c,
                "the weights and a bias for each filter",
            ),
            ("dense_parameters", (a, b), (a + 1) * b, "the weights and a bias for each output"),
            (
                "norm_parameters",
                (a,),
                (2 * a, 2 * a),
                "2 trained and 2 running numbers for each channel",
            ),
        ):
            found = getattr(work, name)(*arguments)
            told = f"{name}{arguments}" if len(arguments) > 1 else f"{name}({a})"
            equal_numbers(told, found, right, 0, work.line_of(name), why)
    total = work.old.count_params()
    equal_numbers("total", work.total, total, 0, work.line_of("total"), "what `old` has")


def check_freeze(work, data, rng):
    line, model = work.line_of("freeze"), small(rng)
    work.freeze(model)
    head = model.layers[-1]
    if not model.trainable or not head.trainable:
        raise Wrong("`freeze` freezes the last layer, too: then nothing can learn.", line)
    left = [x.name for x in model.layers[:-1] if x.trainable and x.weights]
    if left:
        raise Wrong(f"`freeze` leaves {', '.join(left)} trainable.", line)
    if {id(x) for x in model.trainable_weights} != {id(x) for x in head.weights}:
        raise Wrong("after `freeze` other weights than those of the last layer are trained.", line)


def check_chop(work, data, rng):
    line, model = work.line_of("chop"), small(rng)
    images = rng.normal(size=(5, 8, 8, 1)).astype("float32")
    before, answer = digests(model, None), model.predict(images, verbose=0)
    classes = int(rng.integers(6, 9))
    new = work.chop(model, classes)
    if not isinstance(new, keras.Model):
        raise Wrong("`chop` must return a Keras model.", line)
    if tuple(new.output.shape) != (None, classes):
        raise Wrong(
            f"`chop` for {classes} classes has outputs {tuple(new.output.shape)}: put the new head "
            f"on the features before the old one.",
            line,
        )
    old_layers, layers = (
        [x for x in model.layers if x.weights],
        [x for x in new.layers if x.weights],
    )
    if any(layer is old_layers[-1] for layer in layers):
        raise Wrong("the old head is still in the new model: take the output before it.", line)
    if len(layers) != len(old_layers) or any(
        one is not other for one, other in zip(layers[:-1], old_layers[:-1], strict=True)
    ):
        raise Wrong(
            "the new model does not share all layers before the head with the old one.", line
        )
    probabilities = new.predict(images, verbose=0)
    if np.abs(probabilities.sum(axis=1) - 1).max() > 1e-4 or probabilities.min() < 0:
        raise Wrong("the new head gives no probabilities: it needs a softmax.", line)
    frozen_unmoved(model, before, line)
    equal_numbers("what `model` answers", model.predict(images, verbose=0), answer, 1e-5, line,
                  "what it answered before, since `chop` leaves it as it is")  # fmt: skip


@hidden
def check_transfer(work, data, rng):
    """On other digits: the old layers stay, running means too; the new head learns."""
    line, drawn = work.line_of("transfer"), work.draw(rng)
    base = keras.models.clone_model(work.old)
    base.set_weights(work.old.get_weights())
    for layer in base.layers:  # the clone of a frozen layer is frozen
        layer.trainable = True
    before = digests(base, None)
    new = work.transfer(base, drawn["images"], drawn["labels"], 7)
    frozen_unmoved(base, before, line)
    reached = np.mean(
        new.predict(drawn["test_images"], verbose=0).argmax(axis=1) == drawn["test_labels"]
    )
    if not reached > 0.4:
        raise Wrong(f"`transfer` to other digits reaches an accuracy of {reached:.2f}.", line)


def check_frozen(work, data):
    """In what is handed in: the layers are those of `old`, frozen, and as they were trained."""
    line = work.line_of("chopped")
    if not isinstance(work.chopped, dict) or sorted(work.chopped) != [0, 1, 2]:
        raise Wrong("`chopped` must be a dict with a model for each of the seeds 0, 1, 2.", line)
    if kft.fingerprint(work.old, None) != work.before:
        raise Wrong("weights of `old` have moved since `before`: its layers were not frozen.", line)
    for model in work.chopped.values():
        names = {layer.name for layer in model.layers if layer.weights} - {model.layers[-1].name}
        for name in sorted(names):
            if model.get_layer(name) is not work.old.get_layer(name):
                raise Wrong(f"{name} of a chopped model is not that of `old`.", line)
            if model.get_layer(name).trainable:
                raise Wrong(
                    f"{name} of a chopped model is trainable: freeze before training.", line
                )
    accuracy = np.mean(
        work.old.predict(data["old_images"], verbose=0).argmax(axis=1) == data["old_labels"]
    )
    if accuracy < 0.9:
        raise Wrong(
            f"`old` recognises {accuracy:.0%} of the old digits: its layers were trained again, "
            f"or not enough.",
            work.line_of("old"),
        )


def check_scores(work, data):
    line = work.line_of("scores")
    if not isinstance(work.scores, dict) or set(work.scores) != {"chopped", "anew"}:
        raise Wrong('`scores` must be a dict with "chopped" and "anew".', line)
    for seed, model in work.chopped.items():
        answers = model.predict(data["test_images"], verbose=0).argmax(axis=1)
        equal_numbers(f"scores['chopped'][{seed}]", work.scores["chopped"][seed],
                      np.mean(answers == data["test_labels"]), 2e-3, line,
                      f"the test accuracy of chopped[{seed}]")  # fmt: skip
    common = np.bincount(data["test_labels"]).max() / len(data["test_labels"])
    for name in ("chopped", "anew"):
        below_baseline(work.scores[name], common, 2, line, f"accuracy {name!r}", True)


@hidden
def check_anew(work, data):
    line = work.line_of("scores")
    model = work.anew(5)
    answers = model.predict(data["test_images"], verbose=0).argmax(axis=1)
    again, told = (
        float(np.mean(answers == data["test_labels"])),
        float(np.mean(work.scores["anew"])),
    )
    if abs(again - told) > 0.15:
        raise Wrong(f"`anew` reaches {again:.2f}, and `scores` says {told:.2f}.", line)


def check_peptides_frozen(work, data):
    fresh = kft.load("kft_esm2_tiny")
    line = work.line_of("backbone")
    frozen_unmoved(work.peptide_model, fresh, line)
    table = kft.parameters(work.peptide_model)
    trained = table.trainable / table.total
    equal_numbers("share", work.share, trained, 1e-3, work.line_of("share"),
                  "the trainable parameters over all parameters of `peptide_model`")  # fmt: skip
    if table.trainable != 2 * 321:
        raise Wrong(
            f"{table.trainable:,} parameters of `peptide_model` are trainable, and its head has "
            f"642: freeze the backbone, not the head.",
            line,
        )
    head = kft.Model(fresh, kft.heads.Classification(2))
    has_learned(work.peptide_model, head, work.line_of("done"), work.peptide_model.head.name)


def check_peptides_score(work, data):
    labels = np.asarray(data["test_antimicrobial"])
    answers = kft.predict(work.peptide_model, data["test_peptides"]).argmax(axis=1)
    reached, majority = np.mean(answers == labels), max(labels.mean(), 1 - labels.mean())
    error = np.sqrt(reached * (1 - reached) / len(labels))
    if not reached > majority + 2 * error:
        raise Wrong(
            f"the test accuracy is {reached:.3f}, and not above {majority:.3f}, that of the more "
            f"frequent class, by two standard errors ({2 * error:.3f}).",
            work.line_of("done"),
        )


def check_replaced(work, data):
    line, model = work.line_of("regressor"), work.regressor
    if not isinstance(model, keras.Model) or tuple(model.output.shape) != (None, 1):
        raise Wrong("`regressor` must be a model that predicts one number.", line)
    if getattr(model, "backbone", None) is not work.peptide_model.backbone:
        raise Wrong("`regressor` does not share the backbone of `peptide_model`.", line)
    if kft.parameters(model).trainable != 321:
        raise Wrong("in `regressor` the head alone, with 321 parameters, is to be trained.", line)


def check_caption(work, data):
    numbers = {
        "the number of training images": len(data["images"]),
        "the number of test images": len(data["test_images"]),
        "the mean accuracy of the new heads": np.mean(work.scores["chopped"]),
        "the mean accuracy of networks trained anew": np.mean(work.scores["anew"]),
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))
