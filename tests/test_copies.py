"""One contract for every model and each of Keras's ways to copy one: equal, and nothing shared."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import ops
from models import BACKBONES, esm2, perturb, same, values

import kft
from kft.comparison import runs
from kft.models.graphs import Learner, flat
from kft.training.pretraining import masked_autoencoder

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
    "vit model": lambda: fine_tuned(vision("vit"), ["block_0/mha/query", "block_1/mlp"]),
    "lora vit": lambda: with_lora(fine_tuned(vision("vit"), ["block_1/mlp"])),
    "merged vit": lambda: merged(with_lora(vision("vit"))),
    "classifier": lambda: rewoken(vision("vit", classes=("cat", "dog")).classifier, "block_0/mha"),
    "swiglu": lambda: rewoken(vision("swiglu"), "block_0/mlp"),
    "efficientnet": lambda: fine_tuned(vision("efficientnet"), ["block_0", "block_2"]),
    "lora efficientnet": lambda: with_lora(fine_tuned(vision("efficientnet"), ["block_0"])),
    "mobilenet": lambda: rewoken(vision("mobilenet"), "block_1"),
    "chopped": chopped,
    "learner": lambda: flat(plain()),
    "learning part": lambda: kft.split(
        fine_tuned(vision("vit"), ["embedding", "block_0", "block_1/mha/key"])
    )[1],
    "lora learner": lambda: flat(keras.Model(*ends(with_lora(vision("vit"))))),
    "contacts learner": lambda: flat(keras.Model(*ends(rewoken(esm2().contacts)))),
    "masked_lm learner": lambda: flat(keras.Model(*ends(rewoken(esm2().masked_lm)))),
    "masked autoencoder": lambda: rewoken(
        masked_autoencoder(vision("vit"), decoder_blocks=1, decoder_width=16, decoder_heads=2),
        "decoder_block_0/mha",
    ),
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
    layers, wanted = kft.params.layers(model), kft.params.layers(of or model)
    assert {path for path, layer in layers.items() if layer.weights} <= wanted.keys()
    weights = kft.params.weights(model)
    return (
        {path: layers[path].trainable for path in wanted},
        {w.path: (w.trainable, w.frozen, w.variable.trainable) for w in weights},
    )


def adapters(model):
    return {
        path: (type(layer), layer.merged, layer.active,
               {name: adapter.settings for name, adapter in layer.adapters.items()})
        for path, layer in kft.lora.adapting.adapted(model)
    }  # fmt: skip


def parts(model):
    """ids of all layers and variables, also of the layer that another one borrows."""
    layers = model._flatten_layers()
    own = [v for x in layers for v in [*x._trainable_variables, *x._non_trainable_variables]]
    borrowed = [x.lender for x in layers if hasattr(x, "borrow")]
    return {id(x) for x in [*layers, *own, *borrowed]}


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


IMAGES = ("vit", "classifier", "swiglu", "net", "learn", "autoencoder")  # which take longest


def some_ways(name):
    """One to three of the ways for a model, all for those with most to lose; the rest is long."""
    at = list(MODELS).index(name)
    if name in ("model", "lora", "masked_lm"):
        return WAYS
    return WAYS[at % 5 :: 5] if any(part in name for part in IMAGES) else WAYS[at % 3 :: 3]


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:The clone of plain")
@pytest.mark.parametrize("name", MODELS)
def test_a_copy_is_equal_and_shares_nothing(name, tmp_path):
    model = MODELS[name]()
    for way in some_ways(name):
        check(model, way, tmp_path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The clone of plain")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_every_way_for_every_model(name, way, tmp_path):
    check(MODELS[name](), way, tmp_path)


@pytest.mark.parametrize("name", ["model", "lora", "lora masked_lm", "merged", "learner", "vit"])
def test_on_every_backend(name, tmp_path):
    model = MODELS[name]()
    for way in (clone_with_function, deepcopy, weights_file):
        check(model, way, tmp_path)


# What was wrong -----------------------------------------------------------------------------------


def test_training_a_clone_leaves_the_model_alone():
    """Frozen layers of a clone were those of the model."""
    model = kft.Model(esm2(), kft.heads.Classification(2))
    kft.train_only(model, "head")
    before = kft.fingerprint(model, None)
    for copied in (keras.models.clone_model(model), copy.deepcopy(model)):
        copied.set_weights(model.get_weights())
        assert kft.parameters(copied).trainable == kft.parameters(model).trainable > 0
        copied.trainable = True
        copied.compile("sgd", "sparse_categorical_crossentropy")
        copied.train_on_batch(batch(model), np.array([0, 1]))
        assert kft.fingerprint(copied, None) != before
        assert kft.fingerprint(model, None) == before


@pytest.mark.once
def test_from_scratch_leaves_the_given_weights_of_a_learner():
    for model in (flat(plain()), fine_tuned(), esm2().masked_lm):
        kft.freeze(model, next(iter(kft.params.layers(model))))
        before = kft.fingerprint(model, None)
        copy = kft.strategies.get("from_scratch").prepare(model)
        assert not parts(copy) & parts(model)
        perturb(copy)
        assert kft.fingerprint(model, None) == before


@pytest.mark.once
def test_a_clone_function_has_the_last_word():
    """What it makes of a layer stays: another flag, another layer, or the layer itself."""
    model = rewoken(esm2(2))

    def frozen_blocks(layer):
        made = type(layer).from_config(layer.get_config())
        made.trainable = made.trainable and layer.name != "block_0"
        return made

    copied = keras.models.clone_model(model, clone_function=frozen_blocks)
    assert not kft.parameters(copied).trainable

    def without_norm(layer):
        if layer.name == "final_norm":
            return keras.layers.Activation("linear", name="no_norm")
        return layer if layer.name == "block_1" else type(layer).from_config(layer.get_config())

    copied = keras.models.clone_model(model, clone_function=without_norm)
    assert copied.get_layer("block_1") is model.get_layer("block_1")
    assert [x.name for x in copied.layers][-1] == "no_norm"
    same_layers = keras.models.clone_model(model, clone_function=lambda layer: layer)
    np.testing.assert_array_equal(answers(same_layers, batch(model)), answers(model, batch(model)))


@pytest.mark.once
def test_a_table_that_is_not_in_the_copied_model_is_missed_by_name():
    model = esm2(2).masked_lm
    kft.train_only(model, ["lm_head", "block_1"])
    _, learning = kft.split(model)
    for way in (clone, from_config):
        with pytest.raises(ValueError, match="lm_head reads the table of the layer 'embedding'"):
            way(learning, None)


@pytest.mark.once
def test_merged_weights_that_were_copied_one_by_one():
    """The copy is merged as the model is; clone_model plus set_weights added the adapters twice."""
    model = MODELS["merged"]()
    x, expected = batch(model), answers(model, batch(model))
    copied = from_config(model, None)
    copied.set_weights(model.get_weights())
    np.testing.assert_array_equal(answers(copied, x), expected)
    kft.merge_lora(copied)  # they are
    np.testing.assert_array_equal(answers(copied, x), expected)
    for refused in (kft.unmerge_lora, copy.deepcopy):
        with pytest.raises(ValueError, match="its kernel before merging is not known"):
            refused(copied)
    kft.lora.remove(copied)
    np.testing.assert_array_equal(answers(copied, x), expected)

    whole = copy.deepcopy(model)
    kft.unmerge_lora(whole)
    kft.unmerge_lora(model)
    assert same(values(whole), values(model))


@pytest.mark.once
def test_a_comparison_starts_from_what_a_merged_backbone_answers():
    backbone = merged(with_lora(esm2()))
    made = runs.fresh(backbone, kft.heads.Regression())
    x = batch(backbone)
    np.testing.assert_array_equal(answers(made.backbone, x), answers(backbone, x))


@pytest.mark.once
def test_dropout_that_wakes_in_a_plain_clone_is_told():
    with pytest.warns(match=r"dropout of drop is active in training.*copy\.deepcopy"):
        copied = keras.models.clone_model(chopped())
    assert type(copied) is not kft.Model
    learner = flat(plain())
    x = batch(learner)
    for one in (learner, keras.models.clone_model(learner)):  # a Learner, and no warning
        twice = [ops.convert_to_numpy(one(x, training=True)) for _ in range(2)]
        np.testing.assert_array_equal(*twice)


@pytest.mark.once
def test_contacts_change_with_blocks_that_learn():
    """A block's attention was a layer of its own, which a frozen frontier took for frozen."""
    model = rewoken(esm2(2).contacts, ["block_1/query", "contact_head"])
    frozen, learning = kft.split(model)
    x = batch(model)
    query = model.get_layer("block_1").query.kernel
    query.assign(ops.convert_to_numpy(query) + np.random.default_rng(0).normal(size=query.shape))
    np.testing.assert_allclose(answers(learning, frozen(x)), answers(model, x), rtol=1e-5)


@pytest.mark.once
def test_what_no_longer_fits_its_config_is_told():
    config = rewoken(esm2()).get_config()
    config["frozen_layers"] = [*config["frozen_layers"], "block_7"]
    with pytest.raises(ValueError, match="freezes block_7, 1 in all"):
        type(esm2()).from_config(config)


@pytest.mark.once
def test_models_that_were_saved_before_keep_their_marks():
    """`kft.Model` once wrote Keras's own paths under another name."""
    model = fine_tuned()
    config = model.get_config()
    config["frozen"] = config.pop("frozen_layers")
    assert flags(kft.Model.from_config(config)) == flags(model)
