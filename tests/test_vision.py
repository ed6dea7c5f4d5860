"""Vision backbones: one contract for all of them."""

import json
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import ops
from models import BACKBONES, pictures

import kft

RNG = np.random.default_rng(0)

TRANSFORMERS = ("vit", "deit", "dinov2", "swiglu")


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return kft.backbones.randomised(BACKBONES[request.param](), 0)


# The contract -----------------------------------------------------------------------------------


def test_stages_are_nodes_in_order(backbone):
    assert len(backbone.stages) == len({id(stage) for stage in backbone.stages}) > 2
    assert [x.name for x in backbone.layers[1:]] == [stage.name for stage in backbone.stages]
    blocks = [x.name for x in backbone.stages if x.name.startswith("block_")]
    assert blocks == [f"block_{i}" for i in range(len(blocks))]
    weights = [w for stage in backbone.stages for w in stage.weights]
    assert {id(w) for w in weights} == {id(w) for w in backbone.weights}, "no weight is outside"
    features = backbone(backbone.encode([np.zeros((20, 40), "uint8")]))
    assert features.shape[-1] == backbone.width


def test_names_are_the_same_in_every_process(backbone):
    """Twice the same, though Keras has counted on in between."""
    again = type(backbone).from_config(backbone.get_config())
    assert list(kft.params.layers(again)) == list(kft.params.layers(backbone))
    assert [w.path for w in again.weights] == [w.path for w in backbone.weights]


def test_config_round_trip(backbone):
    config = json.loads(json.dumps(backbone.get_config()))
    again = type(backbone).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    again.set_weights(backbone.get_weights())
    x = backbone.encode(pictures(2)[0])
    np.testing.assert_array_equal(again.predict_on_batch(x), backbone.predict_on_batch(x))


def test_save_and_reload(backbone, tmp_path):
    model = kft.Model(backbone, kft.heads.Classification(2, kernel_initializer="lecun_normal"))
    kft.freeze(model, "block_0")
    x = backbone.encode(pictures(2)[0])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(x), model.predict_on_batch(x))
    assert kft.fingerprint(again) == kft.fingerprint(model)


BOTH_KINDS = pytest.mark.parametrize("backbone", ["vit", "efficientnet"], indirect=True)


@pytest.mark.parametrize("name", ["vit", "efficientnet"])
def test_the_published_classifier_goes_wherever_the_backbone_goes(name, tmp_path):
    """It is no layer of the backbone, and must not answer at random under published names."""
    backbone = kft.backbones.randomised(BACKBONES[name](classes=("cat", "dog", "eel")), 0)
    x = backbone.encode(pictures(2)[0])
    expected = backbone.classifier.predict_on_batch(x)
    backbone.save(tmp_path / "backbone.keras")
    kft.Model(backbone, kft.heads.Classification(2)).save(tmp_path / "model.keras")
    for copy in (
        backbone.resized(32),
        keras.saving.load_model(tmp_path / "backbone.keras"),
        keras.saving.load_model(tmp_path / "model.keras").backbone,
    ):
        np.testing.assert_allclose(copy.classifier.predict_on_batch(x), expected, atol=1e-6)
    dense, larger = (b.classifier.layers[-1] for b in (backbone, backbone.resized(64)))
    np.testing.assert_array_equal(larger.get_weights()[0], dense.get_weights()[0])


@pytest.mark.once
def test_image_sizes():
    backbone = BACKBONES["vit"]()
    for size in (np.int64(64), (64, np.int32(64)), np.array([64, 64])):
        assert json.loads(json.dumps(backbone.resized(size).get_config()))["image_size"] == [64, 64]
    for size in (64.0, "64", None, 0, (64, 64.0), (64,), np.float32(64)):
        with pytest.raises(ValueError, match="image_size must be one or two integers above 0"):
            backbone.resized(size)


def test_the_same_seed_draws_the_same_weights(backbone):
    again = kft.backbones.randomised(type(backbone).from_config(backbone.get_config()), 0)
    for one, two in zip(again.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    features = backbone.predict_on_batch(backbone.encode(pictures(8)[0]))
    assert np.isfinite(features).all() and 1e-3 < features.std() < 1e3


def test_split_at_every_stage(backbone):
    model = kft.Model(backbone, kft.heads.Classification(2, kernel_initializer="lecun_normal"))
    x = backbone.encode(pictures(2)[0])
    expected = ops.convert_to_numpy(model(x, training=False))
    last = len(backbone.stages) - 1
    for k in (1, last // 2 + 1, last):
        kft.train_only(model, [*(s.name for s in backbone.stages[k:]), "head"])
        frozen, learning = kft.split(model)
        found = ops.convert_to_numpy(learning(frozen(x), training=False))
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_new_head_prefers_no_class(backbone):
    model = kft.Model(backbone, kft.heads.Classification(7))
    np.testing.assert_array_equal(kft.predict(model, pictures(3)[0]), np.float32(1 / 7))


def moved_stages(model, before):
    """Those with any weight that is not as it was, whose new adapters do not count."""
    after = kft.params.digests(model, None)
    return {path.partition("/")[0] for path in before if after[path] != before[path]}


@BOTH_KINDS
@pytest.mark.parametrize("name", kft.strategies.names())
def test_every_strategy(backbone, name, as_written):
    """What is to learn moves, statistics included, and nothing else does."""
    images, kinds = pictures(16)
    model = kft.Model(backbone, kft.heads.Classification(2))
    options = {} if name == "linear_probe" else {"epochs": 2, "learning_rate": 1e-2}
    before = kft.params.digests(model, None)
    done = kft.fit(model, (images, kinds), name, batch_size=8, seed=0, verbose=0, **options)
    stages = [stage.name for stage in backbone.stages]
    last = stages[1:] if backbone.name == "vit" else stages[-2:]  # a norm goes with its block
    resting = {"linear_probe": [], "head_only": [], "lora": [], "last_blocks": last}
    learns = resting.get(name, stages)
    assert moved_stages(done.model, before) == {*learns, "head"}
    after = kft.params.digests(done.model, None)
    for path in before:
        if "moving" in path:
            assert (after[path] != before[path]) == (path.partition("/")[0] in learns), path
    added = {w.path: w.variable for w in kft.params.weights(done.model) if w.path not in before}
    assert bool(added) == (name == "lora")
    assert all(np.any(ops.convert_to_numpy(v)) for path, v in added.items() if "lora_b" in path)
    if name == "from_scratch":
        assert kft.params.digests(model, None) == before
    answers = kft.predict(done.model, images)
    assert answers.shape == (16, 2) and np.isfinite(answers).all()
    if name == "linear_probe":
        assert (answers.argmax(1) == kinds).mean() > 0.7
    # In four steps nothing else gets beyond chance for sure.
    if name in ("head_only", "lora") and backbone.name == "efficientnet":
        assert -np.log(answers[np.arange(16), kinds]).mean() < np.log(2) - 0.003


@pytest.mark.parametrize("backbone", ["efficientnet"], indirect=True)
def test_what_is_not_unfrozen_yet_rests(backbone, as_written):
    @dataclass(frozen=True)
    class Beginning(kft.strategies.GradualUnfreezing):
        """The first of two phases: the head and half of the stages."""

        def __call__(self, model):
            return super().__call__(model)[:1]

    images, kinds = pictures(16)
    model = kft.Model(backbone, kft.heads.Classification(2))
    before = kft.params.digests(model, None)
    kft.fit(model, (images, kinds), Beginning(epochs=2), batch_size=8, seed=0, verbose=0)
    assert moved_stages(model, before) == {"block_2", "block_3", "top", "head"}


@pytest.mark.parametrize("backbone", ["resnet", "efficientnet", "mobilenet"], indirect=True)
def test_statistics_of_frozen_blocks_rest(backbone, as_written):
    """Those of blocks that learn follow the data; nothing of a frozen one moves."""
    images, kinds = pictures(16)
    model = kft.Model(backbone, kft.heads.Classification(2))
    before = {w.path: ops.convert_to_numpy(w) for w in backbone.weights}
    kft.fit(model, (images, kinds), kft.strategies.get("last_blocks", blocks=1, epochs=2),
            batch_size=8, seed=0, verbose=0, frontier=False)  # fmt: skip
    for stage in backbone.stages:
        for weight in stage.weights:
            moved = not np.array_equal(ops.convert_to_numpy(weight), before[weight.path])
            if not stage.trainable:
                assert not moved, weight.path
            elif "moving" in weight.path:
                assert moved, weight.path
    learning = [stage.name for stage in backbone.stages if stage.trainable]
    assert 0 < len(learning) < 3


@BOTH_KINDS
def test_fit_at_the_frontier_is_fit_of_the_whole(backbone, as_written):
    images, kinds = pictures(16)
    found = []
    for frontier in (True, False):
        copy = type(backbone).from_config(backbone.get_config())
        copy.set_weights(backbone.get_weights())
        model = kft.Model(copy, kft.heads.Classification(2))
        kft.fit(model, (images, kinds), "last_blocks", 2, batch_size=8, seed=0, verbose=0,
                frontier=frontier)  # fmt: skip
        found.append(kft.predict(model, images))
    np.testing.assert_allclose(*found, atol=1e-5)


def test_lora_finds_what_to_adapt_and_survives_saving(backbone, tmp_path):
    # Not probabilities: random features may be so large that those are 0 and 1 whatever changes.
    model = kft.Model(backbone, kft.heads.Regression(2, kernel_initializer="lecun_normal"))
    x = backbone.encode(pictures(2)[0])
    before = model.predict_on_batch(x)
    assert kft.add_lora(model, rank=2, targets=None)  # `targets=None`: the backbone's own
    np.testing.assert_allclose(model.predict_on_batch(x), before, atol=1e-6)
    for weight in kft.params.weights(model):
        if "lora_b" in weight.path:
            weight.variable.assign(RNG.standard_normal(weight.variable.shape) * 0.1)
    changed = model.predict_on_batch(x)
    assert np.abs(changed - before).max() > 1e-4
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict_on_batch(x), changed, atol=1e-6)
    kft.merge_lora(model)
    np.testing.assert_allclose(model.predict_on_batch(x), changed, atol=1e-5)


def test_compare(tmp_path, as_written):
    from kft.data import Dataset, Split

    images, kinds = pictures(32)
    parts = [Split(images[:16], kinds[:16]), Split(images[16:], kinds[16:])]
    data = Dataset("pictures", "classification", parts[0], None, parts[1], source="drawn",
                   licence="none", citation="", checksum="", classes=("right", "left"))  # fmt: skip
    backbone = BACKBONES["vit"]()
    result = kft.compare(backbone, data, ["linear_probe", "lora"], seeds=1, epochs=1,
                         out=tmp_path, verbose=False)  # fmt: skip
    assert result.rows[0].name == "majority class"
    assert not any(row.error for row in result.rows)


def test_one_path_is_no_list_of_images(tmp_path):
    """Nor a FASTA file, which a path is for a protein language model."""
    (tmp_path / "a.png").write_text(">a\nMKT\n")
    backbone = BACKBONES["vit"]()
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        with pytest.raises(TypeError, match=r"write \[path\]"):
            kft.embed(backbone, path)


def test_embed_counts_patches_alone():
    backbone = kft.backbones.randomised(BACKBONES["deit"](), 0)
    images = pictures(3)[0]
    features = backbone.predict_on_batch(backbone.encode(images))
    np.testing.assert_allclose(kft.embed(backbone, images), features[:, 2:].mean(1), atol=1e-5)
    np.testing.assert_allclose(kft.embed(backbone, images, "cls"), features[:, 0], atol=1e-6)


@pytest.mark.once
def test_kft_loads_without_keras_hub():
    """`import kft` brings no TensorFlow along."""
    import subprocess
    import sys

    code = "import sys, kft, kft.backbones.vision; print('keras_hub' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
