"""What an adapter has in full, its head for one, is switched, combined, saved and read with it."""

import keras
import numpy as np
import pytest
from keras import ops
from models import esm2, perturb, same, values
from parity import assert_rounds_alike

import kft
from kft.lora.owned import adapted

SEQUENCES = ["MKTAYI", "GSSW", "ACDEFGHIKLMNP"]


def model_of(head=None):
    return kft.Model(esm2(), head or kft.heads.Classification(2, kernel_initializer="ones"))


def taught(model, name, seed, **options):
    """Adds an adapter whose parts, head included, are drawn from `seed`."""
    kft.add_lora(model, 2, name=name, **options)
    return perturb(model, 0.5, seed, learning=True)


def two(model, **options):
    """A model with adapters a and b and what it answers without any, with a and with b."""
    base = kft.predict(model, SEQUENCES)
    answers = {None: base}
    for seed, name in enumerate("ab", 1):
        answers[name] = kft.predict(taught(model, name, seed, **options), SEQUENCES)
        assert np.abs(answers[name] - base).max() > 0.01
    assert np.abs(answers["a"] - answers["b"]).max() > 0.01
    return answers


@keras.saving.register_keras_serializable("test_adapter_heads")
class Scaled(keras.layers.Layer):
    """A head with a weight of its own and statistics, whose config tells of no parts."""

    def build(self, shape, *_):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.inner = keras.layers.Dense(2, name="inner")
        self.norm.build((None, shape[-1]))
        self.inner.build((None, shape[-1]))

    def call(self, features, position_mask=None):
        return self.inner(self.norm(ops.mean(features, axis=1) * self.scale))


HEADS = {
    "classes": lambda: None,
    "attention": lambda: kft.heads.Regression(
        2, mean=[1.0, 2.0], pooling="attention", kernel_initializer="ones"
    ),
    "two layers": lambda: kft.heads.EsmClassification(3, kernel_initializer="ones"),
    "residues": lambda: kft.heads.ResidueRegression(kernel_initializer="ones"),
    "layers that kft does not know by heart": Scaled,
}


def answered(model):
    found = kft.predict(model, SEQUENCES)
    return np.concatenate(found) if isinstance(found, list) else found


OF_HEADS = [k if k == "attention" else pytest.param(k, marks=pytest.mark.once) for k in HEADS]


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize("kind", OF_HEADS)
def test_switching_and_saving(kind, tmp_path):
    model = model_of(HEADS[kind]())
    base, learned = answered(model), {}
    for seed, name in enumerate("ab", 1):
        learned[name] = answered(taught(model, name, seed, bias="all"))
    assert (
        np.abs(learned["a"] - base).max() > 0.01 and np.abs(learned["a"] - learned["b"]).max() > 0
    )
    for name, expected in (("a", learned["a"]), (None, base), ("b", learned["b"])):
        kft.lora.use(model, name)
        assert_rounds_alike(answered(model), expected)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    kft.lora.use(model, "a")
    model.load_weights(tmp_path / "model.weights.h5")  # who counts is not in there
    for one in (again, model):
        for name, expected in ((None, base), ("a", learned["a"]), ("b", learned["b"])):
            kft.lora.use(one, name)
            assert_rounds_alike(answered(one), expected)
    with pytest.warns(UserWarning, match="'b' was the active adapter of model, and 'a' is now"):
        kft.lora.remove(model, "b")
    assert_rounds_alike(answered(model), learned["a"])
    kft.lora.remove(model)
    assert_rounds_alike(answered(model), base)
    assert not kft.lora.names(model) and not adapted(model)


@pytest.mark.in_turn("torch")
def test_two_files(tmp_path):
    """The issue's own: each file has its head, in memory and when it is written again."""
    model = model_of()
    answers = two(model)
    for name in "ab":
        kft.save_adapter(model, tmp_path / name, name=name)  # b counts
    other = model_of()
    for name in "ab":
        kft.load_adapter(other, tmp_path / name, name=name)
        assert_rounds_alike(kft.predict(other, SEQUENCES), answers[name])
    kft.lora.use(other, "a")
    assert_rounds_alike(kft.predict(other, SEQUENCES), answers["a"])
    kft.lora.use(other, None)
    assert_rounds_alike(kft.predict(other, SEQUENCES), answers[None])
    kft.save_adapter(other, tmp_path / "again", name="b")
    third = model_of()
    kft.load_adapter(third, tmp_path / "again")
    assert_rounds_alike(kft.predict(third, SEQUENCES), answers["b"])


@pytest.mark.usefixtures("as_written")
@pytest.mark.in_turn("jax")
def test_training_one_leaves_the_other():
    model, strategy = model_of(), kft.strategies.get("lora", rank=2)
    for name, targets in (("a", [0, 1, 0]), ("b", [1, 0, 1])):
        kft.add_lora(model, 2, name=name)
        kft.fit(model, (SEQUENCES, targets), strategy, 3, verbose=0)
        if name == "a":
            before = kft.predict(model, SEQUENCES)
            model.compiled = False  # what learns will change, which is said of compiled models
    model.compiled = False
    kft.lora.use(model, "a")
    np.testing.assert_array_equal(kft.predict(model, SEQUENCES), before)
    kft.fit(model, (SEQUENCES, [0, 1, 0]), strategy, 1, verbose=0)  # and goes on
    assert np.abs(kft.predict(model, SEQUENCES) - before).max() > 0


@pytest.mark.in_turn("tensorflow")
def test_combined():
    """Base + share (adapter - base), as for the updates; nobody's learn."""
    model = model_of(kft.heads.Regression(kernel_initializer="ones"))
    answers = two(model)
    kernel = model.head.dense.kernel
    found = {}
    for name in (None, "a", "b"):
        kft.lora.use(model, name)
        found[name] = ops.convert_to_numpy(kernel)
    kft.lora.use(model, {"a": 0.5, "b": 2.0})
    expected = found[None] + 0.5 * (found["a"] - found[None]) + 2.0 * (found["b"] - found[None])
    np.testing.assert_allclose(ops.convert_to_numpy(kernel), expected, atol=1e-5)
    assert not kernel.trainable and model.get_layer("block_0").query.adapters["a"].a.trainable
    combined = kft.predict(model, SEQUENCES)
    kft.merge_lora(model)
    assert_rounds_alike(kft.predict(model, SEQUENCES), combined)
    kft.unmerge_lora(model)
    kft.lora.use(model, "a")
    assert kernel.trainable
    assert_rounds_alike(kft.predict(model, SEQUENCES), answers["a"])
    kft.merge_lora(model)
    kft.lora.remove(model)  # what is merged stays, the head with it
    assert_rounds_alike(kft.predict(model, SEQUENCES), answers["a"])


@pytest.mark.in_turn("torch")
def test_a_layer_woken_beside_the_adapter(tmp_path):
    """Its own too, with what it was kept for the base."""
    model = model_of()
    base = values(model)
    kft.add_lora(model, 2, name="a")
    kft.unfreeze(model, "final_norm")
    perturb(model, 0.5, 1, learning=True)
    learned = kft.predict(model, SEQUENCES)
    kft.lora.use(model, None)
    there = values(model)
    assert same(base, {path: there[path] for path in base})
    kft.lora.use(model, "a")
    assert_rounds_alike(kft.predict(model, SEQUENCES), learned)
    kft.save_adapter(model, tmp_path)
    other = model_of()
    kft.load_adapter(other, tmp_path)
    assert_rounds_alike(kft.predict(other, SEQUENCES), learned)
    kft.lora.use(other, None)
    there = values(other)
    assert same(base, {path: there[path] for path in base})


@pytest.mark.once
def test_a_layer_unfrozen_by_hand_belongs_to_the_adapter():
    model = model_of()
    taught(model, "default", 1)
    norm = model.get_layer("block_0").feedforward_norm
    norm.trainable = True
    with pytest.warns(UserWarning, match=r"1 layers of model \(block_0/feedforward_norm\) are"):
        kft.lora.use(model, "default")
    norm.gamma.assign(norm.gamma + 1)
    learned = kft.predict(model, SEQUENCES)
    kft.lora.use(model, None)
    assert np.abs(kft.predict(model, SEQUENCES) - learned).max() > 0.01
    kft.lora.use(model, "default")
    assert_rounds_alike(kft.predict(model, SEQUENCES), learned)


@pytest.mark.in_turn("torch")
def test_two_models_on_one_backbone():
    """Each has heads of its own, whichever of them is asked to switch."""
    backbone = esm2()
    first, second = (kft.Model(backbone, kft.heads.Regression(kernel_initializer="ones"))
                     for _ in range(2))  # fmt: skip
    for seed, name in enumerate("ab", 1):
        taught(first, name, seed)
        perturb(second, 0.5, seed + 5, learning=True)
    found = {}
    for name in (None, "a", "b"):
        kft.lora.use(first, name)
        found[name] = kft.predict(first, SEQUENCES), kft.predict(second, SEQUENCES)
    assert np.abs(found["b"][0] - found["b"][1]).max() > 0.01
    for name in ("a", None, "b"):
        kft.lora.use(second, name)
        for model, expected in zip((first, second), found[name], strict=True):
            assert_rounds_alike(kft.predict(model, SEQUENCES), expected)


@pytest.mark.in_turn("torch")
def test_a_new_head_is_each_adapters_own():
    model = model_of()
    for seed, name in enumerate("ab", 1):
        taught(model, name, seed)
    model = kft.replace_head(model, kft.heads.Regression())
    perturb(model, 0.5, 9, learning=True)
    learned = kft.predict(model, SEQUENCES)
    kft.lora.use(model, "a")
    assert not np.any(kft.predict(model, SEQUENCES))  # a new head is zero, and so is a's
    kft.lora.use(model, "b")
    assert_rounds_alike(kft.predict(model, SEQUENCES), learned)


def test_the_head_of_a_plain_model(tmp_path):
    inputs = keras.Input((3,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="early")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, name="late")(x))
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
    answers = {None: model.predict_on_batch(x)}
    for seed, name in enumerate("ab", 1):
        kft.add_lora(model, 2, name=name, targets="early")
        kft.unfreeze(model, "norm")
        perturb(model, 0.5, seed, learning=True)
        answers[name] = model.predict_on_batch(x)
    model.save(tmp_path / "model.keras")
    for one in (model, keras.saving.load_model(tmp_path / "model.keras")):
        for name in ("a", None, "b"):
            kft.lora.use(one, name)
            assert_rounds_alike(one.predict_on_batch(x), answers[name])
