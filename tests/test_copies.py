"""One contract for every model and each of Keras's ways to copy one: equal, and nothing shared."""

import copy

import keras
import numpy as np
import pytest
from contracts import (
    WAYS,
    batch,
    check_copy,
    clone,
    clone_with_function,
    deepcopy,
    flags,
    from_config,
    outputs,
    parts,
    weights_file,
)
from keras import ops
from models import BACKBONES, esm2, esmc, in_turn, perturb, same, values

import kft
from kft.comparison import runs
from kft.models.graphs import flat
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
    "esmc": lambda: rewoken(esmc()),
    "esmc model": lambda: fine_tuned(esmc(2), ["block_0/query_norm", "block_1/feedforward_gate"]),
    "esmc masked_lm": lambda: rewoken(esmc().masked_lm, "lm_head/decoder"),
    "lora esmc": lambda: with_lora(fine_tuned(esmc())),
    "lora esmc masked_lm": lambda: with_lora(
        esmc().masked_lm, targets=["query", "embedding", "lm_head/decoder"]
    ),
    "merged esmc": lambda: merged(with_lora(esmc(), dora=True)),
    "vit": lambda: rewoken(vision("vit"), "block_0/mha/query"),
    "vit model": lambda: fine_tuned(vision("vit"), ["block_0/mha/query", "block_1/mlp"]),
    "lora vit": lambda: with_lora(fine_tuned(vision("vit"), ["block_1/mlp"])),
    "merged vit": lambda: merged(with_lora(vision("vit"))),
    "classifier": lambda: rewoken(vision("vit", classes=("cat", "dog")).classifier, "block_0/mha"),
    "swiglu": lambda: rewoken(vision("swiglu"), "block_0/mlp"),
    "lora dinov3": lambda: with_lora(fine_tuned(vision("dinov3"), ["block_1/mlp"])),
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
    "lora esmc learner": lambda: flat(keras.Model(*ends(with_lora(esmc())))),
    "masked autoencoder": lambda: rewoken(
        masked_autoencoder(vision("vit"), decoder_blocks=1, decoder_width=16, decoder_heads=2),
        "decoder_block_0/mha",
    ),
}  # fmt: skip


def ends(model):
    return model.input, model.output


# The contract -------------------------------------------------------------------------------------


IMAGES = ("vit", "classifier", "swiglu", "net", "learn", "autoencoder")  # which take longest


def some_ways(name):
    """One to three of the ways for a model, all for those with most to lose; the rest is long."""
    at = list(MODELS).index(name)
    if name in ("model", "lora", "masked_lm"):
        return WAYS
    return WAYS[at % 7 :: 7] if any(part in name for part in IMAGES) else WAYS[at % 4 :: 4]


# Others of their kind are copied too, in less time.
SLOW = ("efficientnet", "masked autoencoder", "lora esmc learner", "merged esmc")


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:The clone of plain")
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in MODELS],
)
def test_a_copy_is_equal_and_shares_nothing(name, tmp_path):
    model = MODELS[name]()
    for way in some_ways(name):
        check_copy(model, way, tmp_path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:The clone of plain")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_every_way_for_every_model(name, way, tmp_path):
    check_copy(MODELS[name](), way, tmp_path)


@pytest.mark.parametrize(
    "name",
    in_turn(
        ["vit", "model", "learner", "merged", "lora", "lora esmc masked_lm"], everywhere=["lora"]
    ),
)
def test_on_every_backend(name, tmp_path):
    model = MODELS[name]()
    for way in (clone_with_function, deepcopy, weights_file):
        check_copy(model, way, tmp_path)


# What was wrong -----------------------------------------------------------------------------------


@pytest.mark.in_turn("torch")
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
    np.testing.assert_array_equal(outputs(same_layers, batch(model)), outputs(model, batch(model)))


@pytest.mark.once
def test_a_table_that_is_not_in_the_copied_model_is_missed_by_name():
    model = esm2(2).masked_lm
    kft.train_only(model, ["lm_head", "block_1"])
    _, trainable = kft.split(model)
    for way in (clone, from_config):
        with pytest.raises(ValueError, match="lm_head reads the table of the layer 'embedding'"):
            way(trainable, None)


@pytest.mark.once
def test_merged_weights_that_were_copied_one_by_one():
    """The copy is merged as the model is; clone_model plus set_weights added the adapters twice."""
    model = MODELS["merged"]()
    x, expected = batch(model), outputs(model, batch(model))
    copied = from_config(model, None)
    copied.set_weights(model.get_weights())
    np.testing.assert_array_equal(outputs(copied, x), expected)
    kft.merge_lora(copied)  # they are
    np.testing.assert_array_equal(outputs(copied, x), expected)
    for refused in (kft.unmerge_lora, copy.deepcopy):
        with pytest.raises(ValueError, match="its kernel before merging is not known"):
            refused(copied)
    kft.lora.remove(copied)
    np.testing.assert_array_equal(outputs(copied, x), expected)

    whole = copy.deepcopy(model)
    kft.unmerge_lora(whole)
    kft.unmerge_lora(model)
    assert same(values(whole), values(model))


@pytest.mark.once
def test_a_comparison_starts_from_what_a_merged_backbone_answers():
    backbone = merged(with_lora(esm2()))
    made = runs.new_model(backbone, kft.heads.Regression())
    x = batch(backbone)
    np.testing.assert_array_equal(outputs(made.backbone, x), outputs(backbone, x))


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
    frozen, trainable = kft.split(model)
    x = batch(model)
    query = model.get_layer("block_1").query.kernel
    query.assign(ops.convert_to_numpy(query) + np.random.default_rng(0).normal(size=query.shape))
    np.testing.assert_allclose(outputs(trainable, frozen(x)), outputs(model, x), rtol=1e-5)


@pytest.mark.once
def test_what_no_longer_fits_its_config_is_told():
    config = rewoken(esm2()).get_config()
    config["frozen_layers"] = [*config["frozen_layers"], "block_7"]
    with pytest.raises(ValueError, match="freezes block_7, 1 in total"):
        type(esm2()).from_config(config)


@pytest.mark.once
def test_models_that_were_saved_before_keep_their_marks():
    """`kft.Model` once wrote Keras's own paths under another name."""
    model = fine_tuned()
    config = model.get_config()
    config["frozen"] = config.pop("frozen_layers")
    assert flags(kft.Model.from_config(config)) == flags(model)
