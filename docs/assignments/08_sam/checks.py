"""Checks of assignment 8."""

from pathlib import Path

import numpy as np

import kft
from kft.backbones.sam import Sam, original_name
from kft.course import (
    Wrong,
    caption_is_complete,
    equal_numbers,
    follows_differences,
    frozen_unmoved,
    has_learned,
)
from kft.params.fingerprints import digests
from kft.segmentation import Predictor, boxes_of, to_masks

HEAD = "mask_decoder/iou_prediction_head"
NAMED = ("mask_decoder.iou_prediction_head", "prompt_encoder", "mask_decoder.output_upscaling")


CACHE = {}  # of this submission: what takes a second is computed once


def once(name, function, *arguments):
    if name not in CACHE:
        CACHE[name] = function(*arguments)
    return CACHE[name]


def fresh(data):
    """The model as the student got it, the same each time; its weights are never changed here."""
    return once("model", lambda: kft.backbones.randomised(Sam(**data["shape"]), data["seed"]))


def trainable_paths(model):
    return {f"{row.module}/{row.weight}" for row in kft.parameters(model).rows if row.trainable}


def true_and_predicted(model, image, labels):
    found = Predictor(model).set_image(image).predict(boxes=boxes_of(labels))
    truth = to_masks(labels)[:, None]
    both, either = (found.masks & truth).sum((-2, -1)), (found.masks | truth).sum((-2, -1))
    true = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    return true, np.asarray(found.iou, "float64"), found.masks


def all_of(model, split):
    return [true_and_predicted(model, *x) for x in zip(split.inputs, split.targets, strict=True)]


def errors_of(found):
    return np.array([((predicted - true) ** 2).mean() for true, predicted, _ in found])


def before(data):
    """What the model did with the test images before training."""
    return once("before", all_of, fresh(data), data["cells"].test)


def after(work, data):
    """What `sam` does with the test images now."""
    return once("after", all_of, work.sam, data["cells"].test)


def check_table(work, data):
    line, model = work.line_of("table_of"), fresh(data)
    for frozen in (["image_encoder"], ["mask_decoder.transformer"]):
        kft.unfreeze(model)
        kft.freeze(model, frozen)
        right = [
            (
                original_name(f"{row.module}/{row.weight}"),
                "trainable" if row.trainable else "frozen",
                row.parameters,
            )
            for row in kft.parameters(model).rows
        ]
        found = [tuple(row) for row in work.table_of(model)]
        if len(found) != len(right):
            raise Wrong(
                f"`table_of` has {len(found)} lines for a model with {len(right)} weights: one for "
                f"each weight, trainable or not.",
                line,
            )
        for one, wanted in zip(sorted(found), sorted(right), strict=True):
            if one != wanted:
                raise Wrong(f"`table_of` has the line {one}, which should be {wanted}.", line)


def check_freeze(work, data):
    line, model = work.line_of("freeze_all_but"), fresh(data)
    for name in NAMED:
        kft.unfreeze(model)
        kft.train_only(model, name)
        right = trainable_paths(model)
        for state in ("all trainable", "all frozen"):
            kft.unfreeze(model)
            if state == "all frozen":
                kft.freeze(model)
            work.freeze_all_but(model, name)
            found = trainable_paths(model)
            if more := sorted(found - right):
                raise Wrong(
                    f"after `freeze_all_but(model, {name!r})` {len(more)} other weights are trainable, "
                    f"such as {more[0]}.",
                    line,
                )
            if less := sorted(right - found):
                raise Wrong(
                    f"after `freeze_all_but(model, {name!r})` of a model in which {state.split()[1]} "
                    f"is every layer, {len(less)} weights of it are frozen, such as {less[0]}.",
                    line,
                )


def check_counts(work, data):
    model, line = fresh(data), work.line_of("counts")
    kft.train_only(model, HEAD)
    if not isinstance(work.counts, dict) or set(work.counts) != {"all", "trainable"}:
        raise Wrong("`counts` must be a dict with all and trainable.", line)
    table = kft.parameters(model)
    for name, right in {"all": table.total, "trainable": table.trainable}.items():
        equal_numbers(f"counts[{name!r}]", work.counts[name], right, 1e-12, line)


def check_iou(work, data, rng):
    line = work.line_of("iou")
    nothing = np.zeros((9, 7), bool)
    pairs = [tuple(rng.random((2, 9, 7)) < share) for share in (0.2, 0.5, 0.8)]
    for mask, truth in [*pairs, (pairs[0][0], nothing), (nothing, nothing)]:
        either = (mask | truth).sum()
        right = (mask & truth).sum() / either if either else 1.0
        empty = "" if either else " of two empty masks"
        equal_numbers(f"`iou`{empty}", work.iou(mask, truth), right, line=line)


def check_loss(work, data, rng):
    predicted, true = rng.random((2, 5, 3))
    line = work.line_of("iou_loss")
    equal_numbers(
        "`iou_loss`", work.iou_loss(predicted, true), ((predicted - true) ** 2).mean(), line=line,
        why="the mean squared error",
    )  # fmt: skip
    follows_differences(
        lambda x: float(((x - true) ** 2).mean()), work.iou_loss_gradient(predicted, true), predicted,
        rng, "`iou_loss_gradient`", line=work.line_of("iou_loss_gradient"),
    )  # fmt: skip


def check_moved(work, data):
    line, start = work.line_of("done"), digests(fresh(data), None)
    others = {path: value for path, value in start.items() if not path.startswith(HEAD)}
    frozen_unmoved(work.sam, others, line)
    has_learned(work.sam, {path: x for path, x in start.items() if path not in others}, line)


def check_errors(work, data):
    line, model = work.line_of("errors_of"), fresh(data)
    split = data["cells"].valid
    equal_numbers(
        "`errors_of` of the valid images", work.errors_of(model, split), errors_of(all_of(model, split)),
        1e-3, line, "the mean squared error of the predicted IoU for each image",
    )  # fmt: skip


def check_better(work, data):
    first, last = errors_of(before(data)), errors_of(after(work, data))
    equal_numbers(
        "`before`",
        work.before,
        first,
        1e-3,
        work.line_of("before"),
        "the errors of the model before training",
    )
    equal_numbers(
        "`after`", work.after, last, 1e-3, work.line_of("after"), "the errors of `sam` as it is now"
    )
    if not ((last < first).all() and last.mean() < first.mean() / 2):
        raise Wrong(
            f"the mean error is {last.mean():.3g} after training and {first.mean():.3g} before: it "
            f"should fall in each image, and by half in the mean. Train longer.",
            work.line_of("done"),
        )


def check_masks(work, data):
    pairs = zip(before(data), after(work, data), strict=True)
    right = sum(int((one[2] != other[2]).sum()) for one, other in pairs)
    equal_numbers(
        "`changed_pixels`", work.changed_pixels, right, 1e-12, work.line_of("changed_pixels"),
        "the number of pixels of the masks that differ before and after",
    )  # fmt: skip


def check_constant(work, data):
    line = work.line_of("constant")
    train = [true for true, _, _ in all_of(fresh(data), data["cells"].train)]
    test = [true for true, _, _ in before(data)]
    said = np.concatenate([x.ravel() for x in train]).mean()
    right = np.mean([((said - x) ** 2).mean() for x in test])
    own = np.concatenate([x.ravel() for x in test]).mean()
    leaked = np.mean([((own - x) ** 2).mean() for x in test])
    if np.isclose(float(work.constant), leaked, 1e-6) and not np.isclose(right, leaked, 1e-5):
        raise Wrong("`constant` uses the mean of the test masks, which nobody knows before.", line)
    equal_numbers(
        "`constant`",
        work.constant,
        right,
        1e-5,
        line,
        "the error of the mean IoU of the training masks",
    )


def check_file(work, data):
    line, model = work.line_of("path"), fresh(data)
    kft.train_only(model, HEAD)
    name = f"samLE_funfrozen{kft.parameters(model).trainable}.keras"
    if Path(work.path).name != name:
        raise Wrong(f"`path` is {work.path!r}, and the file should be named {name}.", line)
    if not Path(work.path).exists():
        raise Wrong(f"there is no file {name}: `sam.save(path)` writes it.", line)
    kept = digests(kft.load_model(work.path), None)
    if kept != digests(work.sam, None):
        raise Wrong(f"{name} does not hold `sam` as it is now: save it after training.", line)


def check_caption(work, data):
    model = fresh(data)
    kft.train_only(model, HEAD)
    numbers = {
        "how many numbers learned": kft.parameters(model).trainable,
        "the mean error before training": errors_of(before(data)).mean(),
        "the mean error after training": errors_of(after(work, data)).mean(),
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))
