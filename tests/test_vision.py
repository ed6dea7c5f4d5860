"""Vision backbones: one contract for all of them."""

import json
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from keras import ops
from models import BACKBONES, in_turn, moved, perturb_adapters, pictures, same, values
from parity import assert_rounds_alike

import kft


def kinds_of(everywhere, **turns):
    """All kinds of backbone: those named on each backend, or on that of their turn, or long."""
    kinds = []
    for name in BACKBONES:
        marks = pytest.mark.in_turn(turns[name]) if name in turns else pytest.mark.long
        kinds.append(name if name in everywhere else pytest.param(name, marks=marks))
    return pytest.mark.parametrize("backbone", kinds, indirect=True)


@pytest.fixture
def backbone(request):
    return kft.backbones.randomised(BACKBONES[request.param](), 0)


@pytest.fixture(params=in_turn(BACKBONES, everywhere=["vit"]), scope="module")
def unchanged(request):
    """One of each kind, for tests that change nothing of it."""
    return kft.backbones.randomised(BACKBONES[request.param](), 0)


# The contract -----------------------------------------------------------------------------------


def test_stages_are_nodes_in_order(unchanged):
    stages = unchanged.stages
    assert len(stages) == len({id(stage) for stage in stages}) > 2
    assert [x.name for x in unchanged.layers[1:]] == [stage.name for stage in stages]
    blocks = [x.name for x in stages if x.name.startswith("block_")]
    assert blocks == [f"block_{i}" for i in range(len(blocks))]
    weights = [w for stage in stages for w in stage.weights]
    assert {id(w) for w in weights} == {id(w) for w in unchanged.weights}, "no weight is outside"
    assert unchanged.output_shape[-1] == unchanged.width


def test_built_again_from_its_config(unchanged, as_written):
    """The same names, though Keras has counted on in between; from a seed the same weights."""
    config = json.loads(json.dumps(unchanged.get_config()))
    again = type(unchanged).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert list(kft.params.layers(again)) == list(kft.params.layers(unchanged))
    assert [w.path for w in again.weights] == [w.path for w in unchanged.weights]
    kft.backbones.randomised(again, 0)
    for one, two in zip(again.get_weights(), unchanged.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    x = unchanged.encode([*pictures(2)[0], np.zeros((20, 40), "uint8")])
    features = unchanged.predict_on_batch(x)
    assert_rounds_alike(again.predict_on_batch(x), features)
    assert features.shape[-1] == unchanged.width
    assert np.isfinite(features).all() and 1e-3 < features.std() < 1e3


@kinds_of(["vit"], dinov3="jax", mobilenet="tensorflow")
def test_save_and_reload(backbone, tmp_path, as_written):
    model = kft.Model(backbone, kft.heads.Regression(2, kernel_initializer="lecun_normal"))
    kft.freeze(model, "block_0")
    x = backbone.encode(pictures(2)[0])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_rounds_alike(again.predict_on_batch(x), model.predict_on_batch(x))
    assert kft.fingerprint(again) == kft.fingerprint(model)


@pytest.mark.parametrize("name", in_turn(["vit", "efficientnet"], backends=("jax", "torch")))
def test_the_published_classifier_goes_wherever_the_backbone_goes(name, tmp_path, as_written):
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
        assert_rounds_alike(copy.classifier.predict_on_batch(x), expected)
    dense, larger = (b.classifier.layers[-1] for b in (backbone, backbone.resized(64)))
    np.testing.assert_array_equal(larger.get_weights()[0], dense.get_weights()[0])


@pytest.mark.once
def test_image_sizes():
    backbone = BACKBONES["vit"]()
    for size in (np.int64(64), (64, np.int32(64)), np.array([64, 64])):
        assert json.loads(json.dumps(backbone.resized(size).get_config()))["image_size"] == [64, 64]
    for size in (64.0, "64", None, 0, (64, 64.0), (64,), np.float32(64)):
        with pytest.raises(
            ValueError, match="image_size must be (an integer of at least 1|one integer or)"
        ):
            backbone.resized(size)


@kinds_of(["resnet_v2"], efficientnet="torch", swiglu="torch", dinov3="tensorflow")
def test_split_at_every_stage(backbone, as_written):
    model = kft.Model(backbone, kft.heads.Regression(2, kernel_initializer="lecun_normal"))
    x = backbone.encode(pictures(2)[0])
    expected = model.predict_on_batch(x)
    last = len(backbone.stages) - 1
    for k in (1, last):
        kft.train_only(model, [*(s.name for s in backbone.stages[k:]), "head"])
        frozen, trainable = kft.split(model)
        found = trainable.predict_on_batch(frozen.predict_on_batch(x))
        assert_rounds_alike(found, expected)


@pytest.mark.once
@kinds_of(BACKBONES)
def test_a_new_head_prefers_no_class(backbone):
    model = kft.Model(backbone, kft.heads.Classification(7))
    np.testing.assert_array_equal(kft.predict(model, pictures(3)[0]), np.float32(1 / 7))


# Strategies differ by what rests, which batch statistics make hard; transformers train much as
# ESM-2 does in test_strategies.py.
TURNS = {
    ("last_blocks", "efficientnet"): "jax",
    ("lora", "vit"): "tensorflow",
    ("lora", "efficientnet"): "torch",
    ("gradual_unfreezing", "efficientnet"): "torch",
    ("full", "efficientnet"): "torch",
    ("head_only", "efficientnet"): "torch",
    ("linear_probe", "efficientnet"): "torch",
    ("from_scratch", "efficientnet"): "torch",
    ("last_blocks", "vit"): "torch",
}
STRATEGIES = []
for name in kft.strategies.names():
    for kind in ("vit", "efficientnet"):
        turn = TURNS.get((name, kind), "long")
        marks = pytest.mark.long if turn == "long" else pytest.mark.in_turn(turn)
        STRATEGIES.append(pytest.param(name, kind, marks=marks))


@pytest.mark.parametrize(("name", "backbone"), STRATEGIES, indirect=["backbone"])
def test_every_strategy(backbone, name, as_written):
    """What is to learn moves, statistics included, and nothing else does."""
    images, kinds = pictures(16)
    model = kft.Model(backbone, kft.heads.Classification(2))
    options = {} if name == "linear_probe" else {"epochs": 2, "learning_rate": 1e-2}
    before = values(model)
    done = kft.fit(model, (images, kinds), name, batch_size=8, seed=0, verbose=0, **options)
    stages = [stage.name for stage in backbone.stages]
    last = stages[1:] if backbone.name == "vit" else stages[-2:]  # a norm goes with its block
    resting = {"linear_probe": [], "head_only": [], "lora": [], "last_blocks": last}
    learns = resting.get(name, stages)
    after = values(done.model)
    assert moved(before, after) == {*learns, "head"}
    for path in before:
        if "moving" in path:
            assert np.any(after[path] != before[path]) == (path.partition("/")[0] in learns), path
    added = {w.path: w.variable for w in kft.params.weights(done.model) if w.path not in before}
    assert bool(added) == (name == "lora")
    assert all(np.any(ops.convert_to_numpy(v)) for path, v in added.items() if "lora_b" in path)
    if name == "from_scratch":
        assert same(values(model), before)
    answers = kft.predict(done.model, images)
    assert answers.shape == (16, 2) and np.isfinite(answers).all()
    if name == "linear_probe":
        assert (answers.argmax(1) == kinds).mean() > 0.7
    # In four steps nothing else gets beyond chance for sure.
    if name in ("head_only", "lora") and backbone.name == "efficientnet":
        assert -np.log(answers[np.arange(16), kinds]).mean() < np.log(2) - 0.003


@pytest.mark.in_turn("tensorflow")
@pytest.mark.parametrize("backbone", ["efficientnet"], indirect=True)
def test_what_is_not_unfrozen_yet_rests(backbone, as_written):
    @dataclass(frozen=True)
    class Beginning(kft.strategies.GradualUnfreezing):
        """The first of two phases: the head and half of the stages."""

        def phases(self, model):
            return super().phases(model)[:1]

    images, kinds = pictures(16)
    model = kft.Model(backbone, kft.heads.Classification(2))
    before = values(model)
    kft.fit(model, (images, kinds), Beginning(epochs=2), batch_size=8, seed=0, verbose=0)
    assert moved(before, values(model)) == {"block_2", "block_3", "top", "head"}


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param("resnet", marks=pytest.mark.in_turn("tensorflow")),
        pytest.param("efficientnet", marks=pytest.mark.in_turn("torch")),
        "mobilenet",
    ],
    indirect=True,
)
def test_statistics_of_frozen_blocks_rest(backbone, as_written):
    """Those of blocks that learn follow the data; nothing of a frozen one moves."""
    images, kinds = pictures(16)
    model = kft.Model(backbone, kft.heads.Classification(2))
    before = {w.path: ops.convert_to_numpy(w) for w in backbone.weights}
    kft.fit(model, (images, kinds), kft.strategies.get("last_blocks", blocks=1, epochs=1),
            batch_size=8, seed=0, verbose=0, frontier=False)  # fmt: skip
    for stage in backbone.stages:
        for weight in stage.weights:
            rests = np.array_equal(ops.convert_to_numpy(weight), before[weight.path])
            if not stage.trainable:
                assert rests, weight.path
            elif "moving" in weight.path:
                assert not rests, weight.path
    learning = [stage.name for stage in backbone.stages if stage.trainable]
    assert 0 < len(learning) < 3


@pytest.mark.parametrize(
    "backbone",
    in_turn(["vit", "efficientnet"], backends=("torch", "jax")),
    indirect=True,
)
def test_fit_at_the_frontier_is_fit_of_the_whole(backbone, as_written):
    images, kinds = pictures(16)
    found = []
    for frontier in (True, False):
        copy = type(backbone).from_config(backbone.get_config())
        copy.set_weights(backbone.get_weights())
        model = kft.Model(copy, kft.heads.Classification(2))
        kft.fit(model, (images, kinds), "last_blocks", 1, batch_size=8, seed=0, verbose=0,
                frontier=frontier, learning_rate=1e-2)  # fmt: skip
        answers = np.log(model.predict_on_batch(model.encode(images)))
        found.append(answers[:, 0] - answers[:, 1])  # which were 0 before
    assert np.abs(found[0]).max() > 0.01
    # Adam divides gradients by their size, and so passes on how much those were rounded.
    assert_rounds_alike(*found, roundings=1000)


@kinds_of(
    [],
    efficientnet="tensorflow",
    swiglu="torch",
    dinov3="jax",
    deit="torch",
    resnet_v2="torch",
    mobilenet="torch",
)
def test_lora_finds_what_to_adapt_and_survives_saving(backbone, tmp_path, as_written):
    # Not probabilities: random features may be so large that those are 0 and 1 whatever changes.
    model = kft.Model(backbone, kft.heads.Regression(2, kernel_initializer="lecun_normal"))
    x = backbone.encode(pictures(2)[0])
    before = model.predict_on_batch(x)
    assert kft.add_lora(model, rank=2, targets=None)  # `targets=None`: the backbone's own
    assert_rounds_alike(model.predict_on_batch(x), before)
    perturb_adapters(model)
    changed = model.predict_on_batch(x)
    assert np.abs(changed - before).max() > 1e-4
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_rounds_alike(again.predict_on_batch(x), changed)
    kft.merge_lora(model)
    assert_rounds_alike(model.predict_on_batch(x), changed)


@pytest.mark.once
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


@pytest.mark.once
def test_a_path_is_an_image_for_a_vision_model(tmp_path):
    """Not a FASTA file, which it is for a protein language model."""
    (tmp_path / "a.png").write_text(">a\nMKT\n")
    backbone = BACKBONES["vit"]()
    for path in (tmp_path / "a.png", str(tmp_path / "a.png")):
        with pytest.raises(ValueError, match="a.png"):
            kft.embed(backbone, path)


def test_embed_counts_patches_alone(as_written):
    backbone = kft.backbones.randomised(BACKBONES["deit"](), 0)
    images = pictures(3)[0]
    features = backbone.predict_on_batch(backbone.encode(images))
    assert_rounds_alike(kft.embed(backbone, images), features[:, 2:].mean(1))
    assert_rounds_alike(kft.embed(backbone, images, "cls"), features[:, 0])
