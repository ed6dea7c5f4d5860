"""Low-rank adapters on layers and models."""

import gc

import keras
import models
import numpy as np
import pytest
from contracts import check_adapter_training, check_base_is_kept
from keras import ops
from models import perturb_adapters
from parity import assert_rounds_alike

import kft

SEQUENCES = ["MKTAYI", "GSSW", "ACDEFGHI"]
TARGETS = [0.0, 1.0, 2.0]
INPUTS = kft.backbones.esm2.encode(SEQUENCES)


def with_head():
    """A small model with a head that answers something."""
    return kft.Model(models.esm2(), kft.heads.Regression(kernel_initializer="glorot_uniform"))


def answers(model):
    return ops.convert_to_numpy(model.predict_on_batch(INPUTS))


def fine_tuned(**options):
    """A small model with adapters that do something."""
    model = with_head()
    kft.add_lora(model, 4, **options)
    perturb_adapters(model)
    return model


# Models -------------------------------------------------------------------------------------------


def test_what_learns():
    model = fine_tuned()
    learns = [w.path for w in kft.params.weights(model) if w.trainable]
    layers = ["block_0/query", "block_0/value"]
    adapters = [f"{path}/lora_{x}_default" for path in layers for x in "ab"]
    assert learns == [*adapters, "head/dense/kernel", "head/dense/bias"]
    # Whatever is set: the kernel and bias of an adapted layer sleep, other layers obey Keras.
    model.trainable = False  # TensorFlow takes what is set already for no change
    model.trainable = True
    block = model.get_layer("block_0")
    assert not block.query.kernel.trainable and not block.query.bias.trainable
    assert block.key.kernel.trainable and block.query.adapters["default"].a.trainable
    block.trainable = False
    assert not block.query.adapters["default"].a.trainable
    kft.unfreeze(model)
    assert not block.query.kernel.trainable and block.query.adapters["default"].a.trainable


def test_training_moves_adapters_and_head_alone(tmp_path):
    model = fine_tuned(dropout=0.1)
    check_adapter_training(model, (SEQUENCES, TARGETS), tmp_path, rank=4, dropout=0.1)


@pytest.mark.usefixtures("as_written")
@pytest.mark.in_turn("torch")
def test_bases_are_given_back():
    """Switching off, merging back and removing leave the base, biases included."""
    model = with_head()
    check_base_is_kept(model, INPUTS, bias="all", targets="all-linear")
    assert type(model.get_layer("block_0").query) is keras.layers.Dense


@pytest.mark.usefixtures("as_written")
def test_removed_when_merged(tmp_path):
    """The way to a plain model that any Keras loads."""
    model = fine_tuned(dropout=0.2)
    expected = answers(model)
    kft.merge_lora(model)
    kft.lora.remove(model)
    assert not kft.lora.names(model)
    assert not any("lora" in w.path for w in kft.params.weights(model))
    assert not any(layer._seed_generators for layer in model.get_layer("block_0")._flatten_layers())
    assert_rounds_alike(answers(model), expected)
    model.save(tmp_path / "plain.keras")
    again = keras.saving.load_model(tmp_path / "plain.keras")
    assert_rounds_alike(answers(again), expected)


@pytest.mark.once
def test_rates_of_a_and_b():
    """LoRA+ multiplies the rate of B; decay per block and patterns go on top."""
    model = kft.Model(models.esm2(2), kft.heads.Regression())
    strategy = kft.strategies.get(
        "lora",
        loraplus_lr_ratio=16,
        layer_decay=0.5,
        learning_rate_multipliers={"value": 3.0},
    )
    factors = strategy.phases(strategy.prepare(model))[0].learning_rate_multipliers
    assert factors["block_1/query/lora_a_default"] == 0.5
    assert factors["block_1/query/lora_b_default"] == 16 * 0.5
    assert factors["block_0/value/lora_b_default"] == 16 * 3 * 0.25
    assert "head/dense/kernel" not in factors


@pytest.mark.usefixtures("as_written")
def test_several_adapters():
    model = fine_tuned()
    first = answers(model)
    kft.add_lora(model, 2, targets=["key", "query"], name="other")
    second_start = answers(model)
    kft.lora.use(model, None)
    base = answers(model)
    assert_rounds_alike(second_start, base)  # the new one counts, and is zero
    assert kft.lora.names(model) == ["default", "other"]
    kft.lora.use(model, "default")
    assert_rounds_alike(answers(model), first)
    assert not any("other" in w.path for w in kft.params.weights(model) if w.trainable)

    # A weighted sum of updates is W + 0.5 s A B + 2 s' A' B'.
    block, rng = model.get_layer("block_0"), np.random.default_rng(0)
    other = block.query.adapters["other"]
    other.b.assign(rng.standard_normal(other.b.shape))
    kft.lora.use(model, {"default": 0.5, "other": 2.0})
    wanted = block.query._flat("float64")
    for name, share in (("default", 0.5), ("other", 2.0)):
        adapter = block.query.adapters[name]
        a, b = (ops.convert_to_numpy(v) for v in (adapter.a, adapter.b))
        wanted = wanted + share * adapter.settings.scale * a @ b
    combined = answers(model)
    kft.merge_lora(model)
    assert_rounds_alike(block.query._flat("float64"), wanted)
    assert_rounds_alike(answers(model), combined)
    with pytest.raises(ValueError, match="merged adapters"):
        kft.lora.use(model, "default")
    kft.unmerge_lora(model)
    kft.lora.remove(model, "other")
    assert kft.lora.names(model) == ["default"]
    assert type(block.key) is keras.layers.Dense


@pytest.mark.in_turn("jax")
def test_a_backbone_in_two_models():
    """Both answer with the adapters, though their functions were traced before."""
    backbone = models.esm2()
    first, second = (
        kft.Model(backbone, kft.heads.Regression(kernel_initializer="glorot_uniform"))
        for _ in range(2)
    )
    vectors, before = answers(backbone), answers(second)
    second.compile("adam", "mean_squared_error")
    second.fit(kft.batches((SEQUENCES, TARGETS), backbone.encode), verbose=0)
    with pytest.warns(UserWarning, match="was compiled"):
        kft.add_lora(first, 4)
    perturb_adapters(first)
    assert np.abs(answers(backbone) - vectors).max() > 0.01
    one, two = answers(first), answers(second)
    assert np.abs(two - before).max() > 0.01
    assert not second.compiled
    kft.merge_lora(second)
    assert_rounds_alike(answers(first), one)
    assert_rounds_alike(answers(second), two)
    with pytest.raises(ValueError, match="have an adapter 'default' already"):
        kft.unmerge_lora(second)
        kft.add_lora(second, 4)
    gc.collect()


@pytest.mark.usefixtures("as_written")
def test_saved_whole(tmp_path):
    """A kft model, its backbone and its language model, merged or not, two adapters or one."""
    model = fine_tuned(targets=["query", "tokens", "feedforward_in"], bias="all")
    kft.add_lora(model, 2, name="other", targets=["value"])
    perturb_adapters(model)
    kft.lora.use(model, {"default": 0.5, "other": 1.0})
    kft.merge_lora(model)
    expected = answers(model)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_rounds_alike(answers(again), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    model.load_weights(tmp_path / "model.weights.h5")  # what is merged stays merged
    np.testing.assert_array_equal(answers(model), expected)
    for one in (model, again):
        kft.unmerge_lora(one)
        kft.lora.use(one, "default")
    assert kft.fingerprint(model, None) == kft.fingerprint(again, None)
    expected = answers(model)
    assert_rounds_alike(answers(again), expected)
    plain = keras.Model(model.input, model.output)  # of kft's layers, and no class of kft's
    plain.save(tmp_path / "plain.keras")
    assert_rounds_alike(answers(keras.saving.load_model(tmp_path / "plain.keras")), expected)
    model.backbone.save(tmp_path / "backbone.keras")
    backbone = keras.saving.load_model(tmp_path / "backbone.keras")
    assert_rounds_alike(answers(backbone), answers(model.backbone))


@pytest.mark.usefixtures("as_written")
@pytest.mark.in_turn("torch")
def test_a_language_model_saved_whole(tmp_path):
    language = models.esm2().masked_lm
    kft.add_lora(language, 2, targets=["query", "lm_head.dense"])
    perturb_adapters(language)
    expected = answers(language)
    language.save(tmp_path / "language.keras")
    language._backbone_config.__self__.save(tmp_path / "backbone.keras")  # the head goes along
    again = keras.saving.load_model(tmp_path / "backbone.keras").masked_lm
    assert_rounds_alike(answers(again), expected)
    again = keras.saving.load_model(tmp_path / "language.keras")
    assert_rounds_alike(answers(again), expected)


@pytest.mark.usefixtures("as_written")
@pytest.mark.parametrize(
    "dtype", ["mixed_bfloat16", pytest.param("bfloat16", marks=pytest.mark.in_turn("torch"))]
)
def test_half_precision(dtype, tmp_path):
    backbone = models.esm2(dtype=dtype)
    model = kft.Model(backbone, kft.heads.Regression(kernel_initializer="glorot_uniform"))
    targets = ["query", "tokens", "feedforward_in"]
    before = answers(model).astype("float32")
    kft.add_lora(model, 4, targets=targets, dora=True, bias="all")
    kft.fit(model, (SEQUENCES, TARGETS), epochs=1, verbose=0)
    perturb_adapters(model, scale=0.5)
    expected = answers(model).astype("float32")
    kft.merge_lora(model)
    merged = answers(model).astype("float32")
    roundings = 16 * 2**16  # 16 epsilons of bfloat16, which is 2**16 that of float32
    assert_rounds_alike(merged, expected, roundings)
    with pytest.raises(AssertionError):
        assert_rounds_alike(before, expected, roundings)
    kft.unmerge_lora(model)
    np.testing.assert_array_equal(answers(model).astype("float32"), expected)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert kft.fingerprint(again, None) == kft.fingerprint(model, None)


@keras.saving.register_keras_serializable("test_lora")
class Foreign(keras.layers.Layer):
    """A composite whose config does not tell of its parts."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.layers.Dense(4, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


@pytest.mark.usefixtures("as_written")
def test_foreign_composites_refuse_to_be_saved(tmp_path):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.LayerNormalization()(Foreign(name="odd")(inputs)))
    assert kft.add_lora(model, 2, targets="inner") == ["odd/inner"]
    with pytest.raises(ValueError, match=r"save_adapter\(model, folder\)"):
        model.save(tmp_path / "model.keras")
    perturb_adapters(model)
    x = np.ones((2, 3), "float32")
    expected = model.predict_on_batch(x)
    kft.save_adapter(model, tmp_path / "adapter")
    kft.merge_lora(model)
    kft.lora.remove(model)
    model.save(tmp_path / "model.keras")  # a plain model again
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_rounds_alike(again.predict_on_batch(x), expected)


@pytest.mark.once
def test_the_head_of_a_plain_model():
    """The dense layer that answers is the head: it learns in full, and is no target."""
    dense = [keras.layers.Dense(5, name=name) for name in ("early", "late")]
    model = keras.Sequential([keras.Input((3,)), *dense, keras.layers.ReLU()])
    assert kft.add_lora(model, 2, targets="all-linear") == ["early"]
    learns = [w.path for w in kft.params.weights(model) if w.trainable]
    assert learns == ["early/lora_a_default", "early/lora_b_default", "late/kernel", "late/bias"]
    with pytest.raises(ValueError, match="late, which belongs to the head"):
        kft.add_lora(model, 2, targets="late", name="again")


@pytest.mark.usefixtures("as_written")
def test_keras_hub():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(32, 32, 3), patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16
    )
    x = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype("float32")
    before, paths = backbone.predict_on_batch(x), set(kft.params.layers(backbone))
    found = kft.add_lora(backbone, 2, targets=["query", "value"])
    assert len(found) == 2
    assert set(kft.params.layers(backbone)) == paths
    assert_rounds_alike(backbone.predict_on_batch(x), before)
    perturb_adapters(backbone)
    changed = backbone.predict_on_batch(x)
    assert np.abs(changed - before).max() > 1e-3
    kft.merge_lora(backbone)
    assert_rounds_alike(backbone.predict_on_batch(x), changed)


# Errors -------------------------------------------------------------------------------------------


BAD = (
    ({"rank": 0}, "rank must be an integer from 1 to 65536, received 0"),
    ({"rank": 2.5}, "rank must be an integer from 1 to 65536, received 2.5"),
    ({"rank": True}, "rank must be an integer from 1 to 65536, received True"),
    ({"alpha": 0}, "alpha must be a number above 0, received 0"),
    ({"alpha": True}, "alpha must be a number above 0, received True"),
    ({"alpha": "8"}, "alpha must be a number above 0, received '8'"),
    ({"dropout": 1.0}, "dropout must be a number from 0 to below 1"),
    ({"bias": "some"}, "bias must be one of none, lora_only, all; received 'some'"),
    ({"name": "my adapter"}, "name must be letters, digits, _ and -"),
    ({"targets": ["quary"]}, "matches none of the .* similar are .*block_0/query"),
    ({"targets": ["head"]}, "belongs to the head"),
    ({"targets": ["attention_norm"]}, "it is a LayerNormalization, and adapters are for Dense"),
    ({"ranks": {"key": 2}}, "ranks names 'key', which is not among the targets"),
    ({"ranks": {"query": 0}}, "rank must be an integer from 1 to 65536"),
)


@pytest.mark.once
def test_bad_arguments():
    """None changes the model."""
    model = kft.Model(models.esm2(), kft.heads.Regression())
    before = kft.fingerprint(model, None)
    for options, message in BAD:
        with pytest.raises(ValueError, match=message):
            kft.add_lora(model, **options)
        assert kft.fingerprint(model, None) == before
        assert not kft.lora.names(model)
        assert kft.parameters(model).frozen == 0


def test_misuse():
    model = kft.Model(models.esm2(), kft.heads.Regression())
    for call in (kft.merge_lora, kft.unmerge_lora, kft.lora.remove):
        with pytest.raises(ValueError, match="has no adapters: kft.add_lora"):
            call(model)
    kft.add_lora(model, 2)
    with pytest.raises(ValueError, match="have an adapter 'default' already"):
        kft.add_lora(model, 4)
    with pytest.raises(ValueError, match="has no adapter 'other'; it has default"):
        kft.lora.use(model, "other")
    for share in (float("nan"), float("inf"), "1"):
        with pytest.raises(
            ValueError, match=f"weight of 'default' must be a .* received {share!r}"
        ):
            kft.lora.use(model, {"default": share})
    kft.merge_lora(model)
    model.compile("sgd", "mean_squared_error")
    with pytest.raises(Exception, match="merged adapters cannot be trained"):
        model.fit(kft.batches((SEQUENCES, TARGETS), model.encode), verbose=0)
    # Another one: on JAX Keras does not give a model its weights back when fit raises.
    model = kft.Model(models.esm2(), kft.heads.Regression())
    kft.add_lora(model, 2)
    kft.add_lora(model, 2, dora=True, name="dora")
    with pytest.raises(ValueError, match="is used alone"):
        kft.lora.use(model, {"default": 1.0, "dora": 1.0})
    grouped = keras.Sequential(
        [keras.Input((4, 4, 4)), keras.layers.Conv2D(4, 1, groups=2, name="g")]
    )
    with pytest.raises(ValueError, match="channels are in groups"):
        kft.add_lora(grouped, 2, targets="g")
    shapes = keras.Sequential([keras.Input((4,)), keras.layers.LayerNormalization(name="norm")])
    with pytest.raises(ValueError, match="has no Dense or EinsumDense outside its head"):
        kft.add_lora(shapes, 2, targets="all-linear")
    hidden, last = keras.layers.Dense(3, name="d"), keras.layers.Dense(1, name="out")
    recurrent = keras.Sequential(
        [keras.Input((4, 3)), hidden, keras.layers.GRU(2, name="gru"), last]
    )
    with pytest.raises(ValueError, match='bias="all" cannot adapt gru'):
        kft.add_lora(recurrent, 2, targets="d", bias="all")
    each = keras.layers.EinsumDense("abc,bcd->abd", (4, 3), name="each")
    places = keras.Sequential([keras.Input((4, 5)), each])
    message = "'abc,bcd->abd' is not a product of inputs with one matrix"
    with pytest.raises(ValueError, match=message):
        kft.add_lora(places, 2, targets="each")


@pytest.mark.usefixtures("as_written")
def test_the_language_model_keeps_its_table():
    """Its head is tied to the table without the adapter, merged or not."""
    language = models.esm2().masked_lm
    kft.add_lora(language, 2, targets=["tokens", "lm_head/dense"])
    perturb_adapters(language)
    before = answers(language)
    kft.merge_lora(language)
    assert_rounds_alike(answers(language), before)


@pytest.mark.usefixtures("as_written")
@pytest.mark.in_turn("torch")
def test_adapters_on_different_layers():
    """Each learns when it counts."""
    model = kft.Model(models.esm2(), kft.heads.Regression())
    kft.add_lora(model, 2, targets="query", name="a")
    kft.add_lora(model, 2, targets="value", name="b")
    for active, expected in (("a", {"query"}), ({"a": 0.5, "b": 0.5}, {"query", "value"})):
        kft.lora.use(model, active)
        learns = [w.path.split("/") for w in kft.params.weights(model) if w.trainable]
        assert {path[1] for path in learns if path[0] == "block_0"} == expected
    kft.lora.use(model, None)
    with pytest.raises(ValueError, match="are not active or are merged"):
        kft.fit(model, (SEQUENCES, TARGETS), "lora", 1, verbose=0)
    with pytest.raises(ValueError, match="kernels of adapted layers are never trainable"):
        kft.fit(model, (SEQUENCES, TARGETS), "full", 1, verbose=0)
    done = kft.fit(model, (SEQUENCES, TARGETS), "from_scratch", 1, verbose=0)
    assert kft.parameters(done.model).frozen == 0 and not kft.lora.names(done.model)
    with pytest.raises(TypeError, match="active must be a name"):
        kft.lora.use(model, ["a"])
    fresh = kft.Model(models.esm2(), kft.heads.Regression())
    with pytest.raises(ValueError, match="targets"):
        kft.fit(fresh, (SEQUENCES, TARGETS[:-1]), "lora", 1, verbose=0)
    assert not kft.lora.names(fresh) and kft.parameters(fresh).frozen == 0


@pytest.mark.once
def test_two_outputs():
    """Each dense layer that answers is a head."""
    inputs = keras.Input((8,))
    h = keras.layers.Dense(8, name="h")(inputs)
    outputs = [keras.layers.Dense(1, name=name)(h) for name in ("first", "second")]
    model = keras.Model(inputs, outputs)
    assert kft.add_lora(model, 2, targets="all-linear") == ["h"]
    learns = {w.path.split("/")[0] for w in kft.params.weights(model) if w.trainable}
    assert learns == {"h", "first", "second"}


@pytest.mark.once
def test_adapters_that_diverged_are_not_merged():
    model = models.esm2()
    kft.add_lora(model, 2)
    query, value = model.stages[1].query, model.stages[1].value
    before = keras.ops.convert_to_numpy(query.kernel)
    value.adapters["default"].b.assign(np.full((2, 16), np.nan))
    with pytest.raises(ValueError, match="block_0/value hold NaN or infinity, and nothing was"):
        kft.merge_lora(model)
    assert np.array_equal(keras.ops.convert_to_numpy(query.kernel), before)
    assert not query.merged


@pytest.mark.once
def test_adapters_of_keras_beside_those_of_kft():
    model = models.esm2()
    kft.add_lora(model, 2, name="a-b")
    with pytest.raises(ValueError, match="block_0/query holds adapters of kft, beside which"):
        model.stages[1].query.enable_lora(2)
