"""Each strategy, on each backend, changes exactly the weights that it says, and says why."""

from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np
import pytest
from contracts import check_phases, check_training
from keras import layers, ops
from models import esm2, in_turn, moved, same, values
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


@pytest.mark.parametrize("name", in_turn(FROZEN, ["lora"]))
def test_exactly_what_it_says_changes(name, tmp_path):
    model = make()
    strategy = strategies.get(name, **OPTIONS.get(name, {}))
    options = {} if name == "linear_probe" else {"epochs": 3, "learning_rate": 1e-2}
    data = SEQUENCES, TARGETS
    done = check_training(strategy, model, data, FROZEN[name], tmp_path, batch_size=16, **options)
    assert done.strategy == strategies.get(name, **OPTIONS.get(name, {}), **changed(strategy))
    assert (done.model is model) == (name != "from_scratch")


def changed(strategy):
    return (
        {}
        if isinstance(strategy, strategies.LinearProbe)
        else {"epochs": 3, "learning_rate": 1e-2}
        | ({"seed": 0} if hasattr(strategy, "seed") else {})
    )


@pytest.mark.once
@every_strategy
def test_each_has_defaults(name):
    strategy = strategies.get(name)
    phases = check_phases(strategy, make(), name == "from_scratch", name == "lora")
    assert all(phase.epochs >= 1 for phase in phases) or name == "linear_probe"


@pytest.mark.once
def test_gradual_unfreezing_adds_a_block_per_phase():
    model = make(blocks=3)
    phases = strategies.get("gradual_unfreezing", epochs=7).phases(model)
    added = [set(b.trainable_layers) - set(a.trainable_layers) for a, b in pairwise(phases)]
    assert phases[0].trainable_layers == ("head",)
    assert added == [{"block_2", "final_norm"}, {"block_1"}, {"block_0"}, {"embedding"}]
    assert [phase.epochs for phase in phases] == [1, 1, 1, 1, 3]
    assert {w.path.split("/")[0] for w in params.weights(model) if w.trainable} == {
        *STAGES,
        "block_2",
    }
    phases[0].mark(model)
    assert {w.path.split("/")[0] for w in params.weights(model) if w.trainable} == {"head"}
    few = strategies.get("gradual_unfreezing", epochs=2).phases(model)
    assert [phase.epochs for phase in few] == [1, 1]
    assert set(few[1].trainable_layers) == {*STAGES, "block_2"}


@pytest.mark.once
def test_rates_fall_with_the_distance_from_the_head():
    model = make(blocks=3)
    multipliers = {"block_0": 3.0, "head": 2.0}
    strategy = strategies.get("full", layer_decay=0.5, learning_rate_multipliers=multipliers)
    (phase,) = strategy.phases(model)
    rates = {path: phase.learning_rate_multipliers.get(path, 1.0) for path in values(model)}
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
        strategy = strategies.get(
            "full", epochs=1, learning_rate=1e-3, warmup=0.0, layer_decay=decay
        )
        kft.fit(
            model, (SEQUENCES, TARGETS), strategy, batch_size=16, verbose=0,
            optimizer=lambda rate, _: keras.optimizers.SGD(rate),
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
    [
        pytest.param("linear_probe", marks=pytest.mark.in_turn("jax")),
        pytest.param("head_only", marks=pytest.mark.long),
        pytest.param("last_blocks", marks=pytest.mark.in_turn("tensorflow")),
        pytest.param("full", marks=pytest.mark.in_turn("torch")),
    ],
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
    with pytest.raises(ValueError, match="full has no option .block.; it has epochs, "):
        strategies.get("full", block=2)
    with pytest.raises(ValueError, match="blocks must be 1 to 2 for model, received 3"):
        strategies.get("last_blocks", blocks=3).phases(make())
    with pytest.raises(ValueError, match="epochs must be an integer of at least 1"):
        strategies.get("gradual_unfreezing", epochs=0).phases(make())
    model = make()
    for ratio in (0, -1.0, float("nan"), "16"):
        with pytest.raises(ValueError, match=f"_lr_ratio must be a number above 0, .* {ratio!r}"):
            strategies.get("lora", loraplus_lr_ratio=ratio).prepare(model)
    assert not kft.lora.names(model)
    with pytest.raises(ValueError, match="LinearProbe takes no epochs"):
        kft.fit(make(), (SEQUENCES, TARGETS), "linear_probe", 3)


def test_from_scratch_draws_by_its_seed_and_from_nothing_else():
    model = make(kft.heads.Regression(kernel_initializer="glorot_uniform"))
    one, two, three = (
        values(strategies.get("from_scratch", seed=seed).prepare(model)) for seed in (1, 1, 2)
    )
    assert same(one, two)
    assert moved(one, three) == STAGES - {"final_norm"}
    scratch = values(esm2(2, seed=1))
    assert all(np.array_equal(one[path], value) for path, value in scratch.items())


# Asking changes nothing ---------------------------------------------------------------------------


@pytest.mark.once
@every_strategy
def test_phases_change_nothing(name):
    strategy = strategies.get(name, **OPTIONS.get(name, {}))
    given = make()
    kft.freeze(given, "block_0")
    check_phases(strategy, given, name == "from_scratch", name == "lora")


@pytest.mark.once
def test_adapters_of_other_settings_are_an_error():
    """What is trained is what the record says, whoever has added the adapters."""
    model = make()
    with pytest.raises(ValueError, match="has no adapters: call strategy.prepare"):
        strategies.get("lora").phases(model)
    rank_2 = strategies.get("lora", rank=2)
    assert rank_2.prepare(model) is model
    paths = [w.path for w in params.weights(model)]
    for other in (
        {"rank": 8}, {"rank": 2, "alpha": 4}, {"rank": 2, "dropout": 0.5},
        {"rank": 2, "targets": ["query"]}, {"rank": 2, "rslora": True}, {"rank": 2, "dora": True},
        {"rank": 2, "bias": "lora_only"}, {"rank": 2, "bias": "all"},
    ):  # fmt: skip
        strategy = strategies.get("lora", **other)
        with pytest.raises(ValueError, match=r"asks for adapters of rank=.*'default'.* has rank=2"):
            run(model, strategy)
        with pytest.raises(ValueError, match="call kft.fit without a strategy"):
            strategy.phases(model)
    assert [w.path for w in params.weights(model)] == paths
    before = values(model)
    done = run(model, rank_2)
    assert done.strategy.rank == 2 and done.model is model
    assert moved(before, values(model)) >= {"block_0", "block_1", "head"}
    assert [w.path for w in params.weights(model)] == paths


@pytest.mark.once
def test_the_adapter_that_is_active_is_compared():
    model = make()
    kft.add_lora(model, rank=2, name="small")
    kft.add_lora(model, rank=4, bias="all", name="large")
    strategies.get("lora", rank=4, bias="all").phases(model)
    kft.lora.use(model, "small")
    strategies.get("lora", rank=2).phases(model)
    with pytest.raises(ValueError, match="the adapter 'small' of model has rank=2, alpha=16 on"):
        strategies.get("lora", rank=4, bias="all").phases(model)
    kft.unfreeze(model, "block_1/key")  # in full the adapter's own: no setting of the strategy
    strategies.get("lora", rank=2).phases(model)
    kft.lora.use(model, None)
    with pytest.raises(ValueError, match="are not active or are merged"):
        strategies.get("lora", rank=2).prepare(model)


# Strategies of one's own --------------------------------------------------------------------------


@dataclass(frozen=True)
class Biases(strategies.Strategy):
    """The head first, then the biases of one layer with it."""

    layer: str = "query"
    epochs: int = 2
    learning_rate: float = 1e-2

    def phases(self, model):
        found = [path for path, _ in params.find(model, self.layer)]
        return [
            strategies.Phase("head", ("head",), 1, self.learning_rate),
            strategies.Phase("more", ("head", *found), self.epochs - 1, self.learning_rate),
        ]


@pytest.fixture
def registered():
    strategies.register("biases")(Biases)
    yield "biases"
    strategies.unregister("biases")


@pytest.mark.once
def test_a_strategy_of_ones_own_is_found_by_its_name(registered, tmp_path):
    assert strategies.names()[-1] == "biases"
    assert strategies.get("biases", layer="value") == Biases("value")
    assert strategies.name_of(Biases()) == "biases"
    model = make()
    before = values(model)
    done = run(model, "biases")
    assert [phase.name for phase in done.phases] == ["head", "more"]
    assert done.phases[0].trainable < done.phases[1].trainable
    assert moved(before, values(model)) == {"block_0", "block_1", "head"}
    part = kft.data.Split(SEQUENCES, TARGETS)
    about = {"source": "", "licence": "", "citation": "", "checksum": ""}
    data = kft.data.Dataset("toy", "regression", part, part, part, **about)
    options = {"seeds": 1, "epochs": 2, "controls": False, "resamples": 20, "verbose": False}
    found = kft.compare(esm2(2), data, ["biases", Biases("value")], out=tmp_path, **options)
    assert [row.name for row in found.rows][-2:] == ["biases", "biases(layer='value')"]
    assert all(row.error is None for row in found.rows)


@pytest.mark.once
def test_what_can_be_registered(registered):
    strategies.register("biases")(Biases)  # again, as a cell of a notebook that is run twice
    with pytest.raises(ValueError, match="name 'biases' belongs to the strategy test_strategies"):
        strategies.register("biases")(strategies.Full)
    with pytest.raises(TypeError, match="must be a name .* or a dataclass derived from"):
        strategies.register("more")(dict)
    with pytest.raises(ValueError, match="Unknown strategy 'nothing'"):
        strategies.unregister("nothing")
    with pytest.raises(TypeError, match=r"received the class Full: write Full\(\)"):
        run(make(), strategies.Full)
    with pytest.raises(TypeError, match="must be a name .* or a dataclass derived from"):
        run(make(), lambda model: [])
    with pytest.raises(NotImplementedError, match="Strategy must define phases"):
        strategies.Strategy().phases(make())
