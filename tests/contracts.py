"""What every model, backbone, head, data set, strategy and encoder passes, kft's own and others.

Each function raises an AssertionError where a contract is broken. Shapes: `B` records in a batch,
`L` positions, `D` width, `K` outputs.
"""

import copy
import json
import pickle
import re

import keras
import numpy as np
from keras import ops
from models import moved, perturb, perturb_adapters, same, values
from parity import assert_rounds_alike

import kft
from kft import params
from kft.data.inputs import InputKind, encoder_info, kind_of
from kft.models.graphs import Learner

# Any model ----------------------------------------------------------------------------------------


def batch(model, seed=0):
    """Random inputs of a model, two records of six positions."""
    rng = np.random.default_rng(seed)

    def drawn(x):
        shape = [2 if n is None else n for n in x.shape]
        shape[1:] = [6 if n is None else n for n in x.shape[1:]]
        if x.name in ("visible", "hidden"):
            return np.stack([rng.permutation(shape[1]) for _ in range(2)]).astype("int32")
        if x.name == "labels":  # of prompts
            return rng.integers(-2, 4, shape).astype("int32")
        if "int" in x.dtype:
            return np.concatenate(
                [np.zeros((2, 1)), rng.integers(4, 24, (2, 5)), np.full((2, 1), 2)], 1
            )
        if "bool" in x.dtype:
            return np.ones(shape, "bool")
        return rng.standard_normal(shape).astype("float32")

    return keras.tree.map_structure(drawn, model.input)


def outputs(model, x):
    several = [ops.convert_to_numpy(y) for y in keras.tree.flatten(model(x, training=False))]
    return several[0] if len(several) == 1 else np.concatenate([y.ravel() for y in several])


def flags(model, of=None):
    """Of all layers and weights; `of` another model, whose layers are meant."""
    layers, wanted = params.layers(model), params.layers(of or model)
    assert {path for path, layer in layers.items() if layer.weights} <= wanted.keys()
    weights = params.weights(model)
    return (
        {path: layers[path].trainable for path in wanted},
        {w.path: (w.trainable, w.frozen, w.variable.trainable) for w in weights},
    )


def adapters(model):
    """Of each layer: its class, what is active, and the settings of its adapters."""
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


# Copies of a model --------------------------------------------------------------------------------


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


def check_copy(model, way, folder):
    """A copy is equal, with flags and adapters, and shares nothing with the model.

    Args:
        model: Any functional model.
        way: One of `WAYS`.
        folder: Where it may write files.
    """
    before, x = values(model), batch(model)
    expected = outputs(model, x)
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
    np.testing.assert_array_equal(outputs(copied, x), expected)
    assert not parts(copied) & parts(model)
    perturb(copied)
    assert same(values(model), before)
    np.testing.assert_array_equal(outputs(model, x), expected)


def check_padded_records(model, inputs):
    """A record is predicted as if it were alone, also where it is padded for longer ones."""
    together = kft.predict(model, inputs)
    for row, x in zip(together, inputs, strict=True):
        assert_rounds_alike(kft.predict(model, [x])[0], row)
        arrays = model.encode([x], pad_lengths=(64,))
        padded = ops.convert_to_numpy(model.predict_on_batch(arrays))
        before = encoder_info(model.encode, [x]).specials[0]
        found = padded[0, before : before + len(row)] if model.head.per_residue else padded[0]
        assert_rounds_alike(found, row)


# The frozen frontier ------------------------------------------------------------------------------


def leaves(x):
    return [ops.convert_to_numpy(leaf) for leaf in keras.tree.flatten(x)]


def check_split(model, x):
    """`trainable(frozen(x)) == model(x)`, and nothing is frozen too little or too much.

    Args:
        model: Functional model, marked.
        x: Its inputs.

    Returns:
        frozen, trainable
    """
    frozen, trainable = kft.split(model)
    expected, found = model(x), trainable(frozen(x))
    keras.tree.assert_same_structure(expected, found)
    for one, other in zip(leaves(expected), leaves(found), strict=True):
        assert np.ptp(one) > 1e-5
        np.testing.assert_array_equal(one, other)
    assert not frozen.trainable_weights
    assert {*map(id, trainable.trainable_weights)} == {*map(id, model.trainable_weights)}
    return frozen, trainable


# Strategies ---------------------------------------------------------------------------------------


def check_training(strategy, model, data, frozen, folder, **options):
    """A strategy changes all stages but the frozen ones, and the marks and weights are saved.

    Args:
        strategy: A strategy.
        model: A `kft.Model` with weights that training moves.
        data: As for `kft.fit`.
        frozen: Names of the stages, and of the head, that keep their weights.
        folder: Where it may write files.
        **options: Of `kft.fit`.

    Returns:
        What `kft.fit` returns.
    """
    before = values(model)
    stages = {path.partition("/")[0] for path in before}
    done = kft.fit(model, data, strategy, keep_best=False, verbose=0, **options)
    after = values(done.model)
    assert before.keys() == {path for path in after if "/lora_" not in path}
    assert moved(before, after) == stages - set(frozen)
    if done.model is not model:
        assert same(before, values(model))
        return done
    assert {w.path.partition("/")[0] for w in params.weights(model) if w.frozen} == set(frozen)
    model.save(folder / "model.keras")
    loaded = keras.saving.load_model(folder / "model.keras")
    assert kft.fingerprint(loaded) == kft.fingerprint(model)
    assert kft.fingerprint(loaded, trainable=None) == kft.fingerprint(model, trainable=None)
    assert flags(loaded) == flags(model)
    return done


def marks(model):
    """Paths, marks, who has made them, and values."""
    found = [(w.path, w.frozen, getattr(w.variable, "_kft_marked", None)) for w in
             params.weights(model)]  # fmt: skip
    return found, kft.fingerprint(model, None)


def check_phases(strategy, given, copies=False, adds=False):
    """`phases` changes nothing, and the first phase trains something.

    Args:
        strategy: A strategy.
        given: A model, with some layers frozen.
        copies: Whether `prepare` returns a copy.
        adds: Whether `prepare` changes the given model.

    Returns:
        The phases.
    """
    before = marks(given)
    model = strategy.prepare(given)
    assert (model is given) == (not copies)
    assert (marks(given) == before) == (not adds)
    before, everything = marks(model), params.layers(model)
    phases = strategy.phases(model)
    assert phases and marks(model) == before
    assert strategy.phases(model) == phases
    assert all(set(phase.trainable_layers or ()) <= everything.keys() for phase in phases)
    phases[0].mark(model)
    assert model.trainable_variables
    return phases


# Adapters -----------------------------------------------------------------------------------------


def check_adapter_training(model, data, folder, **options):
    """Training moves adapters and head alone, and the model is saved with its optimizer.

    Args:
        model: A `kft.Model` with adapters.
        data: As for `kft.fit`.
        folder: Where it may write files.
        **options: Of the strategy "lora", those of the adapters.
    """
    before, frozen = params.digests(model, None), kft.fingerprint(model)
    kft.fit(model, data, kft.strategies.get("lora", epochs=1, **options), verbose=0)
    assert kft.fingerprint(model) == frozen
    after = params.digests(model, None)
    changed = {path for path in before if before[path] != after[path]}
    assert changed == {path for path in before if "lora_" in path or path.startswith("head")}
    model.save(folder / "model.keras")
    again = keras.saving.load_model(folder / "model.keras")
    assert params.digests(again, None) == after


def check_base_is_kept(model, x, rank=4, **options):
    """Adapters that are new change nothing; switched off, merged back or removed, the base is left.

    Args:
        model: A model without adapters, whose outputs depend on all layers.
        x: Its inputs.
        rank: Of the adapters.
        **options: Of `kft.add_lora`.
    """

    def predicted():
        return ops.convert_to_numpy(model.predict_on_batch(x))

    base, before = kft.fingerprint(model, None), predicted()
    kinds = {path: type(layer) for path, layer in params.layers(model).items()}
    paths = kft.add_lora(model, rank, **options)
    assert set(paths) <= kinds.keys()
    assert_rounds_alike(predicted(), before)
    perturb_adapters(model)
    changed = predicted()
    assert np.abs(changed - before).max() > 0.01
    kft.lora.use(model, None)
    assert_rounds_alike(predicted(), before)
    kft.lora.use(model, "default")
    kft.merge_lora(model)
    assert_rounds_alike(predicted(), changed)
    kft.unmerge_lora(model)
    kft.lora.remove(model)
    assert kft.fingerprint(model, None) == base
    assert {path: type(layer) for path, layer in params.layers(model).items()} == kinds
    assert_rounds_alike(predicted(), before)


def check_adapter_file(model, again, x, folder):
    """Another model with the same base loads an adapter, and computes the same with and without.

    Args:
        model: A model with an adapter that is not zero.
        again: A model with the same base and head, without adapters.
        x: Inputs of both.
        folder: Where the adapter is written.
    """
    base = ops.convert_to_numpy(again.predict_on_batch(x))
    expected = ops.convert_to_numpy(model.predict_on_batch(x))
    kft.save_adapter(model, folder)
    paths = [path for path, layer in kft.lora.adapting.adapted(model) if _has_low_rank(layer)]
    assert kft.load_adapter(again, folder) == paths
    assert kft.fingerprint(again, None) == kft.fingerprint(model, None)
    assert_rounds_alike(ops.convert_to_numpy(again.predict_on_batch(x)), expected)
    kft.lora.use(again, None)
    assert_rounds_alike(ops.convert_to_numpy(again.predict_on_batch(x)), base)


def _has_low_rank(layer):
    return any(adapter.settings.rank for adapter in layer.adapters.values())


# Heads --------------------------------------------------------------------------------------------
# `make` makes a head, and takes the arguments of its class as keywords.

B, L, D = 4, 7, 6
LENGTHS = (5, 1, 3, 2)  # residues; the first position is <cls>, then residues, <eos>, <pad>


def head_inputs():
    """Features (B, L, D) and the mask (B, L) of positions that are residues."""
    features = np.random.default_rng(0).standard_normal((B, L, D)).astype("float32")
    return features, np.array([[1 <= i <= n for i in range(L)] for n in LENGTHS])


def randomise(head, seed=1):
    rng = np.random.default_rng(seed)
    for variable in head.weights:
        variable.assign(rng.standard_normal(variable.shape, dtype="float32"))
    return head


def call(layer, *inputs):
    return ops.convert_to_numpy(layer(*(None if x is None else ops.array(x) for x in inputs)))


def places_of(head):
    """The shape of the places that have outputs: records, positions, or pairs of positions."""
    return {"record": (B,), "residue": (B, L), "pair": (B, L, L)}[head.task.level]


def targets_for(head, seed=0):
    """Random targets of a head for the features of `head_inputs`."""
    rng = np.random.default_rng(seed)
    shape = places_of(head)
    if head.task.target == "angles":
        return rng.uniform(-np.pi, np.pi, (*shape, head.units // 2)).astype("float32")
    if head.task.target == "class":
        return rng.integers(0, head.units, shape)
    if head.task.target == "labels":
        return rng.integers(0, 2, (B, head.units))
    return rng.standard_normal((*shape, head.units)).astype("float32")


def check_prior(make, prior):
    """An untrained head predicts the prior (K,), in float32."""
    features, mask = head_inputs()
    head = make()
    found = call(head, features, mask)
    assert isinstance(head.task, kft.data.Task) and head.units == len(prior)
    assert found.shape == (*places_of(head), len(prior))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, np.broadcast_to(prior, found.shape), rtol=1e-6)


def check_padding(make, masked=True):
    """Padding, other records and, if `masked`, positions outside of the mask change nothing."""
    features, mask = head_inputs()
    head = make()
    head(features, mask)
    expected = call(randomise(head), features, mask)
    assert np.ptp(expected, axis=0).max(axis=-1).min() > 1e-2  # they do differ at each place
    order = [2, 0, 3, 1]
    longer = np.pad(features, ((0, 0), (0, 5), (0, 0)), constant_values=7.0)
    longer = call(head, longer[order], np.pad(mask, ((0, 0), (0, 5)))[order])
    longer = longer[tuple(map(slice, places_of(head)))]
    assert_rounds_alike(longer, expected[order])
    if masked:
        elsewhere = np.where(mask[..., None], features, 1e3)
        assert_rounds_alike(call(head, elsewhere, mask), expected)
    alone = call(head, features[1:2, :3], mask[1:2, :3])
    first = (slice(1, 2), *[slice(3)] * (len(places_of(head)) - 1))
    assert_rounds_alike(alone, expected[first])


def check_head_config(make, given):
    """Config and weights make the same head; `given` are the arguments that `make` has set."""
    features, mask = head_inputs()
    head = make(name="mine", kernel_initializer="ones")
    head(features, mask)
    randomise(head)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(head)))
    again = keras.saving.deserialize_keras_object(config)
    again(features, mask)
    again.set_weights(head.get_weights())
    np.testing.assert_array_equal(call(again, features, mask), call(head, features, mask))
    assert (type(again), again.name, again.get_config()) == (type(head), "mine", head.get_config())
    assert {name: again.get_config()[name] for name in given} == given
    assert isinstance(again.kernel_initializer, keras.initializers.Ones)


def check_head_training(make, weights, folder):
    """Loss and metrics train all `weights` of a head, and are saved with the model."""
    features, mask = head_inputs()
    inputs = keras.Input((None, D)), keras.Input((None,), dtype="bool")
    head = make()
    model = keras.Model(inputs, head(*inputs))
    options = {"class_weight": range(1, head.units + 1), "label_smoothing": 0.1}
    loss = head.make_loss(**(options if head.task.has_classes else {}))
    metrics = {"weighted_metrics" if head.per_residue else "metrics": head.make_metrics()}
    model.compile(keras.optimizers.SGD(0.1), loss, **metrics)
    targets = targets_for(head)
    head.check_targets([*targets] if head.per_residue else targets)
    of_positions = mask.astype("float32") if head.per_residue else None
    if head.task.per_pair:
        of_positions = of_positions[:, :, None] * of_positions[:, None]
    before = head.get_weights()
    for _ in range(2):  # at first the zero kernel hides the pooling from the loss
        model.train_on_batch((features, mask), targets, of_positions)
    after = head.get_weights()
    assert len(after) == weights
    for old, new in zip(before, after, strict=True):
        assert (old != new).any()
    found = call(head, features, mask)
    model.save(folder / "x.keras")
    loaded = keras.saving.load_model(folder / "x.keras")
    np.testing.assert_array_equal(call(loaded.layers[-1], features, mask), found)
    assert loaded.layers[-1].get_config() == head.get_config()
    assert loaded.loss.get_config() == loss.get_config()
    (metric,) = (
        loaded._compile_metrics._user_weighted_metrics or loaded._compile_metrics._user_metrics
    )
    assert metric.get_config() == head.make_metrics()[0].get_config()
    assert head.make_metrics()[0] is not head.make_metrics()[0]


def check_mixed_precision(make, scale):
    """Outputs, of size `scale`, stay float32 where the rest of the model is bfloat16."""
    features, mask = head_inputs()
    before = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        head = make()
    finally:
        keras.config.set_dtype_policy(before)
    assert head.dtype_policy.name == "mixed_bfloat16"
    head(features, mask)
    randomise(head)
    full = make()
    full(features, mask)
    full.set_weights(head.get_weights())
    found = call(head, ops.cast(features, "bfloat16"), mask)
    assert found.dtype == "float32"
    assert all(v.dtype == "float32" for v in head.weights)
    np.testing.assert_allclose(found, call(full, features, mask), atol=0.05 * scale)
    rounded = ops.convert_to_numpy(ops.cast(ops.cast(found, "bfloat16"), "float32"))
    assert (found != rounded).any()


def check_pooled_features(make, weights):
    """What is pooled already is not pooled again; `weights` of a head that is built on vectors."""
    features, mask = head_inputs()
    head = make()
    head(features, mask)
    randomise(head)
    pooled = features[:, 0] if head.pooling is None else call(head.pooling, features, mask)
    np.testing.assert_array_equal(call(head, pooled), call(head, features, mask))
    fresh = make()
    fresh(pooled)  # the first call, as a node behind one of the pooling
    assert len(fresh.weights) == weights


# Data sets ----------------------------------------------------------------------------------------


def check_data(loaded, name):
    """A data set has three parts without a record in common, targets of its task, and its source.

    Args:
        loaded: A data set of sequences.
        name: The name by which it was loaded.
    """
    assert name in kft.data.names()
    assert loaded.name == name and loaded.input_kind == "sequence"
    assert list(loaded.splits) == ["train", "valid", "test"]
    assert re.fullmatch("[0-9a-f]{64}", loaded.checksum)
    assert loaded.source and loaded.licence and loaded.citation and loaded.notes
    printed = repr(loaded)
    for said in (name, loaded.task, f"test {len(loaded.test):,}", loaded.source, *loaded.notes):
        assert said in printed
    seen = [set(split.inputs) for split in loaded.splits.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == sum(map(len, loaded.splits.values()))
    if loaded.train.groups is not None:
        groups = [set(split.groups) for split in loaded.splits.values()]
        assert sum(map(len, groups)) == len(set.union(*groups))
    for split in loaded.splits.values():
        assert all(isinstance(x, str) and x for x in split.inputs)
        assert isinstance(split.targets, list) == loaded.task.per_residue
        flat = np.concatenate(split.targets) if isinstance(split.targets, list) else split.targets
        if loaded.task.has_classes:
            assert flat.dtype == np.int32
            assert set(flat) == set(range(len(loaded.classes)))  # no part lacks a class
        else:
            assert flat.dtype == np.float64 and np.isfinite(flat).all()


def check_loaded_twice(first, **options):
    """The same options give the same data set again."""
    second = kft.data.load(first.name, **options)
    assert second.checksum == first.checksum and repr(second) == repr(first)
    for one, other in zip(first.splits.values(), second.splits.values(), strict=True):
        assert one.inputs == other.inputs
        np.testing.assert_array_equal(
            np.concatenate([np.atleast_1d(t) for t in one.targets]),
            np.concatenate([np.atleast_1d(t) for t in other.targets]),
        )


def check_scored(data):
    """A data set has a head, and its baselines are fitted and scored by the metrics of its task."""
    head = kft.heads.for_data(data)
    wanted = data.task.outputs(data.train.targets, data.classes)
    assert head.task is data.task and head.units == wanted
    rows = kft.comparison.scoring.baseline_rows(data, resamples=20)
    assert len(rows) > 1 and not any(row.error for row in rows)
    for row in rows:
        assert tuple(row.scores) == data.task.metrics(wanted)


# Encoders -----------------------------------------------------------------------------------------


def check_sequence_encoder(encode, inputs=("ACDEF", "GH", "KLMAAA")):
    """An encoder of sequences states what it takes, and pads and cuts as it states.

    Args:
        encode: A backbone's `encode`.
        inputs: Sequences of unlike lengths.
    """
    inputs = list(inputs)
    info = encoder_info(encode, inputs)
    assert info.input_kind is InputKind.SEQUENCE is kind_of(inputs)
    alone = [encode([x], names=["it"]) for x in inputs]
    for arrays, x in zip(alone, inputs, strict=True):
        for array in arrays.values():
            tokens = array.shape[1]
            assert tokens == len(x) + sum(info.specials)
            assert info.residues(tokens) == slice(info.specials[0], info.specials[0] + len(x))
    together = encode(inputs, pad_lengths=(1, 2, 16, 32))
    assert together.keys() == alone[0].keys()
    for name, array in together.items():
        assert array.shape[:2] == (len(inputs), 16) and array.dtype == alone[0][name].dtype
        for row, one in zip(array, alone, strict=True):
            length = one[name].shape[1]
            np.testing.assert_array_equal(row[:length], one[name][0])
            assert info.pad is None or (row[length:] == info.pad[name]).all()
    cut = encode([x[:4] for x in inputs])
    with kft.training.batching.silent_cuts():
        found = encode(inputs, 4)
    for name, array in found.items():
        np.testing.assert_array_equal(array, cut[name])
