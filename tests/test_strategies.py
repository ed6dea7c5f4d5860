"""Each strategy, on each backend, changes exactly the weights that it says, and says why."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import esm2, moved, same, values
from parity import EPSILON

import kft
from kft import params
from kft.training import strategies

pytestmark = pytest.mark.usefixtures("as_written")

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACDEFGHIKL"), n)) for n in [6] * 12 + [3, 5, 4, 6]]
TARGETS = np.array([10.0 * s.count("A") + s.count("C") for s in SEQUENCES])
STAGES = {"embedding", "block_0", "block_1", "final_norm", "head"}

# What each strategy leaves as it was, by stage: those named at the end of training.
BELOW_THE_HEAD = ["embedding", "block_0", "block_1", "final_norm"]
FROZEN = {
    "from_scratch": [],
    "linear_probe": BELOW_THE_HEAD,
    "head_only": BELOW_THE_HEAD,
    "last_blocks": ["embedding", "block_0"],
    "gradual_unfreezing": [],
    "lora": BELOW_THE_HEAD,  # what was there before; the adapters are new
    "full": [],
}
OPTIONS = {"last_blocks": {"blocks": 1}}
every_strategy = pytest.mark.parametrize("name", FROZEN)


def make(head=None, blocks=2):
    head = head or kft.heads.Regression(mean=TARGETS.mean(), std=TARGETS.std())
    return kft.Model(esm2(blocks), head)


def run(model, name, **options):
    if not isinstance(name, strategies.LinearProbe):
        options = {"epochs": 3, "learning_rate": 1e-2, "keep_best": False, **options}
    return kft.fit(model, (SEQUENCES, TARGETS), name, batch_size=8, verbose=0, **options)


@every_strategy
def test_exactly_what_it_says_changes(name, tmp_path):
    model = make()
    before = values(model)
    strategy = strategies.get(name, **OPTIONS.get(name, {}))
    done = run(model, strategy)
    assert done.strategy == strategies.get(name, **OPTIONS.get(name, {}), **changed(strategy))
    after = values(done.model)
    assert before.keys() == {path for path in after if "/lora_" not in path}
    assert moved(before, after) == STAGES - set(FROZEN[name])
    if name == "from_scratch":
        assert done.model is not model
        assert same(before, values(model))
        return
    assert done.model is model
    frozen = {w.path.split("/")[0] for w in params.weights(model) if w.frozen}
    assert frozen == set(FROZEN[name])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert kft.fingerprint(loaded) == kft.fingerprint(model)
    assert kft.fingerprint(loaded, trainable=None) == kft.fingerprint(model, trainable=None)
    assert ["/".join(p) for p in flags(loaded)] == ["/".join(p) for p in flags(model)]


def changed(strategy):
    return (
        {}
        if isinstance(strategy, strategies.LinearProbe)
        else {"epochs": 3, "rate": 1e-2} | ({"seed": 0} if hasattr(strategy, "seed") else {})
    )


def flags(model):
    return [(w.path, str(w.frozen)) for w in params.weights(model)]


@pytest.mark.once
@every_strategy
def test_each_has_defaults(name):
    phases = strategies.get(name)(make())
    assert phases[0].model.trainable_variables
    assert all(phase.epochs >= 1 for phase in phases) or name == "linear_probe"


@pytest.mark.once
def test_gradual_unfreezing_adds_a_block_per_phase():
    model = make(blocks=3)
    phases = strategies.get("gradual_unfreezing", epochs=7)(model)
    added = [set(b.learns) - set(a.learns) for a, b in pairwise(phases)]
    assert phases[0].learns == ("head",)
    assert added == [{"block_2", "final_norm"}, {"block_1"}, {"block_0"}, {"embedding"}]
    assert [phase.epochs for phase in phases] == [1, 1, 1, 1, 3]
    assert {w.path.split("/")[0] for w in params.weights(model) if w.trainable} == {"head"}
    few = strategies.get("gradual_unfreezing", epochs=2)(model)
    assert [phase.epochs for phase in few] == [1, 1]
    assert set(few[1].learns) == {*STAGES, "block_2"}


@pytest.mark.once
def test_rates_fall_with_the_distance_from_the_head():
    model = make(blocks=3)
    (phase,) = strategies.get("full", layer_decay=0.5, rates={"block_0": 3.0, "head": 2.0})(model)
    rates = {path: phase.factors.get(path, 1.0) for path in values(model)}
    assert rates["head/dense/kernel"] == 2.0
    assert rates["final_norm/gamma"] == rates["block_2/query/kernel"] == 0.5
    assert rates["block_1/key/bias"] == 0.25
    assert rates["block_0/value/kernel"] == 3.0 * 0.125
    assert rates["embedding/tokens/embeddings"] == 0.0625


def test_layer_wise_rates_move_weights_as_told():
    """One step of plain gradient descent moves each weight by its own rate."""
    steps = {}
    for decay in (1.0, 0.5):
        # The mean over a normalised vector is zero: a head of ones would send no gradient down.
        draw = keras.initializers.RandomNormal(stddev=0.5, seed=1)
        model = make(kft.heads.Regression(kernel_initializer=draw))
        before = values(model)
        strategy = strategies.get("full", epochs=1, rate=1e-3, warmup=0.0, layer_decay=decay)
        kft.fit(
            model, (SEQUENCES, TARGETS), strategy, batch_size=16, verbose=0,
            make=lambda schedule, _: keras.optimizers.SGD(schedule),
        )  # fmt: skip
        after = values(model)
        steps[decay] = {path: after[path] - before[path] for path in before}
    depth = {"head": 0, "final_norm": 1, "block_1": 1, "block_0": 2, "embedding": 3}
    for path, step in steps[1.0].items():
        if "key/bias" not in path:  # its gradient is zero
            largest, rate = np.abs(step).max(), 0.5 ** depth[path.split("/")[0]]
            assert largest > 1e-4, path
            # A gradient rounds by its largest, and a weight when the step is added to it.
            allowed = EPSILON * (64 * rate * largest + 2 * np.abs(before[path]).max() + largest)
            np.testing.assert_allclose(steps[0.5][path], rate * step, atol=allowed, err_msg=path)


def convolutional():
    x = images = keras.Input((8, 8, 1), name="images")
    for i in range(2):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name=f"conv_{i}")(x)
        x = layers.BatchNormalization(momentum=0.5, name=f"norm_{i}")(x)
        x = layers.Dropout(0.2, name=f"dropout_{i}")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(images, layers.Dense(2, activation="softmax", name="out")(x))
    rng = np.random.default_rng(0)
    for weight in params.weights(model):
        if "kernel" in weight.path:
            value = rng.standard_normal(weight.variable.shape) / 3
            weight.variable.assign(value.astype("float32"))
    return model


def pictures(n=32):
    rng = np.random.default_rng(1)
    kinds = np.arange(n) % 2
    images = rng.random((n, 8, 8, 1), dtype="float32") * 0.2
    images[:, :, :4] += kinds[:, None, None, None]
    return list(images), kinds


@pytest.mark.parametrize(
    "name",
    ["linear_probe", pytest.param("head_only", marks=pytest.mark.long), "last_blocks", "full"],
)
def test_any_functional_model_with_its_statistics(name):
    model = convolutional()
    before = values(model)
    options = {"epochs": 10 if name == "full" else 1, "learning_rate": 0.05}
    options = {} if name == "linear_probe" else options
    strategy = strategies.get("last_blocks", blocks=1) if name == "last_blocks" else name
    kft.fit(
        model, pictures(), strategy, loss="sparse_categorical_crossentropy", metrics=["accuracy"],
        batch_size=16, verbose=0, **options,
    )  # fmt: skip
    expected = {
        "linear_probe": {"out"},
        "head_only": {"out"},
        "last_blocks": {"conv_1", "norm_1", "out"},
        "full": {"conv_0", "norm_0", "conv_1", "norm_1", "out"},
    }
    assert moved(before, values(model)) == expected[name]
    images, kinds = pictures()
    answers = ops.convert_to_numpy(model(np.stack(images)))
    if name in ("linear_probe", "full"):
        assert np.mean(answers.argmax(1) == kinds) > 0.9


@pytest.mark.once
def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="Did you mean 'head_only'.*from_scratch, linear_probe"):
        strategies.get("head_onyl")
    with pytest.raises(ValueError, match="full has no option 'block'; it has epochs, rate"):
        strategies.get("full", block=2)
    with pytest.raises(ValueError, match="blocks must be 1 to 2 for model, received 3"):
        strategies.get("last_blocks", blocks=3)(make())
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        strategies.get("gradual_unfreezing", epochs=0)(make())
    model = make()
    for ratio in (0, -1.0, float("nan"), "16"):
        with pytest.raises(ValueError, match=f"b_ratio must be a number above 0, .* {ratio!r}"):
            strategies.get("lora", b_ratio=ratio)(model)
    assert not kft.lora.names(model)
    with pytest.raises(ValueError, match="LinearProbe trains in closed form and takes no epochs"):
        kft.fit(make(), (SEQUENCES, TARGETS), "linear_probe", 3)


def test_from_scratch_draws_by_its_seed_and_from_nothing_else():
    model = make(kft.heads.Regression(kernel_initializer="glorot_uniform"))
    one, two, three = (
        values(strategies.get("from_scratch", seed=seed)(model)[0].model) for seed in (1, 1, 2)
    )
    assert same(one, two)
    assert moved(one, three) == STAGES - {"final_norm"}
    scratch = values(esm2(2, seed=1))
    assert all(np.array_equal(one[path], value) for path, value in scratch.items())
