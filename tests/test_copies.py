"""One contract for every model and each of Keras's ways to copy one: equal, and nothing shared."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import ops
from models import esm2, perturb, same, values
from test_vision import BACKBONES

import kft
from kft.model import Learner, flat
from kft.pretraining import masked_autoencoder

# The models ---------------------------------------------------------------------------------------


def vision(name, **options):
    return kft.backbones.randomised(BACKBONES[name](**options), 0)


def fine_tuned(backbone=None, frozen=("block_0/query", "block_0/key", "embedding")):
    model = kft.Model(backbone or esm2(), kft.heads.Classification(2, dropout=0.5))
    kft.freeze(model, list(frozen))
    return model


def with_lora(model, **options):
    """Two adapters that are not zero, of which the second counts."""
    kft.add_lora(model, rank=2, name="first", dropout=0.1, **options)
    kft.add_lora(model, rank=3, name="second", bias="lora_only", **options)
    return perturb(model)


def merged(model):
    kft.merge_lora(model)
    return model


def plain():
    """A user's Keras model, with a layer made of others whose names Keras makes up."""
    x = inputs = keras.Input((4, 8), name="features")
    x = keras.layers.Dense(8, name="stem")(x)
    x = keras.layers.TimeDistributed(keras.layers.Dense(8, trainable=False))(x)
    x = keras.layers.Dropout(0.5, trainable=False, name="drop")(x)
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="out")(x), name="plain")
    kft.freeze(model, ["stem", "attention/query"])
    return model


def chopped():
    return kft.replace_head(plain(), kft.heads.Classification(3, pooling="mean"))


def rewoken(model, wakes="block_0/query"):
    """A frozen model, one layer of which learns again."""
    model.trainable = False
    kft.unfreeze(model, wakes)
    return model


def shut(model):
    model.trainable = False
    return model


MODELS = {
    "model": fine_tuned,
    "head alone": lambda: kft.Model(esm2(), kft.heads.Regression()),
    "new head": lambda: kft.replace_head(fine_tuned(), kft.heads.Classification(3, name="new")),
    "backbone": lambda: rewoken(esm2()),
    "frozen backbone": lambda: shut(esm2()),
    "masked_lm": lambda: rewoken(esm2().masked_lm),
    "contacts": lambda: rewoken(esm2(2).contacts, "block_1/query"),
    "lora": lambda: with_lora(fine_tuned()),
    "lora backbone": lambda: with_lora(esm2()),
    "lora masked_lm": lambda: with_lora(esm2().masked_lm, targets=["query", "lm_head/dense"]),
    "lora tokens": lambda: with_lora(esm2().masked_lm, targets=["query", "embedding"]),
    "dora": lambda: with_lora(fine_tuned(), dora=True),
    "merged": lambda: merged(with_lora(fine_tuned())),
    "merged dora": lambda: merged(with_lora(esm2(), dora=True)),
    "vit": lambda: rewoken(vision("vit"), "block_0/mha/query"),
    "vit model": lambda: fine_tuned(vision("vit"), ["block_0/mha/query", "block_1/mlp", "stem"][:2]),
    "lora vit": lambda: with_lora(fine_tuned(vision("vit"), ["block_1/mlp"])),
    "merged vit": lambda: merged(with_lora(vision("vit"))),
    "classifier": lambda: rewoken(vision("vit", classes=("cat", "dog")).classifier, "block_0/mha"),
    "swiglu": lambda: rewoken(vision("swiglu"), "block_0/mlp"),
    "efficientnet": lambda: fine_tuned(vision("efficientnet"), ["block_0", "block_2"]),
    "lora efficientnet": lambda: with_lora(fine_tuned(vision("efficientnet"), ["block_0"])),
    "mobilenet": lambda: rewoken(vision("mobilenet"), "block_1"),
    "chopped": chopped,
    "learner": lambda: flat(plain()),
    "learning part": lambda: kft.split(fine_tuned(vision("vit"), ["embedding", "block_0", "block_1/mha/key"]))[1],
    "lora learner": lambda: flat(keras.Model(*ends(with_lora(vision("vit"))))),
    "contacts learner": lambda: flat(keras.Model(*ends(rewoken(esm2().contacts)))),
    "masked_lm learner": lambda: flat(keras.Model(*ends(rewoken(esm2().masked_lm)))),
    "masked autoencoder": lambda: rewoken(masked_autoencoder(vision("vit"), decoder_blocks=1, decoder_width=16, decoder_heads=2), "decoder_block_0/mha"),
}  # fmt: skip


def ends(model):
    return model.input, model.output


# The ways -----------------------------------------------------------------------------------------


def clone(model, folder):
    return keras.models.clone_model(model)


def clone_with_function(model, folder):
    made = []
    copied = keras.models.clone_model(
        model, clone_function=lambda x: made.append(x.name) or type(x).from_config(x.get_config())
    )
    assert {layer.name for layer in model.layers if layer.weights} <= set(made)
    return copied


def clone_on_inputs(model, folder):
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name), model.input
    )
    return keras.models.clone_model(model, input_tensors=inputs)


def from_config(model, folder):
    return type(model).from_config(model.get_config())


def from_json(model, folder):
    return keras.models.model_from_json(model.to_json())


def deepcopy(model, folder):
    return copy.deepcopy(model)


def pickled(model, folder):
    return pickle.loads(pickle.dumps(model))


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


def weights_file(model, folder):
    model.save_weights(folder / "model.weights.h5")
    copied = type(model).from_config(model.get_config())
    copied.load_weights(folder / "model.weights.h5")
    return copied


CLONES = (clone, clone_with_function, clone_on_inputs)
NEW_WEIGHTS = (*CLONES, from_config, from_json)  # as Keras says of them
WAYS = (*NEW_WEIGHTS, deepcopy, pickled, saved, weights_file)


# The contract -------------------------------------------------------------------------------------


def flags(model, of=None):
    """Of all layers and weights; `of` another one, whose layers are meant."""
    layers = kft.params.layers(model)
    assert {path for path, x in layers.items() if x.weights} <= kft.params.layers(
        of or model
    ).keys()
    found = {path: layers[path].trainable for path in kft.params.layers(of or model)}
    weights = {
        w.path: (w.learns, w.frozen, w.variable.trainable) for w in kft.params.weights(model)
    }
    return found, weights


def adapters(model):
    return {
        path: (type(layer), layer.merged, layer.active, {n: x.settings for n, x in layer.adapters.items()})
        for path, layer in kft.lora.adapting.adapted(model)
    }  # fmt: skip


def parts(model):
    """ids of all layers and variables, also of those that a layer borrows."""
    layers = model._flatten_layers()
    own = [
        v
        for layer in layers
        for v in [*layer._trainable_variables, *layer._non_trainable_variables]
    ]
    borrowed = [vars(layer).get(name) for layer in layers for name in ("lender",)]
    return {id(x) for x in [*layers, *own, *borrowed] if x is not None}


def batch(model, seed=0):
    rng = np.random.default_rng(seed)

    def drawn(x):
        shape = [2 if n is None else n for n in x.shape]
        shape[1:] = [6 if n is None else n for n in x.shape[1:]]
        if x.name in ("visible", "hidden"):
            return np.stack([rng.permutation(shape[1]) for _ in range(2)]).astype("int32")
        if "int" in x.dtype:
            return np.concatenate(
                [np.zeros((2, 1)), rng.integers(4, 24, (2, 5)), np.full((2, 1), 2)], 1
            )
        if "bool" in x.dtype:
            return np.ones(shape, "bool")
        return rng.standard_normal(shape).astype("float32")

    return keras.tree.map_structure(drawn, model.input)


def answers(model, x):
    return ops.convert_to_numpy(model(x, training=False))


def check(model, way, folder):
    before, x = values(model), batch(model)
    expected = answers(model, x)
    copied = way(model, folder)
    if way in NEW_WEIGHTS:
        assert not same(values(copied), before) or len(before) < 3
        copied.set_weights(model.get_weights())
    if way not in CLONES or type(model) is Learner:
        assert type(copied) is type(model)
    assert adapters(copied) == adapters(model)
    assert flags(copied, of=model) == flags(model)
    assert copied.trainable == model.trainable or way in CLONES  # Keras leaves that one out
    assert same(values(copied), before)
    np.testing.assert_array_equal(answers(copied, x), expected)
    assert not parts(copied) & parts(model)
    perturb(copied)
    assert same(values(model), before)
    np.testing.assert_array_equal(answers(model, x), expected)


@pytest.mark.parametrize("name", MODELS)
def test_a_copy_is_equal_and_shares_nothing(name, tmp_path):
    import time

    t = time.process_time()
    model = MODELS[name]()
    print("TIME", name, "made", round(time.process_time() - t, 2))
    for way in WAYS:
        t = time.process_time()
        check(model, way, tmp_path)
        print("TIME", name, way.__name__, round(time.process_time() - t, 2))
