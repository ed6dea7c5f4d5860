"""What kft takes of Keras's private parts: whether this version of Keras has them, and where kft
touches them."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
from keras.src.saving import serialization_lib
from keras.src.utils import module_utils

from kft import keras_internals

ROOT = Path(keras_internals.__file__).parent


def small_model():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(4, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(x))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    return model


def private_parts():
    """(what Keras must have, whether it does) for all that `keras_internals` uses."""
    model, metric = small_model(), keras.metrics.MeanSquaredError()
    layer, optimizer = model.get_layer("hidden"), model.optimizer
    optimizer.build(model.trainable_variables)
    adamw = keras.optimizers.AdamW()
    adamw.build(model.trainable_variables)
    attention = keras.layers.MultiHeadAttention(1, 2)
    sequential = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    owners = {
        layer: (
            "_flatten_layers", "_trainable_variables", "_non_trainable_variables",
            "_seed_generators", "_tracker", "_untrack_variable", "_call_signature",
            "call_signature_parameters", "_call_has_training_arg", "_call_has_context_arg",
            "_inbound_nodes",
        ),
        layer._tracker: ("lock", "unlock", "untrack"),
        attention: ("_dropout", "_inverse_sqrt_key_dim"),
        model: ("_run_through_graph", "_nodes_by_depth", "_compile_config", "_initial_epoch"),
        model._compile_config: ("config",),
        sequential: ("_functional",),
        model.output: ("_keras_history",),
        model.output._keras_history: ("operation", "tensor_index"),
        optimizer: ("_trainable_variables", "_learning_rate"),
        adamw: ("_clip_by_norm", "_get_variable_index", "_momentums", "_velocities"),
        metric: ("_direction",),
        keras.callbacks.Callback().on_epoch_end: ("_is_default",),
        serialization_lib: ("tf",),
        type(module_utils.tensorflow): ("available",),
    }  # fmt: skip
    for owner, names in owners.items():
        for name in names:
            yield f"{type(owner).__name__}.{name}", hasattr(owner, name)


def test_this_keras_has_what_kft_takes_of_it():
    gone = [name for name, there in private_parts() if not there]
    assert not gone, f"Keras {keras.__version__} lacks {gone}: adapt kft/keras_internals.py"


def test_layers():
    model = small_model()
    names = [layer.name for layer in keras_internals.sublayers_of(model, include_self=False)]
    assert [name for name in names if "input" not in name] == ["hidden", "norm", "dropout", "out"]
    norm, dropout = model.get_layer("norm"), model.get_layer("dropout")
    model.trainable = False
    own = keras_internals.own_weights(norm)
    assert [v.name for v in own] == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert keras_internals.own_trainable_weights(norm) == own[:2]
    assert keras_internals.own_non_trainable_weights(norm) == own[2:]
    assert keras_internals.seed_generators(dropout) == [dropout.seed_generator]


def test_a_built_layer_takes_and_loses_weights():
    layer = small_model().get_layer("hidden")
    with pytest.raises(ValueError, match="cannot add new elements"):
        layer.seeds = keras.random.SeedGenerator(0)
    with keras_internals.unlocked(layer):
        extra = layer.add_weight((2,), name="extra")
        layer.more_seeds = keras.random.SeedGenerator(0)
    assert any(v is extra for v in keras_internals.own_weights(layer))
    assert keras_internals.seed_generators(layer) == [layer.more_seeds]
    keras_internals.remove_weight(layer, extra)
    keras_internals.remove_seed_generator(layer, layer.more_seeds)
    assert len(layer.weights) == 2
    assert keras_internals.seed_generators(layer) == []


def test_another_class():
    class Doubled(keras.layers.Dense):
        def call(self, inputs, training=None):
            return 2 * super().call(inputs)

    model = small_model()
    x = np.ones((1, 4), "float32")
    before = keras.ops.convert_to_numpy(model.get_layer("out")(x))
    keras_internals.change_class(model.get_layer("out"), Doubled)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model.get_layer("out")(x)), 2 * before)


def test_graphs():
    model = small_model()
    nodes = keras_internals.nodes_of(model)
    assert [node.operation.name for node in nodes][1:] == ["hidden", "norm", "dropout", "out"]
    assert keras_internals.nodes_of(model, outputs_first=True) == nodes[::-1]
    out = model.get_layer("out")
    assert keras_internals.origin_of(model.output) == (out, 0)
    assert keras_internals.inbound_nodes(out) == [nodes[-1]]
    sequential = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    assert isinstance(keras_internals.functional_of(sequential), keras_internals.Functional)
    assert keras_internals.functional_of(out) is out
    masked = keras.layers.Masking()(keras.Input((2, 3)))
    assert keras_internals.mask_of(masked) is not None
    assert keras_internals.mask_of(model.output) is None


def test_the_graph_of_a_model_can_be_run_in_another_way():
    class Skipping(keras_internals.GraphModel):
        def run_graph(self, run, inputs, operation_fn, call_fn):
            def replaced(operation):
                computes = call_fn is None and not isinstance(inputs[0], keras.KerasTensor)
                double = getattr(operation, "name", "") == "double"
                return keras.ops.negative if computes and double else operation_fn(operation)

            inputs = keras.tree.flatten(inputs)
            return super().run_graph(run, inputs, replaced, call_fn)

    x = keras.Input((1,))
    model = Skipping(x, keras.layers.Rescaling(2.0, name="double")(x))
    assert keras.ops.convert_to_numpy(model(np.ones((1, 1), "float32"))).tolist() == [[-1.0]]


def test_training():
    model = small_model()
    assert keras_internals.compile_arguments(model)["loss"] == "mse"
    model.optimizer.build(model.trainable_variables)
    wanted = [id(v) for v in model.trainable_variables]
    assert [id(v) for v in keras_internals.optimizer_weights(model.optimizer)] == wanted
    assert float(keras_internals.learning_rate_of(model.optimizer)) == 0.5
    seen = []

    class Begin(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            keras_internals.set_initial_epoch(self.model, 2)

        def on_epoch_begin(self, epoch, logs=None):
            seen.append(epoch)

    assert keras_internals.is_default(Begin().on_epoch_end)
    assert not keras_internals.is_default(Begin().on_epoch_begin)
    x, y = np.ones((2, 3), "float32"), np.ones((2, 1), "float32")
    model.fit(x, y, epochs=4, verbose=0, callbacks=[Begin()])
    assert seen == [2, 3]


def test_models_in_use_are_known():
    """What was compiled or has predicted, and no model that is gone."""
    made, compiled = (keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]) for _ in "ab")
    compiled.compile("sgd", "mse")
    assert compiled in keras_internals.models_in_use()
    assert compiled.get_compile_config()["loss"] == "mse"  # Keras sees its own `compile`
    assert made not in keras_internals.models_in_use()
    made.predict(np.ones((1, 1), "float32"), verbose=0)
    assert made in keras_internals.models_in_use()


# Where kft touches them ---------------------------------------------------------------------------


def keras_names():
    """Private names of Keras's layers, models, tensors and the like, and which are of classes."""
    model = small_model()
    model.fit(np.ones((2, 3), "float32"), np.ones((2, 1), "float32"), verbose=0)
    metric, callback = keras.metrics.MeanSquaredError(), keras.callbacks.ModelCheckpoint("x.keras")
    attention = keras.layers.MultiHeadAttention(1, 2)
    owners = [model, *model.layers, attention, model.output, model.optimizer, metric, callback]
    owners += [*model.weights, keras.random.SeedGenerator(0)]
    attributes, methods = set(), set()
    for owner in owners:
        attributes |= vars(owner).keys()
        for cls in type(owner).__mro__:
            if cls.__module__.startswith("keras."):
                methods |= vars(cls).keys()
    return tuple(
        {name for name in names if name.startswith("_") and not name.startswith("__")}
        for names in (attributes | methods, methods)
    )


def touched(path, names, methods):
    """Attributes in a file that have one of these names, and methods of classes that override."""
    tree = ast.parse(path.read_text())
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} - methods
    own |= {  # attributes that the file's own classes have
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if getattr(node.value, "id", "") == "self" and node.attr not in methods
    } - {"_direction", "_initial_epoch"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in names - own:
            yield f"{path.name}:{node.lineno} touches {node.attr}"
        if isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef) and part.name in methods:
                    yield f"{path.name}:{part.lineno} overrides {part.name}"


def test_an_attribute_that_keras_does_not_track():
    layer, inside = keras.layers.Dense(2), keras.layers.Dense(3)
    keras_internals.set_untracked(layer, inside=inside, names=["a"])
    assert layer.inside is inside and layer.names == ["a"] and type(layer.names) is list
    assert keras_internals.sublayers_of(layer) == [layer]
    inside.build((None, 4))
    layer.build((None, 5))
    assert len(layer.weights) == 2


@pytest.mark.once
def test_no_other_module_touches_them(tmp_path):
    names, methods = keras_names()
    assert {"_flatten_layers", "_run_through_graph", "_keras_history", "_initial_epoch"} <= names
    assert "_run_through_graph" in methods
    paths = [path for path in sorted(ROOT.rglob("*.py")) if path.name != "keras_internals.py"]
    assert [found for path in paths for found in touched(path, names, methods)] == []
    bad = tmp_path / "bad.py"
    bad.write_text("class F(keras.Model):\n    def _run_through_graph(self):\n        x._tracker\n")
    assert list(touched(bad, names, methods)) == [
        "bad.py:2 overrides _run_through_graph", "bad.py:3 touches _tracker",
    ]  # fmt: skip
