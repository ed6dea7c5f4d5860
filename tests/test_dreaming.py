"""Deep Dream: the gradient, tiles and octaves; every vision backbone, the same on all backends."""

from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.image import imsave
from models import BACKBONES, in_turn

import kft
from kft.interpretation import dreaming
from kft.plots import plot_features

SIDE = 32  # of a tile: the tiny backbones' image size


def picture(height=SIDE, width=SIDE):
    """Smooth colours and some noise, far from 0 and 1."""
    y, x = np.mgrid[:height, :width] / SIDE
    waves = np.stack([np.sin(3 * x + k) + np.cos(5 * y - k) for k in range(3)], axis=-1)
    noise = np.random.default_rng(1).normal(0, 0.05, waves.shape)
    return np.clip(0.5 + 0.12 * waves + noise, 0.1, 0.9).astype("float32")


@pytest.fixture(scope="module", params=in_turn(BACKBONES, everywhere=["vit"]))
def backbone(request):
    return kft.backbones.randomised(BACKBONES[request.param](), 0)


@pytest.fixture(scope="module")
def activation(backbone):
    """Of its last block: traced once for all tests of a backbone."""
    return dreaming.Activation(backbone, last_block(backbone), squares=True)


@pytest.fixture(scope="module")
def net():
    return kft.backbones.randomised(BACKBONES["efficientnet"](), 0)


def last_block(backbone):
    return [name for name in dreaming.stages_of(backbone) if name.startswith("block_")][-1]


class Answers:
    """Stands for an activation, and answers with a gradient that the test knows."""

    stage, tile, channels = "known", (SIDE, SIDE), 1

    def __init__(self, gradient):
        self.gradient = gradient

    def __call__(self, tile, weights):
        return float(tile.mean()), self.gradient(tile)


def known(gradient, step_size=0.01, bands=1, jitter=None):
    rng = np.random.default_rng(0)
    return dreaming._Ascent(Answers(gradient), step_size, bands, jitter, rng)


@pytest.fixture(autouse=True)
def as_written(request):
    """TensorFlow traces no small model for seconds, but where backends are compared.

    And but for MobileNet, whose grouped convolutions have a gradient of float64 only when compiled.
    """
    traced = any(word in request.node.name for word in ("three_backends", "mobilenet"))
    if keras.backend.backend() != "tensorflow" or traced:
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(autouse=True)
def convolutions(request):
    """On JAX a convolution that is not optimised runs forty times as long: 0.3 s for a gradient."""
    repeated = "three_backends" in request.node.name or "activation" in request.fixturenames
    if repeated and any(word in request.node.name for word in ("resnet", "efficientnet")):
        request.getfixturevalue("optimised")


# Every backbone -----------------------------------------------------------------------------------


def test_every_backbone_dreams_and_stays_as_it_is(backbone, activation):
    """The activation rises; weights, statistics and what learns are as they were."""
    kft.freeze(backbone, "block_0")

    def state():
        return kft.fingerprint(backbone, trainable=None), [w.trainable for w in backbone.weights]

    before, image, weights = state(), picture(), activation.weights()
    ascent = dreaming._Ascent(activation, 0.01, 1, 0, np.random.default_rng(0))
    found = ascent.octaves(image, [image.shape[:2]], 3, weights)
    assert activation(found, weights)[0] > 1.03 * activation(image, weights)[0]
    assert state() == before
    if keras.backend.backend() == "torch":
        assert all(getattr(w.value, "grad", None) is None for w in backbone.weights)


def test_gradient_is_that_of_finite_differences(activation):
    check_gradient(activation, activation.weights())


@pytest.mark.parametrize("name", ["vit", pytest.param("efficientnet", marks=pytest.mark.once)])
def test_gradient_of_one_channel_is_that_of_finite_differences(name):
    backbone = kft.backbones.randomised(BACKBONES[name](), 0)
    activation = dreaming.Activation(backbone, last_block(backbone), squares=False)
    check_gradient(activation, activation.weights(1))


def check_gradient(activation, weights):
    image = picture()
    _, gradient = activation(image, weights)
    assert gradient.shape == image.shape and gradient.dtype == np.float64
    # A line through the image along which the activation changes most, and a bit of any other.
    way = gradient / np.linalg.norm(gradient)
    way = way + np.random.default_rng(2).normal(0, 0.02, image.shape)
    # So small a step and so small an error: any float32 on the way would be seen.
    high, low = (activation(image + h * way, weights)[0] for h in (1e-6, -1e-6))
    assert (high - low) / 2e-6 == pytest.approx(float((gradient * way).sum()), rel=1e-6)


@pytest.mark.once
def test_stages_above_are_not_computed(net):
    stages = dreaming.stages_of(net)
    activation = dreaming.Activation(net, stages[1], squares=True)
    assert [stage.name for stage in activation.stages] == stages[:2]
    assert activation.channels == 8


def test_weights_are_read_when_it_is_called():
    """Compiled programs hold none of them."""
    net = kft.backbones.randomised(BACKBONES["vit"](), 0)
    activation = dreaming.Activation(net, "block_0", squares=True)
    (before, _), weights = activation(picture(), activation.weights()), net.get_weights()
    net.set_weights(kft.backbones.randomised(net, 1).get_weights())
    other, _ = activation(picture(), activation.weights())
    net.set_weights(weights)
    again, _ = activation(picture(), activation.weights())
    assert again == before != other


# The same everywhere ------------------------------------------------------------------------------

# What torch dreams, in units of 1 / 65535, written by `KERAS_BACKEND=torch python THIS_FILE`.
DREAMS = Path(__file__).with_name("dreams.npz")
DREAMERS = ("vit", "dinov2", "resnet", "efficientnet", "efficientnet_lite0")
MARKS = {"dinov2": pytest.mark.long, "efficientnet_lite0": pytest.mark.in_turn("torch")}


def dreamt(name):
    """Ten steps, in tiles of 32 pixels, by a network of two to four blocks or by a real one."""
    if name in BACKBONES:
        backbone = kft.backbones.randomised(BACKBONES[name](), 0)
        stage = last_block(backbone)
    else:
        backbone, stage = kft.load(name, image_size=SIDE), "block_4"
    return dreaming.dream(backbone, picture(36, 44), stage, steps=5, octaves=2, seed=3)


@pytest.mark.parametrize("name", [pytest.param(d, marks=MARKS.get(d, ())) for d in DREAMERS])
def test_three_backends_dream_the_same(name):
    """All pixels to the last digit that is written, though they moved by far more."""
    found = dreamt(name)
    with np.load(DREAMS) as dreams:
        worst = np.abs(found - dreams[name] / 65535).max()
    print(f"{keras.backend.backend()}, {name}: largest difference {worst:.1e}")
    assert np.abs(found - picture(36, 44)).mean() > 0.03
    # Half of a written unit, and a step rounded to the other side.
    assert worst < 0.5 / 65535 + 2 * 0.01 * dreaming.GRAIN


@pytest.mark.parametrize("name", in_turn(["vit", "efficientnet"], backends=("torch", "tensorflow")))
def test_half_precision_dreams_the_same_and_stays_what_it_was(name):
    """The gradient is one of float64, and the backbone goes on in its own precision."""
    full = kft.backbones.randomised(BACKBONES[name](), 0)
    half = BACKBONES[name](dtype="mixed_bfloat16")
    half.set_weights(full.get_weights())
    x = half.encode([np.full((SIDE, SIDE, 3), 100, dtype="uint8")])

    def state():
        policies = [layer.dtype_policy.name for layer in half._flatten_layers()]
        kind = keras.backend.result_type("float64", "float32")
        return policies, keras.config.dtype_policy().name, kind, half.predict_on_batch(x).tolist()

    before = state()
    options = {"stage": last_block(full), "steps": 1, "octaves": 1, "jitter": 0}
    one, other = (dreaming.dream(each, picture(), **options) for each in (full, half))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(Exception):  # noqa: B017, each backend has its own
        dreaming.Activation(half, options["stage"], squares=True)(picture(), np.ones(3))
    assert state() == before


@pytest.mark.once
def test_the_same_seed_and_another(net):
    options = {"stage": "block_2", "steps": 2, "octaves": 2}
    one, two, other = (
        dreaming.dream(net, picture(40, 36), seed=seed, **options) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 1e-3


# Tiles, octaves, frequencies ----------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("size", [(SIDE, SIDE), (100, 70), (5, 90), (33, 31), (1, 1)])
@pytest.mark.parametrize("jitter", [None, 0, 7])
def test_every_pixel_lies_in_one_tile(size, jitter):
    """Of the image itself: what a tile answers comes back to where it was taken."""
    ascent, image = known(lambda tile: 2 * tile, jitter=jitter), picture(*size)
    for _ in range(3):
        value, gradient = ascent.gradient(image, None)
        np.testing.assert_array_equal(gradient, 2 * image)
    assert 0 < value < 1


@pytest.mark.once
def test_shifts_leave_no_seams():
    """Where the gradient vanishes at the edge of every tile, a grid that stands still shows."""

    def framed(tile):
        inner = np.zeros_like(tile)
        inner[2:-2, 2:-2] = 1
        return inner

    image = np.zeros((100, 70, 3), dtype="float32")
    still, shifted = known(framed, jitter=0), known(framed)
    fixed = sum(still.gradient(image, None)[1] for _ in range(40))
    moved = sum(shifted.gradient(image, None)[1] for _ in range(40))
    assert fixed.min() == 0
    assert moved.min() > 20


@pytest.mark.once
def test_a_large_image_is_dreamt_everywhere(net):
    image = picture(90, 75)
    found = dreaming.dream(net, image, "block_2", steps=3, octaves=2)
    changed = np.abs(found - image).mean(axis=-1)
    edges = [changed[0], changed[-1], changed[:, 0], changed[:, -1]]
    assert min(edge.mean() for edge in edges) > 0.3 * changed.mean()
    blocks = changed[:90, :75].reshape(6, 15, 5, 15).mean(axis=(1, 3))
    assert blocks.min() > 0.2 * changed.mean()


@pytest.mark.once
def test_octaves_carry_details_on():
    image, sizes = picture(60, 50), dreaming._sizes((60, 50), 3, 1.4)
    assert sizes == [(31, 26), (43, 36), (60, 50)]
    ascent = known(None)
    ascent.step = lambda found, weights, first: found  # paints nothing
    np.testing.assert_allclose(ascent.octaves(image, sizes, 2, None), image, atol=1e-6)
    ascent.step = lambda found, weights, first: found + 0.05 * first  # at the smallest alone
    np.testing.assert_allclose(ascent.octaves(image, sizes, 2, None), image + 0.05, atol=1e-5)


@pytest.mark.once
def test_sizes_that_are_too_small_are_left_out():
    assert dreaming._sizes((20, 600), 4, 1.4) == [(20, 600)]
    assert dreaming._sizes((3, 3), 4, 1.4) == [(3, 3)]


@pytest.mark.once
def test_bands_are_balanced():
    """A wave a hundred times as strong as a longer one ends up beside it."""
    x = np.arange(128)
    waves = [np.sin(2 * np.pi * x / length) for length in (3, 40)]
    gradient = np.tile((100 * waves[0] + waves[1])[None, :, None], (64, 1, 3)).astype("float32")

    def share(found):
        short, long = (abs((found[32, :, 0] * wave).sum()) for wave in waves)
        return long / short

    assert share(dreaming._balanced(gradient, 1)) < 0.02
    assert share(dreaming._balanced(gradient, 4)) > 0.2


@pytest.mark.once
def test_rate_is_the_mean_change_of_a_step():
    image = np.full((SIDE, SIDE, 3), 0.5, dtype="float32")
    ascent = known(lambda tile: np.random.default_rng(0).normal(size=tile.shape), step_size=0.02)
    assert np.abs(ascent.step(image, None) - image).mean() == pytest.approx(0.02, rel=1e-3)


# Images in and out --------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("size", [(50, 41), (9, 20), (1, 1)])
def test_shape_dtype_and_range(net, size, tmp_path):
    image = np.random.default_rng(0).integers(60, 200, (*size, 3), dtype="uint8")
    imsave(tmp_path / "image.png", image)
    found = [
        dreaming.dream(net, x, "stem", steps=2, octaves=2, step_size=0.3)
        for x in (image, image / 255, tmp_path / "image.png")
    ]
    assert found[0].shape == (*size, 3) and found[0].dtype == np.float32
    assert found[0].min() >= 0 and found[0].max() <= 1
    assert np.abs(found[0] - image / 255).max() > 0.01
    # Divided by 255 in float64 and in float32: a step may be rounded to the other side.
    np.testing.assert_allclose(found[1], found[0], atol=4 * 0.3 * dreaming.GRAIN)
    np.testing.assert_array_equal(found[2], found[0])


@pytest.mark.once
def test_channel_selects(net):
    """Each channel rises more by its own dream than by another's."""
    image = picture()
    activation = dreaming.Activation(net, "block_3", squares=False)
    dreams = [
        dreaming.dream(net, image, "block_3", channel, steps=4, octaves=1, jitter=0, bands=1)
        for channel in (0, 5)
    ]
    for i, channel in enumerate((0, 5)):
        values = [activation(x, activation.weights(channel))[0] for x in (image, *dreams)]
        assert values[1 + i] > max(values[0], values[2 - i])


@pytest.mark.once
def test_a_model_is_its_backbone(net):
    model = kft.Model(net, kft.heads.Classification(2))
    one, two = (dreaming.dream(x, picture(), "stem", steps=1, octaves=1) for x in (model, net))
    np.testing.assert_array_equal(one, two)


# Features -----------------------------------------------------------------------------------------


@pytest.mark.once
def test_feature_grid_and_its_figure(net):
    stages = ["stem", "block_3"]
    grid = dreaming.feature_grid(net, stages, [0, 3], size=40, steps=2, octaves=1)
    assert grid.shape == (2, 2, 40, 40, 3) and grid.dtype == np.float32
    assert grid.min() >= 0 and grid.max() <= 1
    again = dreaming.feature_grid(net, stages, [3], size=40, steps=2, octaves=1)
    np.testing.assert_array_equal(again[:, 0], grid[:, 1])
    assert len({image.tobytes() for row in grid for image in row}) == 4
    other = dreaming.feature_grid(net, stages, [3], size=40, steps=2, octaves=1, seed=1)
    assert np.abs(other - again).max() > 0.01
    figure, caption = plot_features(grid, stages, [0, 3], "Two steps.")
    axes = figure.get_axes()
    assert [axes[0].get_ylabel(), axes[2].get_ylabel()] == stages
    assert axes[1].get_title() == "channel 3"
    for words in ("2 channels", "2 stages", "Two steps.", "n = 4 images of 40 x 40", "repeat most"):
        assert words in caption


@pytest.mark.once
def test_the_caption_knows_what_repeats():
    stripes = np.tile(np.sin(np.arange(64) * np.pi / 4)[None, :, None] / 2 + 0.5, (64, 1, 3))
    noise = np.random.default_rng(0).random((64, 64, 3))
    _, caption = plot_features(np.stack([noise, stripes])[:, None], ["a", "b"])
    assert "repeat most in b and least in a" in caption and "and 1.00, from top" in caption
    _, caption = plot_features(np.full((1, 1, 8, 8, 3), 0.5), ["a"])
    assert "1 grey" in caption and "up to 0.00." in caption


@pytest.mark.once
def test_what_does_not_answer_is_said(net):
    """A stage that answers the same to all: its kernel is zero."""
    dead = type(net).from_config(net.get_config())
    for weight in dead.get_layer("stem").weights:
        weight.assign(np.zeros(weight.shape))
    with pytest.raises(ValueError, match="stage block_1 has an activation .* does not depend"):
        dreaming.dream(dead, picture(), "block_1", steps=1, octaves=1)
    with pytest.warns(UserWarning, match="channel 0 of stage block_1 is not activated"):
        grid = dreaming.feature_grid(dead, ["block_1"], 1, size=16, steps=1, octaves=1)
    assert np.ptp(grid) == 0


def test_a_norm_that_is_always_as_large_is_no_aim():
    """Its gradient is rounding, which would be painted as noise, another on each backend."""
    backbone = kft.backbones.randomised(BACKBONES["vit"](), 0)
    with pytest.raises(ValueError, match="final_norm has an activation of 1 for this image"):
        dreaming.dream(backbone, picture(), "final_norm", steps=1, octaves=1, jitter=0)


@pytest.mark.once
def test_one_channel_of_a_norm_is_an_aim():
    backbone = kft.backbones.randomised(BACKBONES["vit"](), 0)
    assert dreaming.dream(backbone, picture(), "final_norm", 2, steps=1, octaves=1).any()


# What can be wrong --------------------------------------------------------------------------------

WRONG = (
    ({"stage": "block_77"}, ValueError, "stage must be one of stem, block_0.*received 'block_77'"),
    ({"stage": None}, ValueError, "stage must be one of stem"),
    ({"channel": 8}, ValueError, "channel of stage block_1 must be an integer from 0 to 7, rec"),
    ({"channel": -1}, ValueError, "channel of stage block_1 must be an integer from 0 to 7"),
    ({"channel": 1.5}, ValueError, "channel of stage block_1 must be an integer from 0 to 7"),
    ({"steps": 0}, ValueError, "steps must be an integer of at least 1, received 0"),
    ({"octaves": 0}, ValueError, "octaves must be"),
    ({"octaves": 1.0}, ValueError, "octaves must be"),
    ({"bands": 0}, ValueError, "bands must be"),
    ({"jitter": -1}, ValueError, "jitter must be an integer of at least 0"),
    ({"octave_scale": 1}, ValueError, "octave_scale must be a number above 1, received 1"),
    ({"step_size": 0}, ValueError, "step_size must be a number above 0, received 0"),
    ({"step_size": float("nan")}, ValueError, "step_size must be"),
    ({"image": None}, TypeError, "image must be a path"),
    ({"image": np.zeros((0, 4, 3))}, TypeError, "image must be"),
    ({"image": np.zeros((2, 4, 4, 3))}, TypeError, r"float64 \(2, 4, 4, 3\)"),
    ({"image": "no.png"}, FileNotFoundError, "image is 'no.png', which is not a file"),
)


@pytest.mark.once
@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_wrong_arguments(net, change, error, message):
    given = {"image": picture(), "stage": "block_1", "steps": 1, "octaves": 1, **change}
    with pytest.raises(error, match=message):
        dreaming.dream(net, **given)


@pytest.mark.once
def test_wrong_arguments_of_the_grid(net):
    for change, message in (
        ({"stages": []}, "stages and channels must not be empty"),
        ({"stages": ["no"]}, "stage must be one of"),
        ({"channels": 0}, "channels must be an integer of at least 1"),
        ({"channels": None}, "channels must be an integer of at least 1, received None"),
        ({"channels": 2.5}, "channels must be an integer of at least 1, received 2.5"),
        ({"channels": [99]}, "channel of stage .* must be an integer from 0 to"),
        ({"channels": []}, "stages and channels must not be empty"),
        ({"size": 0}, "size must be an integer of at least 1"),
        ({"steps": 0}, "steps must be"),
    ):
        with pytest.raises(ValueError, match=message):
            dreaming.feature_grid(net, **{"stages": ["stem"], "channels": 1, **change})


@pytest.mark.once
def test_proteins_are_no_images():
    backbone = kft.load("kft_esm2_tiny")
    for call in (
        lambda: dreaming.dream(backbone, picture(), "block_0"),
        lambda: dreaming.feature_grid(backbone),
    ):
        with pytest.raises(TypeError, match="backbone must be a vision backbone.*received 'esm2"):
            call()


@pytest.mark.once
def test_a_figure_of_something_else():
    with pytest.raises(ValueError, match=r"received \(4, 4, 3\)"):
        plot_features(np.zeros((4, 4, 3)), ["a"])
    with pytest.raises(ValueError, match="received 1 stages and 2 channels"):
        plot_features(np.zeros((2, 2, 4, 4, 3)), ["a"])


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
def test_quantized_weights_are_refused():
    backbone = BACKBONES["vit"]()
    backbone.quantize("int8")
    with pytest.raises(ValueError, match=r"vit has quantized weights, for example in \S+,"):
        dreaming.dream(backbone, picture(), "block_1")


if __name__ == "__main__":
    dreams = {name: np.rint(65535 * dreamt(name)).astype("uint16") for name in DREAMERS}
    np.savez_compressed(DREAMS, **dreams)
