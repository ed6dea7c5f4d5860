"""Training of a SAM: prompts, losses, strategies, the frozen image encoder."""

from types import SimpleNamespace

import keras
import models
import numpy as np
import pytest
from keras import ops
from PIL import Image

import kft
from kft import params
from kft.segmentation import training as steps
from kft.segmentation.training import Prompting
from kft.training import prompted
from kft.training.prompted import Objects, PromptedBatches

ONE_ROUND = Prompting(objects=2, rounds=1)


def discs(count=4, size=32, seed=0):
    """Images of two discs each, and their label images."""
    rng, (y, x) = np.random.default_rng(seed), np.mgrid[:size, :size]
    images, labels = [], []
    for _ in range(count):
        label = np.zeros((size, size), "uint16")
        for number, left in ((3, 8), (7, 24)):
            label[np.hypot(y - rng.integers(8, 24), x - left) < rng.integers(4, 7)] = number
        images.append(np.where(label > 0, 200, 20).astype("uint8"))
        labels.append(label)
    return images, labels


# Objects and prompts ------------------------------------------------------------------------------


@pytest.mark.once
def test_objects_on_the_grid_keep_the_smallest():
    labels = np.zeros((64, 32), int)
    labels[10:30, 4:20], labels[41, 9] = 2, 5
    found = Objects.of(labels, size=32, side=16)
    assert found.numbers.tolist() == [2, 5]
    assert found.boxes.tolist() == [[2, 5, 10, 15], [4.5, 20.5, 5, 21]]
    assert found.inside[:, :8].all()
    assert not found.inside[:, 8:].any()
    assert np.argwhere(found.cells == 5).tolist() == [[10, 2]]
    assert (found.cells == 2).sum() == 5 * 4
    labels[41, 8] = 6  # in the cell of 5
    with pytest.warns(UserWarning, match="1 of 3 objects are smaller than a cell"):
        PromptedBatches(models.sam(), [labels], [labels], ONE_ROUND, 1, None, "a").objects  # noqa: B018
    labels = np.zeros((64, 33), int)
    labels[5, 32] = 1  # behind the last cell whose middle is on the image
    edge = Objects.of(labels, size=32, side=16)
    assert edge.inside[edge.cells == 1].tolist() == [1]
    one = Objects.of(np.ones((1, 1), int), size=32, side=16)
    assert one.cells[0, 0] == 1
    assert one.inside.sum() == 16 * 16


@pytest.mark.once
def test_first_prompts_are_points_of_the_object_or_its_box():
    objects = Objects.of(discs(1)[1][0], size=32, side=16)
    rng = np.random.default_rng(0)
    for _ in range(50):
        points, labels = prompted.first_prompts(objects, np.array([0, 1]), 2.0, Prompting(), rng)
        for row, (kind, number) in enumerate(zip(labels[:, 0], objects.numbers, strict=True)):
            if kind == steps.POSITIVE:
                column, line = ((points[row, 0] + 0.5) // 2).astype(int)
                assert objects.cells[line, column] == number
                assert labels[row, 1] == steps.NOT_A_POINT
            else:
                sides = np.tile(objects.boxes[row, 2:] - objects.boxes[row, :2], 2)
                moved = np.abs(points[row].ravel() - objects.boxes[row])
                assert (moved < 0.5 * sides).all()
                assert (points[row, 1] > points[row, 0]).all()
                assert labels[row].tolist() == [steps.TOP_LEFT, steps.BOTTOM_RIGHT]


@pytest.mark.once
def test_boxes_without_noise_are_exact():
    objects = Objects.of(discs(1)[1][0], size=32, side=16)
    exact, chosen = Prompting(box_probability=1, box_noise=0), np.array([0, 1])
    points, _ = prompted.first_prompts(objects, chosen, 2.0, exact, np.random.default_rng(0))
    np.testing.assert_array_equal(points.reshape(2, 4), objects.boxes)


@pytest.mark.once
def test_batches_draw_anew_in_each_epoch_and_the_same_for_validation():
    sam, (images, labels) = models.sam(), discs()
    names = [f"{i}" for i in range(4)]

    def made(seed):
        return PromptedBatches(sam, images, labels, Prompting(1, 2), 2, seed, names)

    batches, again, fixed = made(0), made(0), made(None)
    first, same, valid = (x[0][0] for x in (batches, again, fixed))
    for name in first:
        np.testing.assert_array_equal(first[name], same[name])
    for x in (batches, fixed):
        x.go_to(1)
    assert not np.array_equal(batches[0][0]["draws"], first["draws"])
    np.testing.assert_array_equal(fixed[0][0]["draws"], valid["draws"])
    several = PromptedBatches(sam, images, [*labels[:3], labels[3] * (labels[3] == 3)],
                              Prompting(8, 1), 4, None, names)[0][0]  # fmt: skip
    assert several["present"].tolist() == [[1, 1]] * 3 + [[1, 0]]
    assert not several["targets"][3, 1].any()


def test_points_of_later_rounds_are_where_the_mask_is_wrong():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 3, 4, 8, 8)).astype("float32")
    iou = rng.standard_normal((2, 3, 4)).astype("float32")
    targets = (rng.random((2, 3, 8, 8)) < 0.5).astype("float32")
    inside = np.ones((2, 8, 8), "float32")
    inside[1, :, 4:] = 0
    best = 1 + iou[:, :, 1:].argmax(-1)
    masks = np.take_along_axis(logits, best[:, :, None, None, None], 2)[:, :, 0]
    targets[0, 0] = masks[0, 0] > 0  # nothing to correct
    draws = rng.random((2, 3, 2)).astype("float32")
    points, labels = np.zeros((2, 3, 3, 2), "float32"), np.full((2, 3, 3), steps.ABSENT)
    drawn = {"targets": targets, "inside": inside, "draws": draws, "given": np.ones((2, 3, 2))}
    drawn = {name: ops.convert_to_tensor(x, dtype="float32") for name, x in drawn.items()}
    outputs = {"masks": ops.convert_to_tensor(logits), "iou": ops.convert_to_tensor(iou)}
    found = steps.NextPrompts(0, image_size=32)(
        outputs, ops.convert_to_tensor(points), ops.convert_to_tensor(labels.astype("int32")), drawn
    )
    found = {name: ops.convert_to_numpy(x) for name, x in found.items()}
    np.testing.assert_array_equal(found["masks"], masks)
    assert (found["labels"][:, :, :2] == steps.ABSENT).all()
    wrong = ((masks > 0) != (targets > 0.5)) & (inside[:, None] > 0)
    for i, j in np.ndindex(2, 3):
        label = found["labels"][i, j, 2]
        if not wrong[i, j].any():
            assert label == steps.ABSENT
            continue
        cells = np.argwhere(wrong[i, j])
        row, column = cells[int(draws[i, j, 0] * len(cells))]
        assert found["points"][i, j, 2].tolist() == [4 * column + 1.5, 4 * row + 1.5]
        assert label == (steps.POSITIVE if targets[i, j, row, column] else steps.NEGATIVE)


# Losses -------------------------------------------------------------------------------------------


def test_losses_are_those_of_their_equations():
    rng = np.random.default_rng(0)
    x, t = 3 * rng.standard_normal((5, 6, 6)), rng.random((5, 6, 6)) < 0.4
    inside = np.ones((5, 6, 6))
    inside[:, :, 4:] = 0
    p = 1 / (1 + np.exp(-x))
    right = np.where(t, p, 1 - p)
    focal = np.where(t, 0.25, 0.75) * (1 - right) ** 2 * -np.log(right)
    focal = focal[:, :, :4].mean((1, 2))
    p, mask, t4 = p[:, :, :4], x[:, :, :4] > 0, t[:, :, :4]
    dice = 1 - (2 * (p * t4).sum((1, 2)) + 1) / (p.sum((1, 2)) + t4.sum((1, 2)) + 1)
    iou = (mask & t4).sum((1, 2)) / (mask | t4).sum((1, 2))
    tensors = [ops.convert_to_tensor(y, dtype="float32") for y in (x, t, inside)]
    for function, expected in (
        (steps.focal_loss, focal), (steps.dice_loss, dice), (steps.true_iou, iou),
    ):  # fmt: skip
        np.testing.assert_allclose(ops.convert_to_numpy(function(*tensors)), expected, rtol=1e-5)
    nothing = ops.zeros((1, 6, 6))
    assert float(steps.true_iou(nothing - 1, nothing, nothing + 1)[0]) == 1


def learner_outputs(sam, learner, batch):
    return ops.convert_to_numpy(learner(batch[0], training=False))


@pytest.mark.once
def test_only_the_best_mask_and_the_scores_learn():
    """Gradients are read off the weights that one step of plain gradient descent moves."""
    sam, (images, labels) = models.sam(), discs(1)
    kft.train_only(sam, "mask_decoder")
    batches = PromptedBatches(sam, images, labels, Prompting(1, 1), 1, 0, ["a"])
    learner = steps.trainer(sam, 1, sam.image_encoder)
    learner.compile(keras.optimizers.SGD(0.1), **prompted.compile_arguments_of(sam))
    before, x = models.values(sam), batches[0]
    outputs = sam(
        {**{name: x[0][name] for name in ("images", "points", "labels")},
         "masks": np.zeros((1, 1, 16, 16), "float32"), "has_mask": np.zeros((1, 1), "float32")}
    )  # fmt: skip
    logits = ops.convert_to_numpy(outputs["masks"])[:, :, 1:]
    shaped = [np.broadcast_to(y, logits.shape) for y in (x[0]["targets"][:, :, None], 1.0)]
    tensors = [ops.convert_to_tensor(y.astype("float32")) for y in (logits, *shaped)]
    parts = [ops.convert_to_numpy(loss(*tensors)) for loss in (steps.focal_loss, steps.dice_loss)]
    of_masks = 20 * parts[0] + parts[1]
    best = 1 + int(of_masks.argmin())
    losses = learner_outputs(sam, learner, x)[0, 0]
    np.testing.assert_allclose(losses[2], of_masks.min(), rtol=1e-5)
    other = learner_outputs(sam, steps.trainer(sam, 1, sam.image_encoder, focal=0.5), x)[0, 0]
    np.testing.assert_allclose(other[2], (0.5 * parts[0] + parts[1]).min(), rtol=1e-5)
    other = learner_outputs(sam, steps.trainer(sam, 1, sam.image_encoder, best=0.3), x)[0, 0]
    expected = 0.3 * of_masks.min() + 0.7 * of_masks.mean()
    np.testing.assert_allclose(other[2], expected, rtol=1e-5)
    assert losses[0] == 1
    np.testing.assert_allclose(losses[1], losses[2] + losses[3], rtol=1e-6)
    learner.fit(x[0], x[1], verbose=0)
    params.paths.synchronise(learner)
    after = models.values(sam)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    heads = {i for i in range(4) if any(f"hypernetworks_mlps/{i}/" in path for path in changed)}
    assert heads == {best}
    assert any("iou_prediction_head" in path for path in changed)
    assert not any(path.startswith(("image_encoder", "prompt_encoder")) for path in changed)


# Strategies ---------------------------------------------------------------------------------------

PARTS = {"mask_decoder", "prompt_encoder"}
ENCODER = {"patch_embed", "blocks/0", "blocks/1", "neck"}


def moved(before, after):
    """Parts of the model, and stages of the image encoder, of which a weight differs."""
    changed = [path for path in before if not np.array_equal(before[path], after[path])]
    found = set()
    for path in changed:
        first, *rest = path.split("/")
        stage = "/".join(rest[:2] if rest[0] == "blocks" else rest[:1])
        found.add(stage if first == "image_encoder" else first)
    return found


def trained(strategy, epochs=2, data=None, **options):
    sam = models.sam()
    before = models.values(sam)
    done = kft.fit(
        sam, data or discs(), strategy, epochs=epochs, batch_size=2, prompting=ONE_ROUND,
        verbose=0, learning_rate=1e-2, **options,
    )  # fmt: skip
    return done, before, models.values(sam)


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param("mask_decoder", marks=pytest.mark.in_turn("jax")),
        pytest.param("lora", marks=pytest.mark.in_turn("torch")),
    ],
)
def test_strategies_train_what_they_say(strategy):
    done, before, after = trained(strategy)
    assert moved(before, after) == ({"mask_decoder"} if strategy == "mask_decoder" else set())
    losses = [row["loss"] for row in done.history]
    assert losses[1] < losses[0]
    assert done.phases[0].why_not_computed_once is None
    if strategy == "lora":
        holders = {path.partition("/lora_")[0] for path in after if "/lora_b" in path}
        for part in ("image_encoder/blocks/0/attn/qkv", "mask_decoder/transformer/layers/1"):
            assert any(path.startswith(part) for path in holders)


@pytest.mark.once
@pytest.mark.parametrize("strategy", ["iou_head", "head_only", "last_blocks", "full"])
def test_other_strategies_train_what_they_say(strategy):
    _, before, after = trained(strategy)
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    if strategy == "iou_head":
        assert {path.rpartition("/layers/")[0] for path in changed} == {
            "mask_decoder/iou_prediction_head"
        }
    everything = {*PARTS, *ENCODER}
    expected = {"iou_head": {"mask_decoder"}, "head_only": PARTS, "full": everything,
                "last_blocks": {*PARTS, "blocks/1", "neck"}}  # fmt: skip
    assert moved(before, after) == expected[strategy]


@pytest.mark.once
def test_the_frozen_encoder_runs_once_per_image(monkeypatch):
    runs, data = [], SimpleNamespace(
        train=discs(4), valid=discs(3, seed=1), test=None, value_range=None
    )  # fmt: skip

    def counted(self, x):
        runs.append(len(x))
        return call(self, x)

    block = type(models.sam().stages[2])
    call = block.call
    monkeypatch.setattr(block, "call", counted)
    sizes = {}
    for epochs in (1, 3):
        runs.clear()
        done = kft.fit(models.sam(), data, "mask_decoder", epochs=epochs, batch_size=2,
                       prompting=ONE_ROUND, verbose=0, frontier=True)  # fmt: skip
        sizes[epochs] = sum(n or 0 for n in runs)
    assert sizes[1] == sizes[3] >= 2 * (4 + 3)  # two blocks, of each image
    assert done.best_epoch is not None
    assert {"val_loss", "val_iou", "val_last_iou", "iou_loss"} <= done.history[0].keys()


@pytest.mark.once
def test_at_the_frontier_the_numbers_are_those_of_the_whole():
    results = [trained("mask_decoder", frontier=frontier)[0].history for frontier in (True, False)]
    for one, two in zip(*results, strict=True):
        for name in ("loss", "iou_loss", "iou"):
            np.testing.assert_allclose(one[name], two[name], rtol=1e-4)


@pytest.mark.once
def test_training_is_repeated_and_resumed(tmp_path):
    whole, _, after = trained("mask_decoder", epochs=3)
    _, _, again = trained("mask_decoder", epochs=3)
    assert models.same(after, again)

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    path = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        trained("mask_decoder", epochs=3, resume=path, callbacks=[Interrupt()])
    done, _, resumed = trained("mask_decoder", epochs=3, resume=path)
    assert models.same(after, resumed)
    assert [row["loss"] for row in done.history] == [row["loss"] for row in whole.history]


@pytest.mark.once
def test_a_trained_model_is_saved_and_loaded(tmp_path):
    done, _, after = trained("mask_decoder", epochs=1)
    done.model.save(tmp_path / "sam.keras")
    loaded = kft.load_model(tmp_path / "sam.keras")
    assert models.same(models.values(loaded), after)
    assert sum(w.trainable for w in params.weights(loaded)) == sum(
        w.trainable for w in params.weights(done.model)
    )


@pytest.mark.long
@pytest.mark.once
def test_discs_are_learned():
    images, labels = discs(8)
    sam = models.sam(width=64, prompt_width=64, decoder_hidden_width=128, iou_width=64, window=4,
                     image_size=64)  # fmt: skip
    done = kft.fit(sam, (images, labels), "full", epochs=150, batch_size=4, learning_rate=1e-3,
                   prompting=Prompting(objects=2, rounds=1), verbose=0)  # fmt: skip
    assert done.history[-1]["iou"] > 0.8 > 0.4 > done.history[0]["iou"]


# What cannot be trained ---------------------------------------------------------------------------


@pytest.mark.once
def test_wrong_data_are_named(tmp_path):
    images, labels = discs(2)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    sam = models.sam()
    for data, message in (
        ((images, [0, 1]), r"targets\[0\] must be a label image"),
        ((["MKTAYI", "GSS"], [0, 1]), r"targets\[0\] must be a label image"),
        (
            (images, [labels[0], labels[1][:5]]),
            r"targets\[1\] of train is a label image of \(5, 32",
        ),
        ((images, [x * 0 for x in labels]), "No image of train shows an object"),
        ((images, labels, [1.0, 1.0]), "weights of records"),
        (([tmp_path / "a.png", images[1]], [labels[0][:5], labels[1]]), r"its image has \(32, 32"),
        ((images, labels[:1]), "2 images and 1 label images"),
    ):
        with pytest.raises(ValueError, match=message):
            kft.fit(sam, data, "mask_decoder", epochs=1, verbose=0)
    with pytest.warns(UserWarning, match="1 of 2 images of train show no object"):
        kft.fit(sam, (images, [labels[0], labels[1] * 0]), "iou_head", epochs=1, verbose=0,
                prompting=ONE_ROUND)  # fmt: skip
    with pytest.raises(ValueError, match="loss: sam is trained by masks"):
        kft.fit(sam, (images, labels), "mask_decoder", loss="mse", verbose=0)
    with pytest.raises(ValueError, match="max_length is for sequences"):
        kft.fit(sam, (images, labels), "mask_decoder", max_length=5, verbose=0)
    with pytest.raises(ValueError, match="closed form"):
        kft.fit(sam, (images, labels), "linear_probe", verbose=0)
    with pytest.raises(ValueError, match="rounds must be"):
        Prompting(rounds=9)
    with pytest.raises(ValueError, match="focal must be"):
        Prompting(focal=0)


@pytest.mark.once
def test_models_without_parts_refuse_the_strategies_of_parts():
    model = kft.Model(models.esm2(), kft.heads.Regression())
    with pytest.raises(ValueError, match="has no part 'iou_head', it names no parts"):
        kft.fit(model, (["MKT", "GSS"], [0.0, 1.0]), "iou_head", verbose=0)
    with pytest.raises(ValueError, match="prompting is for models that take prompts"):
        kft.fit(model, (["MKT", "GSS"], [0.0, 1.0]), prompting=ONE_ROUND, verbose=0)
