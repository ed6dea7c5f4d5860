"""What is frozen is computed once, and nothing else changes: answers, weights, callbacks."""

from collections import Counter

import keras
import numpy as np
import pytest
from contracts import check_split, leaves
from keras import layers, ops
from models import BACKBONES, in_turn, same, values
from parity import assert_rounds_alike

import kft
from kft import params
from kft.backbones.esm2 import PAD
from kft.backbones.esm2.model import ESM2
from kft.data.images import pixels
from kft.training import features, frontier

pytestmark = pytest.mark.usefixtures("as_written")

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACDEFGHIKL"), n)) for n in (6, 6, 12, 9, 3, 6, 14, 6)]
TARGETS = np.array([s.count("A") / len(s) for s in SEQUENCES])
EQUAL = ["".join(RNG.choice(list("ACDEFGHIKL"), 6)) for _ in range(8)]


def randomise(model, seed=1):
    """Weights large enough to matter, in the zero-initialised head too."""
    rng = np.random.default_rng(seed)
    for weight in params.weights(model):
        values = 0.3 * rng.standard_normal(weight.variable.shape)
        if "variance" in weight.path:
            values = 1.0 + np.abs(values)
        weight.variable.assign(values.astype("float32"))
    return model


def esm2(head=None, blocks=3, **options):
    head = head or kft.heads.Regression(pooling="attention")
    return randomise(kft.Model(ESM2(blocks, 16, 2, **options), head))


def branching():
    """Two inputs; several tensors cross the frontier, one of them is an input, one an output."""
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    shared = layers.Dense(6, activation="tanh", name="shared")
    left, right = shared(a), shared(b)
    normed = layers.BatchNormalization(name="normed")(layers.Add(name="sum")([left, right]))
    middle = layers.Dense(6, activation="tanh", name="middle")(left)
    joined = layers.Concatenate(name="joined")([middle, normed, b, left * 2.0])
    outputs = {"late": layers.Dense(2, name="late")(joined), "early": normed}
    return randomise(keras.Model({"a": a, "b": b}, outputs))


def nested():
    """A convolutional network with statistics and dropout, held as one layer, as users do."""
    x = inside = keras.Input((8, 8, 1))
    for i in range(3):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"conv_{i}")(x)
        x = layers.BatchNormalization(name=f"norm_{i}")(x)
        x = layers.Dropout(0.5, seed=1, name=f"dropout_{i}")(x)
    network = keras.Model(inside, x, name="network")
    images = keras.Input((8, 8, 1), name="images")
    x = layers.GlobalAveragePooling2D()(network(images))
    return randomise(keras.Model(images, layers.Dense(1, name="out")(x)))


def masked():
    """Keras's own masks go from layer to layer unseen, and must cross the frontier too."""
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(12, 6, mask_zero=True, name="table")(tokens)
    x = layers.LSTM(5, name="lstm")(x)
    return randomise(keras.Model(tokens, layers.Dense(1, name="out")(x)))


def tokens_of(model):
    return model.encode(SEQUENCES)


CASES = {  # a model, what learns, an input
    "head": (esm2, "head", tokens_of),
    "head on pooled vectors": (lambda: esm2(kft.heads.Regression()), "head", tokens_of),
    "last block": (esm2, ["block_2", "final_norm", "head"], tokens_of),
    "one block in the middle": (esm2, "block_1", tokens_of),
    "part of a block": (esm2, ["block_2/query", "head"], tokens_of),
    "per residue": (
        lambda: esm2(kft.heads.ResidueClassification(3)), ["block_2", "head"], tokens_of,
    ),
    "branching": (
        branching, ["middle", "late"],
        lambda _: {n: RNG.standard_normal((4, 5)).astype("float32") for n in "ab"},
    ),
    "nested": (
        nested, ["network/conv_2", "out"],
        lambda _: RNG.standard_normal((4, 8, 8, 1)).astype("float32"),
    ),
    "mask": (
        masked, ["lstm", "out"],
        lambda _: np.array([[3, 4, 0, 0], [1, 2, 5, 0]], dtype="int32"),
    ),
}  # fmt: skip


COMPILED = ["last block", "nested", "mask"]


@pytest.mark.parametrize("case", in_turn(CASES, everywhere=["last block", "mask"]))
def test_both_parts_are_the_model(case):
    make, pattern, inputs = CASES[case]
    model = make()
    params.train_only(model, pattern)
    x = inputs(model)
    frozen, trainable = check_split(model, x)
    if case in COMPILED:
        compiled = trainable.predict_on_batch(frozen.predict_on_batch(x))
        for one, other in zip(leaves(model.predict_on_batch(x)), leaves(compiled), strict=True):
            assert_rounds_alike(one, other)
    # No layer of the graph is computed on both sides, but those that are shared.
    doubled = {id(x) for x in frozen.layers} & {id(x) for x in trainable.layers}
    assert {model.get_layer(name).name for name in names(model, doubled)} <= {"shared"}


def names(model, found):
    return [layer.name for layer in model.layers if id(layer) in found]


def test_a_layer_that_is_shared_is_frozen_once_and_computed_where_it_must():
    x = keras.Input((3,))
    twice = layers.Dense(3, name="twice")
    first = layers.Dense(3, name="first")(twice(x))
    model = randomise(keras.Model(x, layers.Dense(1, name="last")(twice(first))))
    params.train_only(model, "first")
    frozen, trainable = kft.split(model)
    assert "twice" in [layer.name for layer in frozen.layers]
    assert "twice" in [layer.name for layer in trainable.layers]
    assert len(params.fingerprint(model)) == 64
    values = RNG.standard_normal((2, 3)).astype("float32")
    one, other = leaves([model(values), trainable(frozen(values))])
    np.testing.assert_array_equal(one, other)
    assert [w.path for w in params.weights(model) if w.frozen] == [
        "twice/kernel", "twice/bias", "last/kernel", "last/bias",
    ]  # fmt: skip


@pytest.mark.in_turn("torch")
def test_a_keras_hub_backbone_that_kft_has_never_seen():
    keras_hub = pytest.importorskip("keras_hub")
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=20, num_layers=2, num_heads=2, hidden_dim=8, intermediate_dim=16,
        max_sequence_length=8, dropout=0.2,
    )  # fmt: skip
    x = {
        "token_ids": RNG.integers(1, 20, (4, 8)),
        "segment_ids": np.zeros((4, 8), "int32"),
        "padding_mask": np.arange(8)[None] < np.array([[8], [5], [2], [7]]),
    }
    features = backbone.output["pooled_output"]
    model = randomise(keras.Model(backbone.input, layers.Dense(2, name="out")(features)))
    params.train_only(model, ["transformer_layer_1", "pooled_dense", "out"])
    frozen, trainable = kft.split(model)
    assert "transformer_layer_0" in [layer.name for layer in frozen.layers]
    np.testing.assert_array_equal(*leaves([model(x), trainable(frozen(x))]))


# Training -----------------------------------------------------------------------------------------


def trained(through, sequences, validate=True):
    model = esm2(blocks=2)
    params.train_only(model, ["block_1", "final_norm", "head"])
    loss = model.head.make_loss()
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["mae"])
    train, valid = (kft.batches((sequences, TARGETS), model.encode, 4, s) for s in (0, None))
    valid = valid if validate else None
    if through:
        history = kft.fit_frontier(model, train, valid, epochs=2, verbose=0)
    else:
        history = model.fit(train, validation_data=valid, epochs=2, verbose=0)
    return model, history.history


def test_training_at_equal_padding_is_bit_by_bit_the_same():
    (whole, logs), (parted, other) = (trained(through, EQUAL) for through in (False, True))
    assert list(logs) == list(other)
    for one, two in zip(params.weights(whole), params.weights(parted), strict=True):
        np.testing.assert_array_equal(*leaves([one.variable.value, two.variable.value]), one.path)
    for name, logged in logs.items():
        np.testing.assert_array_equal(logged, other[name])


@pytest.mark.usefixtures("optimised")
def test_training_at_any_padding_is_the_same_to_rounding(monkeypatch):
    monkeypatch.undo()  # XLA may fuse operations across the frontier and round otherwise
    runs = (trained(through, SEQUENCES, validate=False) for through in (False, True))
    (whole, logs), (parted, other) = runs
    # Four steps of Adam, which divides by the root of a mean square, enlarge the rounding.
    for one, two in zip(params.weights(whole), params.weights(parted), strict=True):
        if "key/bias" not in one.path:  # its gradient is zero, and Adam lives on rounding
            pair = leaves([one.variable.value, two.variable.value])
            assert_rounds_alike(*pair, roundings=256, what=one.path)
    assert_rounds_alike(logs["loss"], other["loss"], roundings=256)


@pytest.mark.in_turn("jax")  # whose optimizer has a state outside of its variables
def test_the_optimizer_goes_on_where_it_was():
    model, _ = trained(True, EQUAL)
    assert int(ops.convert_to_numpy(model.optimizer.iterations.value)) == 4
    train = kft.batches((EQUAL, TARGETS), model.encode, 4, 0)
    kft.fit_frontier(model, train, epochs=1, verbose=0)
    assert int(ops.convert_to_numpy(model.optimizer.iterations.value)) == 6
    model.fit(train, epochs=1, verbose=0)  # and the whole takes over from there
    assert int(ops.convert_to_numpy(model.optimizer.iterations.value)) == 8


@pytest.mark.in_turn("tensorflow")
def test_callbacks_see_the_whole_model_and_may_stop_it(tmp_path):
    model = esm2(blocks=1)
    params.train_only(model, "head")
    model.compile("adam", "mean_squared_error")
    train = kft.batches((EQUAL, TARGETS), model.encode, 4, 0)
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((self.model is model, sorted(logs)))
            self.model.stop_training = epoch == 1

    saved = keras.callbacks.ModelCheckpoint(tmp_path / "whole.keras")
    history = kft.fit_frontier(model, train, epochs=5, callbacks=[Look(), saved], verbose=0)
    assert seen == [(True, ["loss"])] * 2
    assert history.model is model and len(history.history["loss"]) == 2
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    assert_rounds_alike(kft.predict(loaded, EQUAL), kft.predict(model, EQUAL))


@pytest.mark.in_turn("torch")
def test_residue_targets_and_weights_come_through():
    model = esm2(kft.heads.ResidueClassification(2), blocks=1)
    params.train_only(model, "head")
    model.compile("adam", model.head.make_loss(), weighted_metrics=model.head.make_metrics())
    rows = [np.array([c == "A" for c in s], dtype="int32") for s in SEQUENCES]
    train = kft.batches((SEQUENCES, rows), model.encode, 4, 0)
    whole = model.evaluate(train, verbose=0, return_dict=True)
    parted = kft.fit_frontier(model, train, train, epochs=1, verbose=0)
    assert whole["loss"] != parted.history["val_loss"][0]
    again = model.evaluate(train, verbose=0, return_dict=True)
    for name in ("accuracy", "loss"):
        assert_rounds_alike(again[name], parted.history[f"val_{name}"][0])


# The cache ----------------------------------------------------------------------------------------


def counted(monkeypatch):
    """Counts how often features are computed."""
    calls = []
    real = features._computed

    def computed(source, *args):
        calls.extend([args] * source.for_training)  # not the predictions
        return real(source, *args)

    monkeypatch.setattr(features, "_computed", computed)
    return calls


def fit_with(cache, model, sequences=SEQUENCES, **options):
    model.compile("adam", "mean_squared_error")
    train = kft.batches((sequences, TARGETS), model.encode, 4, 0)
    return kft.fit_frontier(model, train, epochs=1, cache=cache, verbose=0, **options)


@pytest.mark.once
def test_features_are_reused_only_if_nothing_they_depend_on_has_changed(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    model = esm2()
    params.train_only(model, "head")
    fit_with(tmp_path, model)
    assert len(calls) == 1
    before = kft.predict(model, SEQUENCES)
    fit_with(tmp_path, model)  # the head has changed, which features do not depend on
    assert len(calls) == 1
    assert np.abs(kft.predict(model, SEQUENCES) - before).max() > 0
    bias = model.backbone.stages[1].query.bias
    bias.assign(bias + 1e-3)
    fit_with(tmp_path, model)
    assert len(calls) == 2
    fit_with(tmp_path, model, [*SEQUENCES[:-1], "ACDEFG"])
    assert len(calls) == 3
    with pytest.warns(UserWarning, match="was compiled"):
        params.train_only(model, ["block_2", "head"])
    fit_with(tmp_path, model)
    assert len(calls) == 4
    model.backbone.encode = lambda *args, **kwargs: {
        "token_ids": np.where((ids := ESM2.encode(*args, **kwargs)["token_ids"]) == 5, 32, ids)
    }
    fit_with(tmp_path, model)  # another preprocessing of the same strings
    assert len(calls) == 5
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


@pytest.mark.once  # they are the same arrays
def test_cached_mapped_and_held_features_train_alike(tmp_path):
    results = []
    for options in ({}, {"memory_limit": 0}, {"cache": tmp_path}, {"cache": tmp_path}):
        model = esm2(blocks=2)
        params.train_only(model, ["block_1", "head"])
        fit_with(model=model, **{"cache": None, **options})
        results.append([leaves(w.variable.value)[0] for w in params.weights(model)])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


def counting():
    """The mean over what is no padding, found in tokens: they cross the frontier."""
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    counts = ops.cast(ops.not_equal(tokens, PAD), "float32")[..., None]
    x = layers.Embedding(33, 4, name="known")(tokens) + layers.Embedding(33, 4, name="new")(tokens)
    x = ops.sum(x * counts, axis=1) / ops.sum(counts, axis=1)
    return randomise(keras.Model({"token_ids": tokens}, layers.Dense(1, name="out")(x)))


@pytest.mark.parametrize(
    ("lengths", "kept"),
    in_turn(
        [([6, 9, 3, 14], "mapped"), ([6, 9, 3, 14], ""), ([6, 9, 3, 14], "cached"),
         ([6, 6, 14, 14], ""), ([6, 6, 14, 14], "cached")]
    ),
)  # fmt: skip
def test_what_stands_at_padding_is_what_the_frozen_part_answers_there(lengths, kept, tmp_path):
    """Also where each batch that features are computed in is of one length, which fills it."""
    options = {"": {}, "mapped": {"memory_limit": 0}, "cached": {"cache": tmp_path}}[kept]
    model = counting()
    params.freeze(model, "known")
    frozen, trainable = kft.split(model)
    sequences = ["ACDEFGHIKLACDEFG"[:n] for n in lengths]
    base = kft.batches((sequences, np.zeros(4)), ESM2.encode, 2)
    for _ in range(2):  # computed, and if there is a cache, opened
        found = features.features_of(frozen, base, **options)
        for chosen, padded in (([0, 1, 2, 3], 16), ([2, 0], 32)):
            inputs = ESM2.encode([sequences[i] for i in chosen], pad_lengths=(padded,))
            taken = found.take(chosen, padded)
            for name, expected in frozen.predict_on_batch(inputs).items():
                np.testing.assert_array_equal(taken[name], leaves(expected)[0], name)
            answers = [
                part.predict_on_batch(x) for part, x in ((trainable, taken), (model, inputs))
            ]
            assert_rounds_alike(*answers)


@pytest.mark.once
def test_what_does_not_fit_on_the_disk_is_said_before_it_is_begun(monkeypatch):
    monkeypatch.setattr(features.shutil, "disk_usage", lambda _: type("", (), {"free": 10}))
    model = esm2()
    params.train_only(model, "head")
    with pytest.raises(frontier.FrontierError, match="name another folder as `cache`"):
        fit_with(None, model, memory_limit=0)


# Each record is encoded once ----------------------------------------------------------------------


class Counted:
    """An encoder that counts how often it encodes each record."""

    def __init__(self, encode):
        self.encode, self.counts = encode, Counter()

    def __call__(self, inputs, *args, **options):
        self.counts.update(map(str, inputs))
        return self.encode(inputs, *args, **options)

    def __getattr__(self, name):
        return getattr(self.encode, name)


def image_files(folder, count):
    from PIL import Image

    rng, paths = np.random.default_rng(0), [folder / f"{i}.png" for i in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), "uint8")).save(path)
    return paths


@pytest.mark.once
@pytest.mark.parametrize("kind", ["sequences", "images"])
@pytest.mark.parametrize("cached", [False, True])
def test_each_record_is_encoded_once_whatever_the_number_of_epochs(kind, cached, tmp_path):
    """Records to train and to validate on; with a folder of features, in the next run as well."""
    if kind == "images":
        pytest.importorskip("keras_hub")
        records = image_files(tmp_path, 12)
        model = kft.Model(BACKBONES["vit"](), kft.heads.Regression())
    else:
        records = list(dict.fromkeys(SEQUENCES + EQUAL))[:12]
        model = esm2(kft.heads.Regression(), blocks=1)
    params.train_only(model, "head")
    model.backbone.encode = counted = Counted(model.encode)
    targets = np.arange(12.0)
    train, valid = (kft.data.Split(records[i], targets[i]) for i in (slice(0, 8), slice(8, None)))
    cache = tmp_path / "features" if cached else None
    for run in range(1, 3 if cached else 2):
        model.compile("adam", "mean_squared_error")
        kft.fit_frontier(model, train, valid, epochs=4, batch_size=4, cache=cache, verbose=0)
        assert counted.counts == dict.fromkeys(map(str, records), run)


@pytest.mark.once
def test_strategies_encode_each_record_once():
    model, about = esm2(kft.heads.Regression(), blocks=1), {"source": "", "licence": ""}
    model.backbone.encode = counted = Counted(model.encode)
    part = kft.data.Split(EQUAL, TARGETS)
    data = kft.data.Dataset(
        "toy", "regression", part.take(range(5)), part.take(range(5, 8)), None, citation="",
        checksum="", **about,
    )  # fmt: skip
    done = kft.fit(model, data, "head_only", 5, batch_size=2, verbose=0)
    assert done.phases[0].why_not_computed_once is None
    assert counted.counts == dict.fromkeys(EQUAL, 1)


@pytest.fixture
def decoded(monkeypatch):
    """Counts how often each file is decoded; headers are read apart from that."""
    counts, real = Counter(), pixels.opened

    def opened(path, decode=True):
        if decode:
            counts[str(path)] += 1
        return real(path, decode)

    monkeypatch.setattr(pixels, "opened", opened)
    return counts


def fit_images(folder, strategy, epochs, **options):
    """Trains on eight files and validates on four; returns the paths and the weights."""
    pytest.importorskip("keras_hub")
    paths, targets = image_files(folder, 12), np.arange(12.0)
    train, valid = (kft.data.Split(paths[i], targets[i]) for i in (slice(0, 8), slice(8, None)))
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    data = kft.data.Dataset("toy", "regression", train, valid, None, **about)
    model = kft.Model(kft.backbones.randomised(BACKBONES["vit"](), 0), kft.heads.Regression())
    if "encode" in options:
        model.backbone.encode = options.pop("encode")
    options = {"batch_size": 4, "verbose": 0, **options}
    kft.fit(model, data, strategy, epochs, **options)
    return list(map(str, paths)), values(model)


@pytest.mark.once
@pytest.mark.parametrize(
    ("strategy", "epochs"), [("gradual_unfreezing", 3), ("full", 2), ("head_only", 2)]
)
def test_each_image_is_decoded_once_in_all_phases_and_epochs(strategy, epochs, tmp_path, decoded):
    paths, _ = fit_images(tmp_path, strategy, epochs)
    assert decoded == dict.fromkeys(paths, 1)


@pytest.mark.once
def test_images_that_do_not_fit_in_memory_are_encoded_again(tmp_path, decoded, capsys):
    """With the same weights, and one line in all phases that says so."""
    size = 12 * 32 * 32 * 3 * 4
    _, kept = fit_images(tmp_path, "gradual_unfreezing", 3, memory_limit=size)
    assert set(decoded.values()) == {1}
    options = {"memory_limit": size - 1, "verbose": 2}
    _, again = fit_images(tmp_path, "gradual_unfreezing", 3, **options)
    assert min(decoded.values()) >= 1 + 3
    said = capsys.readouterr().out
    assert said.count("Images are opened and resized again in every epoch: all would take") == 1
    assert same(kept, again)


@pytest.mark.once
def test_what_an_encoder_draws_is_drawn_in_every_epoch(tmp_path):
    """One that does not state to be deterministic, such as one that augments, is called again."""
    encode = Counted(BACKBONES["vit"]().encode)
    encode.deterministic = False
    paths, _ = fit_images(tmp_path, "full", 2, encode=encode)
    assert set(encode.counts) == set(paths)
    assert min(encode.counts.values()) >= 2


@pytest.mark.once
def test_an_encoder_that_does_not_say_how_it_pads_is_called_twice_at_most():
    model = esm2(blocks=1)
    params.train_only(model, "head")
    counted = Counted(ESM2.encode)
    model.backbone.encode = lambda *args, **options: counted(*args, **options)
    model.compile("adam", "mean_squared_error")
    kft.fit_frontier(model, (EQUAL, TARGETS), epochs=4, batch_size=4, verbose=0)
    assert counted.counts == dict.fromkeys(EQUAL, 2)


# Where there is none ------------------------------------------------------------------------------


def test_augmentation_is_never_computed_once():
    images = keras.Input((8, 8, 1), name="images")
    x = layers.RandomFlip(seed=0, name="flip")(images)
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(x))
    model = keras.Model(images, layers.Dense(1, name="out")(x))
    params.train_only(model, "out")
    assert "flip must draw new numbers in every epoch" in frontier.why_not(model)
    model.compile("adam", "mean_squared_error")
    train = kft.batches((list(RNG.random((4, 8, 8, 1), "float32")), np.ones(4)), None)
    with pytest.raises(frontier.FrontierError, match="flip must draw new"):
        kft.fit_frontier(model, train)


@keras.saving.register_keras_serializable("test")
class Noise(layers.Layer):
    """Random in inference, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.generator)


def test_what_is_random_even_in_inference_is_found_out():
    x = keras.Input((3,))
    hidden = Noise()(layers.Dense(3, name="hidden")(x))
    model = keras.Model(x, layers.Dense(1, name="out")(hidden))
    params.train_only(model, "out")
    model.compile("adam", "mean_squared_error")
    train = kft.batches((list(np.ones((4, 3), "float32")), np.ones(4)), None)
    with pytest.raises(frontier.FrontierError, match="outputs for one batch differ"):
        kft.fit_frontier(model, train)


@pytest.mark.once
def test_nothing_frozen_nothing_learning_nothing_functional():
    model = esm2()
    assert "Nothing in model is frozen" in frontier.why_not(model)
    params.freeze(model)
    assert "No weight of model is trainable" in frontier.why_not(model)
    params.train_only(model, ["block_0", "block_1", "block_2", "final_norm", "head"])
    assert "cheap" in frontier.why_not(model)
    params.train_only(model, "head")
    assert frontier.why_not(model) is None

    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TypeError, match="must be a functional or Sequential Keras model"):
        kft.split(Own())


@pytest.mark.once
def test_bad_arguments():
    model = esm2()
    params.train_only(model, "head")
    train = kft.batches((EQUAL, TARGETS), model.encode, 4, 0)
    with pytest.raises(ValueError, match="must be compiled"):
        kft.fit_frontier(model, train)


@pytest.mark.once
def test_data_sets_and_records_are_taken_as_they_are():
    model = esm2()
    params.train_only(model, "head")
    model.compile("adam", "mean_squared_error")
    part = kft.data.Split(SEQUENCES, TARGETS)
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    data = kft.data.Dataset("toy", "regression", part, part, None, **about)
    logs = kft.fit_frontier(model, data, batch_size=4, verbose=0).history
    assert sorted(logs) == ["loss", "val_loss"]


def test_dropout_and_statistics_rest_in_what_is_frozen_and_work_in_what_learns():
    model = nested()
    network = model.get_layer("network")
    params.train_only(model, ["network/conv_2", "network/norm_2", "network/dropout_2", "out"])
    frozen, trainable = kft.split(model)
    x = RNG.standard_normal((4, 8, 8, 1)).astype("float32")
    still, moved = (
        leaves(network.get_layer(f"norm_{i}").moving_mean.value)[0].copy() for i in (0, 2)
    )
    whole = kft.models.model.flat(model)
    drawn = leaves([whole(x, training=True) for _ in range(2)])
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-6  # dropout_2 works
    np.testing.assert_array_equal(*leaves([network.get_layer("norm_0").moving_mean.value, still]))
    assert np.abs(leaves(network.get_layer("norm_2").moving_mean.value)[0] - moved).max() > 1e-6
    # With the last dropout at rest too, training mode differs in the last norm alone.
    params.freeze(model, "network/dropout_2")
    one, other = leaves([whole(x, training=True), trainable(frozen(x), training=True)])
    np.testing.assert_array_equal(one, other)


def test_dropout_that_is_not_frozen_is_drawn_anew():
    x = keras.Input((4,))
    hidden = layers.Dropout(0.5, seed=1, name="drop")(layers.Dense(8, name="hidden")(x))
    model = randomise(keras.Model(x, layers.Dense(1, name="out")(hidden)))
    kft.freeze(model, "hidden")
    frozen, trainable = kft.split(model)
    assert "drop" in [layer.name for layer in trainable.layers]
    assert "drop" not in [layer.name for layer in frozen.layers]


@pytest.mark.once
def test_a_cache_made_by_other_code_is_not_used(tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    model = esm2()
    params.train_only(model, "head")
    fit_with(tmp_path, model)
    block = type(model.backbone.stages[1])
    attention = block.call
    monkeypatch.setattr(block, "call", lambda self, x, mask: 1.5 * attention(self, x, mask))
    fit_with(tmp_path, model)
    assert len(calls) == 2
