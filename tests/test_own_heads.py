"""Heads and models that are plain Keras code: which features they get, trained, saved, exported."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import esm2, perturb
from parity import assert_rounds_alike

import kft

BACKEND = keras.backend.backend()
SEQUENCES = ["MKTAYI", "GSS", "AAKWYVLLLDKA", "WYVLL", "LLD", "KKAAW"]
TARGETS = np.array([0.0, 1.0, 0.5, 0.2, 0.1, 0.3], "float32")
DATA = (SEQUENCES, TARGETS)


def dense(units=1, activation=None):
    return layers.Dense(
        units, activation, kernel_initializer=keras.initializers.RandomNormal(seed=0)
    )


def small():
    return keras.Sequential([dense(4, "tanh"), dense()], name="head")


def pooled():
    return keras.Sequential([layers.GlobalAveragePooling1D(), dense()], name="head")


def by_function(features):
    return dense()(features)


def first_position(features):
    return dense()(features[:, 0])


def largest(features, position_mask):
    return dense()(kft.heads.Pooling("max")(features, position_mask))


@keras.saving.register_keras_serializable("tests")
class Range(keras.layers.Layer):
    """The largest minus the smallest feature of all positions; it states no output shape."""

    def call(self, features):
        return ops.max(features, axis=1) - ops.min(features, axis=1)


# The head, and the pooling that kft.Model puts before it.
HEADS = {
    "dense": (dense, "mean"),
    "several layers": (small, "mean"),
    "pools": (pooled, None),
    "recurrent": (lambda: layers.LSTM(1), None),
    "functional": (lambda: keras.Sequential([keras.Input((16,)), dense()]), "mean"),
    "no shape stated": (Range, None),
    "function": (lambda: by_function, "mean"),
    "function of a position": (lambda: first_position, None),
    "function of the mask": (lambda: largest, None),
}


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:Layer .* does not support masking")  # of Range
@pytest.mark.parametrize("name", HEADS)
def test_any_layer_or_function_is_a_head(name, tmp_path):
    make, pooling = HEADS[name]
    model = kft.Model(esm2(), make())
    assert model.get_config().get("pooling") == pooling
    predictions = kft.predict(model, SEQUENCES)
    assert predictions.shape == (6, 16 if name == "no shape stated" else 1)
    # Padding is left out, by the mask or by pooling.
    alone = kft.predict(model, SEQUENCES[1:2])
    assert name == "no shape stated" or np.allclose(alone[0], predictions[1], atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(kft.predict(loaded, SEQUENCES), predictions)


def test_layers_see_the_mask_of_positions():
    model = kft.Model(esm2(), layers.GlobalAveragePooling1D())
    assert_rounds_alike(kft.predict(model, SEQUENCES), kft.embed(model.backbone, SEQUENCES))


@pytest.mark.in_turn("torch")
def test_own_heads_are_trained_at_the_frontier_as_in_the_whole():
    results = []
    for frontier in (True, False):
        keras.utils.set_random_seed(0)
        model = kft.Model(esm2(), pooled())
        kft.fit(model, DATA, "head_only", 2, loss="mse", frontier=frontier, verbose=0)
        results.append(kft.predict(model, SEQUENCES))
    assert_rounds_alike(*results)
    model.backbone.trainable = False
    frozen, learning = kft.split(model)
    x = model.encode(SEQUENCES)
    assert_rounds_alike(*(ops.convert_to_numpy(y) for y in (learning(frozen(x)), model(x))))


@pytest.mark.once
@pytest.mark.parametrize("strategy", kft.strategies.names())
def test_every_strategy_trains_own_heads_and_own_models(strategy):
    backbone = esm2(2)
    own = keras.Model(backbone.input, pooled()(backbone.output))
    options = {"loss": "mse", "verbose": 0}
    if strategy != "linear_probe":
        options["epochs"] = 4 if strategy == "gradual_unfreezing" else 1
    for model in (kft.Model(esm2(2), pooled()), own):
        before = kft.predict(model, SEQUENCES, encode=backbone.encode)
        done = kft.fit(model, DATA, strategy, encode=backbone.encode, **options)
        after = kft.predict(done.model, SEQUENCES, encode=backbone.encode)
        assert np.isfinite(after).all() and not np.allclose(before, after)


@pytest.mark.once
def test_a_linear_probe_solves_for_one_layer():
    model = kft.Model(esm2(), small())
    with pytest.raises(ValueError, match="one Dense layer, and the head 'head' has more weights"):
        kft.fit(model, DATA, "linear_probe", loss="mse", verbose=0)
    model = kft.Model(esm2(), layers.Dense(1, use_bias=False))
    with pytest.raises(ValueError, match="sets a bias, which 'dense.*' lacks"):
        kft.fit(model, DATA, "linear_probe", loss="mse", verbose=0)


@pytest.mark.once
def test_outputs_at_every_position():
    model = kft.Model(esm2(), layers.Dense(3, activation="softmax"), pooling=None)
    rows = kft.predict(model, SEQUENCES)
    assert [row.shape for row in rows] == [(len(x), 3) for x in SEQUENCES]
    targets = [np.arange(len(x)) % 3 for x in SEQUENCES]
    loss = "sparse_categorical_crossentropy"
    history = kft.fit(model, (SEQUENCES, targets), epochs=2, loss=loss, verbose=0).history
    assert history[1]["loss"] < history[0]["loss"]
    with pytest.raises(ValueError, match=r"outputs for every position.*pooling='mean'"):
        kft.fit(model, DATA, loss="mse", verbose=0)


@pytest.mark.once
def test_errors_state_what_to_do():
    backbone = esm2()
    with pytest.raises(TypeError, match=r"such as keras.layers.Dense\(1\)"):
        kft.Model(backbone, layers.Dense)
    with pytest.raises(ValueError, match=r"pooling must be one of auto, mean, max, cls, None"):
        kft.Model(backbone, dense(), pooling="attention")
    with pytest.raises(ValueError, match=r"kft.heads.Regression\(pooling='max'\)"):
        kft.Model(backbone, kft.heads.Regression(), pooling="max")
    with pytest.raises(ValueError, match="pooling=None calls it with the features of all"):
        kft.Model(backbone, layers.Conv1D(3, 3))
    with pytest.raises(ValueError, match="'mean_squared_error' for numbers"):
        kft.fit(kft.Model(backbone, dense()), DATA, verbose=0)


class Own(keras.Model):
    """A model whose layers are no graph."""

    def call(self, x):
        return x


SCALAR = keras.Input((3,))
TWO = keras.Model(SCALAR, [layers.Dense(2)(SCALAR), layers.Dense(3)(SCALAR)], name="two")
BUILT = keras.Sequential([keras.Input((4,)), layers.Dense(3)])


@pytest.mark.once
@pytest.mark.parametrize(
    ("backbone", "error", "message"),
    [
        (keras.Sequential([layers.Dense(3)]), TypeError, "a Sequential: once it is built, give"),
        (BUILT, TypeError, r"a Sequential: .* keras.Model\(model.inputs, model.outputs\[0\]\)"),
        (Own(), TypeError, "a Own: connect its layers from keras.Input to an output"),
        (layers.Dense(3), TypeError, "a Dense|<Dense"),
        (lambda x: x, TypeError, "a Keras model"),
        ("kft_esm2_tiny", TypeError, "received 'kft_esm2_tiny'"),
        (TWO, ValueError, "the features, received two with a list of 2"),
    ],
)
def test_backbones_that_are_no_graph_are_refused_by_name(backbone, error, message):
    for call in (
        lambda: kft.Model(backbone, layers.Dense(1)),
        lambda: kft.embed(backbone, SEQUENCES),
        lambda: kft.build_index(backbone, SEQUENCES),
    ):
        with pytest.raises(error, match=f"^backbone must .*{message}"):
            call()


@pytest.mark.once
def test_what_the_refusal_of_a_sequential_says_to_do():
    model = kft.Model(keras.Model(BUILT.inputs, BUILT.outputs[0]), layers.Dense(1))
    assert model.output_shape == (None, 1)


@pytest.mark.once
def test_replace_head_takes_any_layer():
    model = kft.replace_head(kft.Model(esm2(), kft.heads.Regression()), dense(2), pooling="max")
    assert (model.output_shape, model.get_config()["pooling"]) == ((None, 2), "max")
    plain = keras.Sequential([keras.Input((4,)), dense(3, "relu"), dense()])
    assert kft.replace_head(plain, dense(5)).output_shape == (None, 5)


@pytest.mark.once
def test_a_head_with_an_earlier_file_of_its_config_is_called_as_before():
    features = keras.Input((None, 8))
    model = kft.Model(keras.Model(features, features), dense(), pooling=None)
    config = model.get_config()
    assert "pooling" not in config  # as in files of earlier versions
    assert kft.Model.from_config(config).output_shape == (None, None, 1)


@pytest.mark.once
def test_an_own_model_is_evaluated():
    backbone = esm2()
    features = kft.heads.Pooling()(backbone.output, backbone.position_mask)
    model = keras.Model(backbone.input, dense(2, "softmax")(features))
    data = kft.data.load("amp")
    part = data.test.take(range(0, len(data.test), 20))
    small_data = kft.data.Dataset(
        "part", "classification", part, None, part, "amp", "", "", "", data.classes
    )
    loss = "sparse_categorical_crossentropy"
    kft.fit(model, small_data, "head_only", 1, loss=loss, verbose=0, encode=backbone.encode)
    scores = kft.evaluate(model, small_data, encode=backbone.encode, resamples=10)
    assert 0 <= scores["AUROC"].value <= 1


# A training loop of your own, and export ----------------------------------------------------------


def test_train_on_batch_and_a_step_of_the_backend():
    """The two ways of docs/keras.md: Keras's step, and the gradient of the backend."""
    model = kft.Model(esm2(), pooled())
    model.backbone.trainable = False
    before = kft.fingerprint(model)
    batches = kft.batches(DATA, model.encode, batch_size=6)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    x, y = batches[0]
    first = float(model.train_on_batch(x, y))
    assert float(model.train_on_batch(x, y)) < first
    loss = STEPS[BACKEND](model, x, y, keras.optimizers.SGD(0.01))
    assert float(model.evaluate(x, y, verbose=0)) < float(loss) < first
    assert kft.fingerprint(model) == before


def step_torch(model, x, y, optimizer):
    loss = ops.mean(ops.square(model(x, training=True)[:, 0] - ops.convert_to_tensor(y)))
    model.zero_grad()
    loss.backward()
    weights = model.trainable_weights
    optimizer.apply([weight.value.grad for weight in weights], weights)
    return loss.detach()


def step_tensorflow(model, x, y, optimizer):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = ops.mean(ops.square(model(x, training=True)[:, 0] - y))
    weights = model.trainable_weights
    optimizer.apply(tape.gradient(loss, weights), weights)
    return loss


def step_jax(model, x, y, optimizer):
    import jax

    def loss_of(trainable, others):
        outputs, others = model.stateless_call(trainable, others, x, training=True)
        return ops.mean(ops.square(outputs[:, 0] - y)), others

    trainable = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    (loss, _), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable, others)
    optimizer.apply(gradients, model.trainable_variables)
    return loss


STEPS = {"torch": step_torch, "tensorflow": step_tensorflow, "jax": step_jax}


@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter")  # Keras's, of JAX
def test_an_exported_model_predicts_the_same(tmp_path):
    model = perturb(kft.Model(esm2(), pooled()))
    kft.add_lora(model, rank=2)
    perturb(model)
    if BACKEND == "torch":
        run = exported_to_onnx(model, tmp_path / "model.onnx")
    else:
        run = exported_to_tensorflow(model, tmp_path / "model")
    for sequences in (SEQUENCES, SEQUENCES[1:2], ["MKTAYI" * 5, "GSS"]):
        x = model.encode(sequences)
        assert_rounds_alike(run(x), ops.convert_to_numpy(model(x)))


@pytest.mark.filterwarnings("ignore:The `native_serialization` parameter")  # Keras's, of JAX
@pytest.mark.skipif(BACKEND == "torch", reason="Keras's own export, of fixed sizes")
def test_a_model_that_is_exported_with_fixed_sizes_predicts_the_same(tmp_path):
    import tensorflow as tf

    model = perturb(kft.Model(esm2(), pooled()))
    x = model.encode(SEQUENCES)
    signature = [{name: keras.InputSpec(shape=a.shape, dtype="int32") for name, a in x.items()}]
    model.export(tmp_path / "model", verbose=False, input_signature=signature)
    loaded = tf.saved_model.load(tmp_path / "model")
    found = loaded.serve({name: tf.constant(a) for name, a in x.items()}).numpy()
    assert_rounds_alike(found, ops.convert_to_numpy(model(x)))


def exported_to_onnx(model, path):
    import onnxruntime

    model.export(path, format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(path)
    return lambda x: session.run(None, x)[0]


def exported_to_tensorflow(model, path):
    import tensorflow as tf

    model.export(path, verbose=False)
    loaded = tf.saved_model.load(path)
    return lambda x: loaded.serve({name: tf.constant(a) for name, a in x.items()}).numpy()


def test_a_format_that_the_backend_cannot_write(tmp_path):
    model = kft.Model(esm2(), dense())
    if BACKEND == "torch":
        with pytest.raises(ValueError, match="format='onnx'.*KERAS_BACKEND=jax or tensorflow"):
            model.export(tmp_path / "model")
    else:
        with pytest.raises(ImportError, match="KERAS_BACKEND=torch and export it there"):
            model.export(tmp_path / "model.onnx", format="onnx")
