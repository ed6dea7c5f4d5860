"""A backbone, a head, a data set and a strategy from outside of kft pass what kft's own pass."""

from dataclasses import dataclass

import contracts
import extensions
import keras
import numpy as np
import pytest
from extensions.toy_backbone import ToyBackbone, encode
from extensions.toy_data import load_toy_counts
from extensions.toy_head import CountHead
from extensions.toy_strategy import ToyNorms
from models import in_turn, perturb, perturb_adapters

import kft

pytestmark = pytest.mark.usefixtures("as_written", "registered")

DATA = load_toy_counts(64)
SEQUENCES = DATA.test.inputs
EVERYTHING = {"table", "block_0", "block_1", "norm", "head"}


@pytest.fixture(autouse=True)
def registered():
    with extensions.registered():
        yield


def make(pooling="mean", **options):
    """The toy head on the toy backbone, with random weights."""
    backbone = kft.backbones.randomised(ToyBackbone(**options), 0)
    return kft.Model(backbone, CountHead(pooling, kernel_initializer="glorot_uniform"))


def with_lora(model):
    """Two adapters that are not zero, the second of which is active."""
    kft.add_lora(model, rank=2, name="first")
    kft.add_lora(model, rank=3, name="second", bias="lora_only")
    return perturb(model, 0.1)


def part_frozen(model, frozen=("table", "block_0")):
    kft.freeze(model, list(frozen))
    return model


def merged(model):
    kft.merge_lora(model)
    return model


MODELS = {
    "backbone": lambda: part_frozen(make().backbone),
    "model": lambda: part_frozen(make("attention")),
    "lora backbone": lambda: with_lora(part_frozen(make().backbone)),
    "lora": lambda: with_lora(part_frozen(make())),
    "merged": lambda: merged(with_lora(make())),
    "kft's head": lambda: part_frozen(kft.Model(make().backbone, kft.heads.Classification(2))),
}


# The backbone -------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("name", MODELS)
def test_copies(name, tmp_path):
    model = MODELS[name]()
    for way in contracts.WAYS:
        contracts.check_copy(model, way, tmp_path)


@pytest.mark.parametrize("name", in_turn(["lora backbone", "model", "merged"]))
def test_copies_on_every_backend(name, tmp_path):
    model = MODELS[name]()
    for way in (contracts.clone_with_function, contracts.deepcopy, contracts.weights_file):
        contracts.check_copy(model, way, tmp_path)


@pytest.mark.once
def test_the_backbone_is_found_by_name():
    assert kft.backbones.names()[-2:] == ["toy_8", "toy_16"]
    one, two = (kft.load("toy_16", weights=False, seed=seed) for seed in (0, 1))
    assert (type(one), one.width, one.name) == (ToyBackbone, 16, "toy_16")
    assert [stage.name for stage in one.stages] == ["table", "block_0", "block_1", "norm"]
    assert not contracts.same(contracts.values(one), contracts.values(two))
    with pytest.raises(ValueError, match="toy_8 has no published weights"):
        kft.load("toy_8")


@pytest.mark.parametrize(
    ("trained", "cut"),
    in_turn(
        [("head", 5), (["norm", "head"], 4), (["block_1", "norm", "head"], 3), (["block_0"], 2)]
    ),
)
def test_the_frozen_frontier(trained, cut):
    model = make("attention")
    kft.train_only(model, trained)
    contracts.check_split(model, encode(SEQUENCES))


@pytest.mark.once
def test_the_encoder():
    contracts.check_sequence_encoder(encode)
    with pytest.raises(ValueError, match=r"inputs\[1\] must have letters A to Z only"):
        kft.predict(make(), ["ACD", "A-D"])
    assert kft.embed(make().backbone, SEQUENCES).shape == (len(SEQUENCES), 8)


# Adapters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", in_turn([{}, {"targets": "all-linear", "bias": "all"}, {"dora": True}])
)
def test_the_base_is_kept(options):
    contracts.check_base_is_kept(make(), encode(SEQUENCES), **options)


@pytest.mark.in_turn("jax")
def test_adapters_are_trained_and_written(tmp_path):
    model, again = make(), make()
    assert kft.add_lora(model, 2) == ["block_0", "block_1"]
    perturb_adapters(model)
    contracts.check_adapter_training(model, DATA, tmp_path, rank=2)
    contracts.check_adapter_file(model, again, encode(SEQUENCES), tmp_path / "adapter")


# The head -----------------------------------------------------------------------------------------

every_pooling = pytest.mark.parametrize("pooling", in_turn(["mean", "attention", "max"]))


@every_pooling
def test_the_head(pooling, tmp_path):
    def made(**options):
        return CountHead(pooling, **options)

    contracts.check_prior(made, [1.0])
    contracts.check_padding(made)
    contracts.check_head_config(made, {"pooling": pooling})
    contracts.check_head_training(made, 2 + (pooling == "attention"), tmp_path)
    contracts.check_mixed_precision(made, 10.0)
    contracts.check_pooled_features(made, 2)


@every_pooling
def test_padding_changes_no_prediction(pooling):
    contracts.check_padded_records(make(pooling), ["ACDEG", "K", "LLKKAACDE"])


@pytest.mark.once
def test_what_the_head_is_asked():
    model = make()
    with pytest.raises(ValueError, match="Counts have no classes"):
        kft.fit(model, DATA, "head_only", class_weight=[1.0], verbose=0)
    with pytest.raises(ValueError, match="CountHead predicts 1 number; the targets .* 2 each"):
        kft.fit(model, (SEQUENCES, np.ones((len(SEQUENCES), 2))), "head_only", verbose=0)
    with pytest.raises(ValueError, match="needs a linear head, received CountHead"):
        kft.fit(model, DATA, "linear_probe", verbose=0)
    with pytest.raises(ValueError, match="Wrong.task must be one of classification, .* 'count'"):
        type("Wrong", (kft.heads.Head,), {"task": "count"})


@pytest.mark.once
def test_a_head_that_computes_more_is_not_solved_for():
    class Twice(kft.heads.Regression):
        def call(self, features, position_mask=None, training=None):
            return 2.0 * super().call(features, position_mask, training)

    model = kft.Model(ToyBackbone(), Twice())
    with pytest.raises(ValueError, match="needs a linear head, received Twice"):
        kft.fit(model, DATA, "linear_probe", verbose=0)


@pytest.mark.once
def test_any_layer_is_a_head():
    """Also one whose attribute `pooling` is not one of kft."""

    class Plain(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.pooling, self.dense = keras.layers.GlobalMaxPooling1D(), keras.layers.Dense(1)

        def call(self, features, position_mask=None):
            return self.dense(self.pooling(features))

    model = kft.Model(ToyBackbone(), Plain(name="head"))
    done = kft.fit(model, DATA, "toy_norms", epochs=2, loss="mse", verbose=0)
    assert np.isfinite(done.history[-1]["loss"])


# The data set -------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("options", [{}, {"records": 64, "seed": 3}])
def test_the_data_set(options):
    data = kft.data.load("toy_counts", **options)
    contracts.check_data(data, "toy_counts")
    contracts.check_loaded_twice(data, **options)
    contracts.check_scored(data)
    assert data.train.groups is not None


@pytest.mark.once
def test_what_can_be_registered_as_a_data_set():
    assert "toy_counts" in kft.data.names()
    kft.data.register("toy_counts")(load_toy_counts)  # a cell of a notebook that is run twice
    with pytest.raises(TypeError, match="'toy_counts' has no option 'crop'; .* records, seed"):
        kft.data.load("toy_counts", crop=True)
    taken = r"name 'amp' belongs to the data set kft\.data\.proteins\.amp\.load_amp: choose"
    with pytest.raises(ValueError, match=taken):
        kft.data.register("amp")(load_toy_counts)
    with pytest.raises(TypeError, match="is registered as a function that returns .* received 3"):
        kft.data.register("three")(3)
    with pytest.raises(ValueError, match="received 'toy_count'. Did you mean 'toy_counts'"):
        kft.data.unregister("toy_count")
    kft.data.register("nothing")(lambda: None)
    try:
        with pytest.raises(TypeError, match="'nothing', must return a kft.data.Dataset, .*None"):
            kft.data.load("nothing")
    finally:
        kft.data.unregister("nothing")
    assert "nothing" not in kft.data.names()


# The strategy -------------------------------------------------------------------------------------

FROZEN = ["table", "block_0", "block_1"]


@pytest.mark.in_turn("tensorflow")
def test_the_strategy(tmp_path):
    strategy = kft.strategies.get("toy_norms", epochs=3)
    assert strategy == ToyNorms(3) and kft.strategies.name_of(strategy) == "toy_norms"
    phases = contracts.check_phases(strategy, part_frozen(make()))
    assert [phase.epochs for phase in phases] == [1, 2]
    done = contracts.check_training(strategy, make(), DATA, FROZEN, tmp_path)
    assert [phase.trainable for phase in done.phases] == [9, 25]


@pytest.mark.in_turn("torch")
def test_norms_are_trained_alone(tmp_path):
    """Nothing of what the optimizer trains has a weight decay."""

    @dataclass(frozen=True)
    class NormsAlone(kft.strategies.Strategy):
        epochs: int = 2

        def phases(self, model):
            return [kft.strategies.Phase("norms", ("norm",), self.epochs, 1e-2)]

    contracts.check_training(NormsAlone(), make(), DATA, [*FROZEN, "head"], tmp_path)


@pytest.mark.in_turn("torch")  # on three backends in the tests of strategies
@pytest.mark.parametrize("name", ["last_blocks", "gradual_unfreezing", "lora", "full"])
def test_strategies_of_kft_on_the_toy_backbone(name, tmp_path):
    options = {"last_blocks": {"blocks": 1}}.get(name, {})
    strategy = kft.strategies.get(name, epochs=4, learning_rate=1e-2, **options)
    frozen = {"last_blocks": FROZEN[:2], "lora": [*FROZEN, "norm"]}.get(name, [])
    contracts.check_training(strategy, make(), DATA, frozen, tmp_path)


@pytest.mark.once
def test_from_scratch_is_drawn_again():
    contracts.check_phases(kft.strategies.get("from_scratch"), make(), copies=True)


# All in one comparison ----------------------------------------------------------------------------


def compared(folder, backbone=None, **options):
    backbone = backbone or kft.load("toy_8", weights=False)
    options = {"seeds": 1, "epochs": 2, "resamples": 20, "verbose": False, **options}
    return kft.compare(
        backbone, "toy_counts", ["toy_norms", "lora"], head=lambda data: CountHead(), out=folder,
        **options,
    )  # fmt: skip


@pytest.mark.once
def test_all_in_one_comparison(tmp_path):
    backbone = kft.load("toy_8", weights=False)
    before = kft.fingerprint(backbone, None)
    found = compared(tmp_path, backbone)
    assert kft.fingerprint(backbone, None) == before
    assert all(layer.trainable for layer in backbone.layers)
    assert found.data == "toy_counts" and found.metric == "Spearman"
    assert [row.name for row in found.rows] == [
        "mean", "composition", "3-mers", "toy_norms", "lora", "from_scratch",
        "toy_norms, shuffled labels",
    ]  # fmt: skip
    assert not any(row.error for row in found.rows)
    rows = {row.name: row for row in found.rows}
    assert rows["toy_norms"].trainable == 25
    assert "toy_norms" in str(found) and (tmp_path / "toy_counts.csv").exists()


@pytest.mark.once
def test_a_training_is_kept_until_the_code_changes(tmp_path, monkeypatch):
    trained = []
    train = kft.comparison.study.train
    monkeypatch.setattr(
        kft.comparison.study, "train", lambda *args: trained.append(args) or train(*args)
    )
    for count in (3, 3):
        compared(tmp_path, controls=False)
        assert len(trained) == 2, count
    source = kft.comparison.study.inspect.getsource
    changed = {}
    for kind in (CountHead, ToyBackbone, encode):
        changed[kind] = f"{source(kind)}\n# changed"
        monkeypatch.setattr(
            kft.comparison.study.inspect, "getsource", lambda x: changed.get(x) or source(x)
        )
        compared(tmp_path, controls=False)
    assert len(trained) == 2 + 3 * 2


@pytest.mark.once
def test_the_files_are_short():
    """They are what the page on extending kft shows."""
    folder = extensions.toy_head.__file__.rpartition("/")[0]
    for name in ("toy_backbone", "toy_head", "toy_data", "toy_strategy"):
        with open(f"{folder}/{name}.py", encoding="utf-8") as file:
            assert len(file.readlines()) <= 90
