"""Masked autoencoding: what is hidden, who sees it, what is learned, and what is left of it."""

import hashlib

import interrupted
import keras
import numpy as np
import pytest
from keras import ops
from models import in_turn
from models import masked_batches as batches_of
from models import waves as pictures
from parity import assert_rounds_alike

import kft
from kft import plots
from kft.backbones import randomised
from kft.training import pretraining

pytest.importorskip("keras_hub")

from kft.backbones.vision import published as vision_published
from kft.backbones.vision.models import ConvNet, VisionTransformer

once = pytest.mark.once
SIZES = {"num_blocks": 1, "width": 16, "num_heads": 2, "patch_size": 8, "image_size": 32}
SMALL = {"decoder_blocks": 1, "decoder_width": 16, "decoder_heads": 2}


def small(family="vit", seed=0, **changes):
    return randomised(VisionTransformer(family, **{**SIZES, **changes}), seed)


def loud(model, seed=1):
    """With weights large enough to matter everywhere."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        noise = rng.normal(0, 0.1, variable.shape)
        variable.assign(ops.convert_to_numpy(variable.value) + noise.astype("float32"))
    return model


@pytest.fixture
def backbone():
    return small()


@pytest.fixture
def autoencoder(backbone):
    return loud(pretraining.masked_autoencoder(backbone, **SMALL))


# What is hidden -----------------------------------------------------------------------------------


@once
@pytest.mark.parametrize(
    ("patches", "ratio", "count"), [(196, 0.75, 147), (16, 0.5, 8), (10, 0.9, 9)]
)
def test_exactly_so_many_patches_are_hidden(patches, ratio, count):
    visible, hidden = pretraining.hide_patches(400, patches, ratio, np.random.default_rng(0))
    assert hidden.shape == (400, count) and hidden.dtype == visible.dtype == "int32"
    both = np.concatenate([visible, hidden], axis=1)
    assert (np.sort(both, axis=1) == np.arange(patches)).all()
    assert len(np.unique(hidden, axis=0)) > 9
    # Each patch alike: within five standard errors of the ratio.
    often = np.bincount(hidden.ravel(), minlength=patches) / 400
    assert np.abs(often - count / patches).max() < 5 * np.sqrt(ratio * (1 - ratio) / 400)


@once
def test_patches_are_cut_row_by_row_and_put_together_again():
    images = np.random.default_rng(0).random((2, 24, 40, 3))
    patches = pretraining.patchify(images, 8)
    assert patches.shape == (2, 15, 192)
    for k in range(15):
        top, left = 8 * (k // 5), 8 * (k % 5)
        assert (patches[1, k] == images[1, top : top + 8, left : left + 8].ravel()).all()
    assert (pretraining.unpatchify(patches, 8, (24, 40)) == images).all()


def test_batches_follow_from_seed_and_step_alone_on_every_backend(autoencoder):
    images = pictures(10)
    one, two = (batches_of(images, autoencoder) for _ in range(2))
    other = batches_of(images, autoencoder, seed=1)
    fixed = batches_of(images, autoencoder, fresh=False)

    def drawn(batch):
        inputs, _ = batch
        told = [*(inputs[name] for name in ("visible", "hidden")), inputs["images"] > 0]
        return hashlib.sha256(b"".join(x.tobytes() for x in told)).hexdigest()[:16]

    assert len(one) == one.one_pass == 3
    for _ in range(2):
        one.on_epoch_end()
    two.go_to(2)
    assert drawn(one[1]) == drawn(two[1]) == drawn(two.batch(7)) != drawn(two[2])
    assert drawn(two.batch(7)) == "36ff34784c017516"
    assert drawn(other.batch(7)) != drawn(two.batch(7))
    first = drawn(fixed[0])
    fixed.on_epoch_end()
    assert drawn(fixed[0]) == first
    sizes = [[len(b[i][1]) for i in range(3)] for b in (one, fixed)]
    assert sizes == [[4, 4, 4], [4, 4, 2]]


@once
def test_each_epoch_hides_other_patches_of_the_same_image(autoencoder):
    batches = batches_of(pictures(1), autoencoder)
    hidden = {tuple(batches.batch(step)[0]["hidden"][0]) for step in range(20)}
    assert len(hidden) > 15
    assert {tuple(batches.batch(3)[0]["hidden"][0])} < hidden


@once
def test_each_image_comes_once_in_a_pass(autoencoder):
    images = [np.full((8, 8), 10 * i, "uint8") for i in range(10)]
    batches = batches_of(images, autoencoder, fresh=False)
    for turn in range(2):
        seen = [batches.batch(3 * turn + i)[0]["images"][:, 0, 0, 0] for i in range(3)]
        assert len(set(np.concatenate(seen).tolist())) == 10


@once
def test_targets_are_normalised_patches_as_the_paper_has_them(autoencoder):
    images = pictures(4)
    for normalise in (True, False):
        inputs, targets = batches_of(images, autoencoder, normalise=normalise)[0]
        for i, hidden in enumerate(inputs["hidden"]):
            for k, place in enumerate(hidden):
                top, left = 8 * (place // 4), 8 * (place % 4)
                patch = inputs["images"][i, top : top + 8, left : left + 8].ravel()
                if normalise:
                    patch = (patch - patch.mean()) / np.sqrt(patch.var(ddof=1) + 1e-6)
                assert_rounds_alike(targets[i, k], patch)
        assert targets.dtype == "float32"
    blank = batches_of([np.zeros((8, 8), "uint8")], autoencoder)[0][1]
    assert (blank == 0).all(), "a patch without contrast asks for nothing"


# Who sees it --------------------------------------------------------------------------------------


def test_hidden_pixels_do_not_reach_the_encoder(autoencoder, as_written):
    inputs, _ = batches_of(pictures(4), autoencoder)[0]
    encoder = autoencoder.encoder

    def features(where):
        patches = pretraining.patchify(inputs["images"].copy(), 8)
        changed = np.random.default_rng(0).normal(0, 9, (4, inputs[where].shape[1], 192))
        np.put_along_axis(patches, inputs[where][..., None], changed.astype("float32"), axis=1)
        images = pretraining.unpatchify(patches, 8, (32, 32))
        return encoder.predict_on_batch({"images": images, "visible": inputs["visible"]})

    before = encoder.predict_on_batch({k: inputs[k] for k in ("images", "visible")})
    assert before.shape == (4, 1 + 4, 16)
    np.testing.assert_array_equal(features("hidden"), before)
    assert np.abs(features("visible") - before).max() > 0.1


@pytest.mark.parametrize("family", in_turn(["vit", "deit", "dinov2"]))
def test_with_nothing_hidden_the_encoder_is_the_backbone(family, as_written):
    backbone = loud(small(family))
    autoencoder = pretraining.masked_autoencoder(backbone, **SMALL)
    first = 2 if family == "deit" else 1
    images = backbone.encode(pictures(3))["images"]
    expected = backbone.predict_on_batch({"images": images})
    order = np.tile(np.arange(16, dtype="int32"), (3, 1))
    encoder = autoencoder.encoder
    found = encoder.predict_on_batch({"images": images, "visible": order})
    assert_rounds_alike(found, expected)
    # In another order they are the same patches; class and distillation tokens stay in front.
    order = np.stack([np.random.default_rng(i).permutation(16) for i in range(3)]).astype("int32")
    found = encoder.predict_on_batch({"images": images, "visible": order})
    assert_rounds_alike(found[:, :first], expected[:, :first])
    moved = np.take_along_axis(expected[:, first:], order[..., None], axis=1)
    assert_rounds_alike(found[:, first:], moved)


def test_loss_and_error_count_hidden_patches_and_nothing_else(autoencoder, as_written):
    parts = [batches_of(pictures(4, seed), autoencoder)[0] for seed in range(2)]
    autoencoder.compile("sgd", "mse", metrics=[pretraining.RelativeError()])
    errors, spreads = [], []
    for inputs, targets in parts:
        answers = autoencoder.predict_on_batch(inputs)
        assert answers.shape == targets.shape == (4, 12, 192) and answers.dtype == "float32"
        patches = pretraining.patchify(inputs["images"], 8)
        seen = np.zeros((4, 16), bool)
        np.put_along_axis(seen, inputs["visible"], True, axis=1)
        whole = np.zeros_like(patches)
        np.put_along_axis(whole, inputs["hidden"][..., None], answers, axis=1)
        true = pretraining.normalised(patches)[0]
        each = ((whole - true) ** 2).mean(axis=-1)  # (B, P), as the reference computes it
        loss = (each * ~seen).sum() / (~seen).sum()
        assert float(autoencoder.test_on_batch(inputs, targets)[0]) == pytest.approx(loss, rel=1e-5)
        errors.append(((answers - targets) ** 2).sum())
        spreads.append(((targets - targets.mean(-1, keepdims=True)) ** 2).sum())
    metric = pretraining.RelativeError()
    assert np.isnan(float(metric.result()))
    for inputs, targets in parts:
        metric.update_state(targets, autoencoder.predict_on_batch(inputs))
    assert float(metric.result()) == pytest.approx(sum(errors) / sum(spreads), rel=1e-5)


# What is learned ----------------------------------------------------------------------------------


def train(backbone, images, out=None, **options):
    options = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "verbose": 0,
        **SMALL,
        **options,
    }
    return pretraining.pretrain_images(backbone, images, out=out, **options)


@pytest.mark.in_turn("torch")
def test_held_out_images_are_completed_far_better_than_by_the_mean_patch():
    backbone = small(width=32, num_heads=4)
    done = train(
        backbone, pictures(64), valid=pictures(30, seed=1), epochs=4, steps=35, batch_size=16,
        decoder_width=32,
    )  # fmt: skip
    first, last = done.history[0], done.history[-1]
    print(f"{keras.backend.backend()}: {first['val_loss']:.3f}, {last['val_loss']:.3f}")
    assert last["val_loss"] < 0.75 and last["val_relative_error"] < 0.75
    assert last["step"] == 140 and last["images"] == 2240 and last["learning_rate"] < 1e-3
    assert [row["epoch"] for row in done.history] == list(range(4))
    # And the backbone itself holds what was learned, in whatever it is put to use.
    order = np.tile(np.arange(16, dtype="int32"), (2, 1))
    x = backbone.encode(pictures(2))
    found = done.model.encoder.predict_on_batch({**x, "visible": order})
    assert_rounds_alike(found, backbone.predict_on_batch(x))


@pytest.mark.in_turn("torch")
def test_it_begins_with_the_mean_patch(backbone, as_written):
    model = pretraining.masked_autoencoder(backbone, **SMALL)
    model.compile("sgd", "mse", metrics=[pretraining.RelativeError()])
    found = model.evaluate(batches_of(pictures(10), model, fresh=False), verbose=0)
    assert found == [pytest.approx(1, abs=0.01), pytest.approx(1, abs=1e-4)]


@pytest.mark.in_turn("torch")
def test_weights_are_in_the_backbone_and_go_wherever_it_goes(backbone, tmp_path, as_written):
    before = kft.fingerprint(backbone, trainable=None)
    features = kft.embed(backbone, pictures(4))
    train(backbone, pictures(16), epochs=1)
    assert kft.fingerprint(backbone, trainable=None) != before
    after = kft.embed(backbone, pictures(4))
    assert np.abs(after - features).max() > 1e-3
    model = kft.Model(backbone, kft.heads.Classification(2))
    done = kft.fit(model, (pictures(8), np.arange(8) % 2), "linear_probe", seed=0, verbose=0)
    done.model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_rounds_alike(kft.embed(again.backbone, pictures(4)), after)


@pytest.mark.in_turn("torch")
def test_what_is_frozen_stays(backbone, as_written):
    kft.freeze(backbone, "embedding")
    before = kft.fingerprint(backbone)
    train(backbone, pictures(8), epochs=1, callbacks=[kft.callbacks.FrozenGuard()])
    assert kft.fingerprint(backbone) == before


@pytest.mark.in_turn("tensorflow")
def test_it_is_saved_and_loaded(autoencoder, tmp_path, as_written):
    inputs, _ = batches_of(pictures(4), autoencoder)[0]
    autoencoder.save(tmp_path / "it.keras")
    again = keras.saving.load_model(tmp_path / "it.keras")
    expected = autoencoder.predict_on_batch(inputs)
    assert_rounds_alike(again.predict_on_batch(inputs), expected)
    assert (again.patch_size, again.encode, again.normalise) == (8, autoencoder.encode, True)


@pytest.mark.in_turn("torch")
def test_the_same_seed_draws_the_same_decoder(backbone):
    one, two, other = (pretraining.masked_autoencoder(backbone, seed=s, **SMALL) for s in (0, 0, 1))
    digests = [kft.fingerprint(x.get_layer("decoder"), None) for x in (one, two, other)]
    assert digests[0] == digests[1] != digests[2]


def test_half_precision_predicts_in_single(as_written):
    backbone = small(dtype="mixed_bfloat16")
    done = train(backbone, pictures(8), epochs=1)
    inputs, _ = batches_of(pictures(4), done.model)[0]
    assert done.model.predict_on_batch(inputs).dtype == "float32"


@pytest.mark.long  # of `Resume`, which test_pretraining stops in every run
def test_stopped_within_an_epoch_it_ends_with_the_same_bits(tmp_path, as_written):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if (len(self.model.history.epoch), batch) == (1, 1):
                raise KeyboardInterrupt

    images, options = (
        pictures(20),
        {"valid": pictures(5, 1), "accumulate": 2, "steps": 2, "epochs": 2},
    )

    def run(name, **more):
        keras.utils.set_random_seed(0)  # keras-hub's blocks have dropout, of 0, with a random state
        return train(small(), images, tmp_path / name, **options, **more)

    whole = interrupted.digest(run("whole"))
    with pytest.raises(KeyboardInterrupt):
        run("cut", callbacks=[Interrupt()])
    assert (tmp_path / "cut" / "state.npz").exists()
    done = run("cut")
    assert interrupted.digest(done) == whole and len(done.history) == 2
    for change, what in (
        ({"images": pictures(20, 5)}, "images"),
        ({"mask_ratio": 0.5}, "mask_ratio"),
        ({"decoder_width": 32}, "decoder_width"),
    ):
        with pytest.raises(ValueError, match=f"differs in its .*{what}"):
            train(small(), **{"images": images, "out": tmp_path / "cut", **options, **change})


# What it sees -------------------------------------------------------------------------------------


@pytest.mark.in_turn("torch")
def test_reconstruction_undoes_the_normalisation(autoencoder, monkeypatch, as_written):
    """A model that answers with the truth gives back the image, of whatever size it came."""
    images = [image[:, :20] for image in pictures(3)]

    def know(inputs, **options):
        patches = pretraining.patchify(inputs["images"], 8)
        true = np.take_along_axis(patches, inputs["hidden"][..., None], axis=1)
        return pretraining.normalised(true)[0]

    found = pretraining.reconstruct(autoencoder, images, seed=3)
    monkeypatch.setattr(type(autoencoder), "predict", lambda self, x, **options: know(x))
    right = pretraining.reconstruct(autoencoder, images, seed=3)
    for pair in (found, right):
        for pixels in pair:
            assert pixels.shape == (3, 32, 32, 3) and pixels.dtype == "float32"
            assert pixels.min() >= 0 and pixels.max() <= 1
    assert_rounds_alike(right.reconstructed, right.original)
    np.testing.assert_allclose(found.original, right.original)
    hidden = (pretraining.patchify(found.masked, 8) == 0.5).all(-1)
    assert (hidden.sum(axis=1) == 12).all()
    seen = ~hidden
    for name in ("masked", "reconstructed"):
        cut = pretraining.patchify(getattr(found, name), 8)
        np.testing.assert_allclose(
            cut[seen], pretraining.patchify(found.original, 8)[seen], atol=1e-6
        )
    wrong = pretraining.patchify(found.reconstructed - found.original, 8)[hidden]
    assert np.abs(wrong).max() > 0.1
    other = pretraining.reconstruct(autoencoder, images, seed=4)
    assert (other.masked != found.masked).any()


@once
def test_figure_counts_hidden_patches_and_says_how_well_they_were_filled():
    rng = np.random.default_rng(0)
    original = rng.random((9, 16, 16, 3))
    masked, half = original.copy(), original.copy()
    masked[:, :8, :8] = 0.5
    corner = original[:, :8, :8]
    half[:, :8, :8] = corner - 0.5 * (corner - corner.mean(axis=(1, 2, 3), keepdims=True))
    half[0, :8, :8] = rng.random((8, 8, 3))
    figure, caption = plots.plot_reconstructions(original, masked, half, 8, "noise", shown=5)
    assert len([ax for ax in figure.axes if ax.images]) == 15
    for words in (
        "noise, n = 9",
        "first 5",
        "25% of the patches of 8 x 8",
        "8 of 9",
        "brightness and the contrast",
    ):
        assert words in caption
    error = np.sqrt(((half - original)[:, :8, :8] ** 2).mean())
    flat = np.sqrt((corner - corner.mean(axis=(1, 2, 3), keepdims=True)).var())
    assert f"is {error:.3f} of" in caption and f"compared with {flat:.3f}" in caption
    plain = plots.plot_reconstructions(original, masked, half, 8, rescaled=False)[1]
    assert "brightness" not in plain
    with pytest.raises(ValueError, match="no patch is hidden"):
        plots.plot_reconstructions(original, original, half, 8)
    with pytest.raises(ValueError, match="must have one shape"):
        plots.plot_reconstructions(original, original[:2], half, 8)


# What can be wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "images is empty"),
        ({"mask_ratio": 0}, "mask_ratio must be above 0 and below 1, received 0"),
        ({"mask_ratio": 1.0}, "mask_ratio must be above"),
        ({"mask_ratio": float("nan")}, "mask_ratio must be above"),
        ({"mask_ratio": 0.01}, "too few patches, 16"),
        ({"images": [np.zeros((3, 40, 50), "uint8")]}, r"images\[0\] has shape"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"steps": 1.5}, "steps must be an integer of at least 1"),
        ({"patch_size": 5}, "patch_size must divide both sides"),
    ],
)
@once
def test_bad_batches_are_refused(backbone, change, message):
    given = {"images": pictures(2), "encode": backbone.encode, "patch_size": 8, **change}
    with pytest.raises(ValueError, match=message):
        pretraining.masked_image_batches(**given)


@once
def test_bad_models_are_refused(backbone, tmp_path):
    tiny = {**vision_published.RESNET, "stackwise_num_blocks": [1, 1, 1, 1]}
    for wrong in (ConvNet("resnet", tiny, 32), kft.Model(backbone, kft.heads.Classification(2))):
        name = type(wrong).__name__
        with pytest.raises(ValueError, match=f"needs patches.*received {name}"):
            pretraining.pretrain_images(wrong, pictures(2))
        with pytest.raises(ValueError, match="needs patches"):
            pretraining.masked_autoencoder(wrong)
    with pytest.raises(ValueError, match="not DINOv3.*VisionTransformer 'dinov3_vit'"):
        pretraining.masked_autoencoder(small("dinov3_vit"))
    for change in ({"epochs": 0}, {"learning_rate": 0.0}, {"warmup": 1}, {"accumulate": 1.5}):
        with pytest.raises(ValueError, match=next(iter(change))):
            pretraining.pretrain_images(backbone, pictures(2), **change)
    for width, heads in ((18, 2), (16, 3)):
        with pytest.raises(ValueError, match="multiple of 4 and of decoder_heads"):
            pretraining.masked_autoencoder(backbone, decoder_width=width, decoder_heads=heads)
    with pytest.raises(TypeError, match=r"write \[image\]"):
        pretraining.pretrain_images(backbone, pictures(1)[0])
    with pytest.raises(TypeError, match=r"write \[image\]"):
        pretraining.pretrain_images(backbone, "a.png")


@once
def test_images_may_come_from_a_generator(backbone):
    one, two = (
        pretraining.masked_image_batches(images, backbone.encode, 2, patch_size=8)
        for images in (pictures(5), (image for image in pictures(5)))
    )
    assert len(one) == len(two) == 3
    np.testing.assert_array_equal(one[0][1], two[0][1])
    with pytest.raises(ValueError, match="images is empty"):
        pretraining.masked_image_batches(iter([]), backbone.encode, 2, patch_size=8)
