"""kft.fit: phases, optimizer slots, the best weights, the seed, what it says, and linear probes."""

import keras
import numpy as np
import pytest
from keras import ops
from models import esm2, same, values
from parity import assert_rounds_alike
from sklearn.linear_model import LogisticRegression, Ridge
from toy_chains import data_of

import kft
from kft import params
from kft.data import Dataset, Split
from kft.training import strategies
from kft.training.optimizers import Optimizers, WarmupCosine, adamw

pytestmark = pytest.mark.usefixtures("as_written")

RNG = np.random.default_rng(0)
SEQUENCES = ["".join(RNG.choice(list("ACDEFGHIKL"), n)) for n in [6] * 20 + [3, 5, 4, 6]]
TARGETS = np.array([10.0 * s.count("A") + s.count("C") for s in SEQUENCES])
KINDS = np.array([s.count("A") > 0 for s in SEQUENCES]).astype("int32")


def dataset(targets=TARGETS, task="regression", **options):
    parts = [Split(SEQUENCES[i::3], targets[i::3]) for i in range(3)]
    about = {"source": "made up", "licence": "none", "citation": "", "checksum": ""}
    return Dataset("toy", task, *parts, **about, **options)


def make(head=None, **options):
    head = head or kft.heads.Regression(mean=TARGETS.mean(), std=TARGETS.std())
    return kft.Model(esm2(), head)


def phases(*counts):
    """A strategy of phases in which everything learns at a steady rate."""

    class Steady(strategies.Full):
        def phases(self, model):
            return [strategies.Phase("all", None, n, 1e-2, 0.0) for n in counts]

    return Steady()


def steady(_, variables):
    return adamw(1e-2, variables)


@pytest.mark.in_turn("torch")
def test_two_phases_are_one_run_of_the_same_length():
    """Slots and step counts are carried, and so is the order of the batches."""
    runs = []
    for counts in ((2,), (1, 1)):
        model = make()
        done = kft.fit(
            model, (SEQUENCES, TARGETS), phases(*counts), batch_size=12, verbose=0, optimizer=steady
        )
        runs.append((values(model), [row["loss"] for row in done.history]))
        assert [row["epoch"] for row in done.history] == [0, 1]
    assert same(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


def test_unfreezing_keeps_momentum_and_counts_new_weights_from_zero():
    model = make()
    seen = []

    class Watched(Optimizers):
        def next(self, *args):
            optimizer = super().next(*args)
            seen.append(state(optimizer, model))
            return optimizer

        def keep(self):
            super().keep()
            seen.append(state(model.optimizer, model))

    from kft.training import fitting

    original, fitting.Optimizers = fitting.Optimizers, Watched
    try:
        kft.fit(model, (SEQUENCES, TARGETS), "gradual_unfreezing", 2, batch_size=8, verbose=0)
    finally:
        fitting.Optimizers = original
    _, end, begin, last = seen
    carried = [path for path in end if path in begin]
    assert carried and len(begin) > len(end)
    for path in carried:
        assert begin[path][0] == end[path][0] == 3
        np.testing.assert_array_equal(begin[path][1], end[path][1])
        assert np.abs(begin[path][1]).max() > 0
        assert last[path][0] == 6
    for path in begin.keys() - end.keys():
        assert begin[path][0] == 0 and not begin[path][1].any()
        assert last[path][0] == 3


def state(optimizer, model):
    """{path: (steps taken, first slot)} of what an optimizer trains."""
    paths = {id(w.variable): w.path for w in params.weights(model)}
    inner = getattr(optimizer, "optimizers", [optimizer])
    return {
        paths[id(variable)]: (
            int(ops.convert_to_numpy(one.iterations.value)),
            ops.convert_to_numpy(one._momentums[i].value).copy(),
        )
        for one in inner
        if one.built
        for i, variable in enumerate(one._trainable_variables)
    }


@pytest.mark.in_turn("torch")  # scores and weights are kept by numpy
def test_the_best_epoch_on_validation_is_kept():
    model = make()
    data = dataset()
    done = kft.fit(model, data, phases(1, 2), verbose=0, batch_size=4, optimizer=steady)
    losses = [row["val_loss"] for row in done.history]
    assert done.best_epoch == int(np.argmin(losses))
    valid = kft.batches(data.valid, model.encode, 4, None)
    found = model.evaluate(valid, verbose=0, return_dict=True)["loss"]
    assert_rounds_alike(found, min(losses))
    last = kft.fit(
        make(), data, phases(1), verbose=0, batch_size=4, optimizer=steady, keep_best=False
    )
    assert last.best_epoch is None


@pytest.mark.in_turn("torch")  # with dropout on every backend in the tests of resuming
def test_the_seed_is_all_that_is_random():
    runs = []
    for seed in (3, 3, 4):
        head = kft.heads.Regression(mean=TARGETS.mean(), std=TARGETS.std(), dropout=0.3)
        model = make(head)
        kft.fit(model, (SEQUENCES, TARGETS), "full", 1, seed=seed, batch_size=12, verbose=0)
        runs.append(values(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.once
def test_the_frontier_is_used_where_it_pays():
    reasons = {}
    for name, epochs, frontier in (
        ("head_only", 2, "auto"), ("head_only", 1, "auto"), ("full", 2, "auto"),
        ("head_only", 2, False),
    ):  # fmt: skip
        done = kft.fit(
            make(), (SEQUENCES, TARGETS), name, epochs, frontier=frontier, batch_size=8, verbose=0
        )
        reasons[name, epochs, frontier] = done.phases[0].why_not_computed_once
    reasons = list(reasons.values())
    assert reasons[0] is None
    assert reasons[1] == "They would be used for one epoch only."
    assert reasons[2].startswith("Nothing in model is frozen")
    assert reasons[3] == "frontier is False."


@pytest.mark.in_turn("jax")  # compared on every backend in the tests of the frontier
def test_frontier_and_whole_agree():
    predictions = []
    for frontier in (True, False):
        model = make()
        strategy = strategies.get("last_blocks", blocks=1, epochs=2, learning_rate=1e-2)
        kft.fit(model, dataset(), strategy, frontier=frontier, batch_size=4, verbose=0)
        predictions.append(kft.predict(model, SEQUENCES))
    # Four steps of Adam, which divides by the root of a mean square, enlarge the rounding.
    assert_rounds_alike(*predictions, roundings=512)
    with pytest.raises(kft.training.frontier.FrontierError, match="Nothing in model is frozen"):
        kft.fit(make(), dataset(), "full", 2, frontier=True, verbose=0)


@pytest.mark.once
def test_what_it_says_and_reports(capsys):
    model = make()
    done = kft.fit(model, (SEQUENCES, TARGETS), "head_only", 2, batch_size=8, verbose=2)
    out = capsys.readouterr().out
    total = sum(int(np.prod(w.variable.shape)) for w in params.weights(model))
    assert f"Phase 1 of 1, head: 17 of {total:,} parameters are trainable, 2 epochs; frozen" in out
    (phase,) = done.phases
    assert phase.trainable == 17 and phase.parameters == total
    assert 0 < phase.seconds <= done.seconds


def test_a_run_through_a_frozen_weight_that_moves_is_stopped():
    class Vandal(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            bias = self.model.backbone.stages[1].query.bias
            bias.assign(bias + 1.0)

    with pytest.raises(RuntimeError, match="frozen weights moved in training: block_0/query/bias"):
        kft.fit(make(), (SEQUENCES, TARGETS), "head_only", 2, callbacks=[Vandal()], verbose=0)


@pytest.mark.once
def test_bad_arguments():
    with pytest.raises(ValueError, match="frontier must be one of auto, True, False"):
        kft.fit(make(), (SEQUENCES, TARGETS), frontier="yes")
    with pytest.raises(ValueError, match="class_weight must be 'balanced' or numbers"):
        kft.fit(make(), (SEQUENCES, TARGETS), class_weight="even")
    for epochs, rate, message in (
        (0, None, "epochs must be an integer of at least 1, received 0"),
        (2.5, None, "epochs must be an integer of at least 1, received 2.5"),
        (2, -1.0, "learning_rate must be a number above 0, received -1.0"),
        (2, float("nan"), "learning_rate must be a number above 0, received nan"),
    ):
        with pytest.raises(ValueError, match=message):
            kft.fit(make(), (SEQUENCES, TARGETS), "head_only", epochs, learning_rate=rate)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    points = list(np.ones((4, 3), "float32")), np.ones(4)
    with pytest.raises(ValueError, match="has no loss: give `loss`.*; or compile the model"):
        kft.fit(model, points)
    with pytest.raises(ValueError, match="'balanced' needs a kft head with one class per record"):
        kft.fit(model, points, class_weight="balanced", loss="mean_squared_error")
    with pytest.raises(ValueError, match="class_weight and label_smoothing need a kft head and no"):
        kft.fit(model, points, label_smoothing=0.1, loss="mean_squared_error")
    inputs = keras.Input((3,))
    twice = keras.Model(inputs, [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)])
    with pytest.raises(ValueError, match="models with one output, .* has 2: use model.compile"):
        kft.fit(twice, points, loss="mean_squared_error")


@pytest.mark.in_turn("torch")
def test_balanced_class_weights_reach_the_loss():
    rare = (np.arange(len(SEQUENCES)) % 6 == 0).astype("int32")
    recalls = []
    for weight in (None, "balanced"):
        model = make(kft.heads.Classification(2))
        kft.fit(
            model, (SEQUENCES, rare), "full", 5, learning_rate=1e-2, class_weight=weight, verbose=0
        )
        recalls.append(kft.predict(model, SEQUENCES)[:, 1].mean())
    assert recalls[1] > recalls[0] + 0.1


# Learning rates -----------------------------------------------------------------------------------


def test_the_schedule_by_hand():
    schedule = WarmupCosine(2.0, steps=10, warmup=4, begin=100)
    rates = [float(ops.convert_to_numpy(schedule(100 + i))) for i in range(11)]
    np.testing.assert_allclose(rates[:4], [0.5, 1.0, 1.5, 2.0], rtol=1e-6)
    expected = 1 + np.cos(np.pi * np.arange(7) / 6)
    np.testing.assert_allclose(rates[4:], expected, atol=1e-6)
    again = WarmupCosine.from_config(schedule.get_config())
    assert again.get_config() == schedule.get_config()


@pytest.mark.once
def test_schedules_of_earlier_versions_are_read():
    schedule = WarmupCosine(2.0, steps=10, warmup=4)
    stored = keras.saving.serialize_keras_object(schedule)
    stored["module"] = "kft.learning_rates"
    stored["config"]["rate"] = stored["config"].pop("learning_rate")
    found = keras.saving.deserialize_keras_object(stored)
    assert found.get_config() == schedule.get_config()


def test_the_range_test_restores_every_bit():
    model = make(kft.heads.Regression(dropout=0.3))
    kft.freeze(model, "block_0")
    model.compile("adam", "mean_squared_error")
    train = kft.batches((SEQUENCES, TARGETS), model.encode, 8, 0)
    model.fit(train, epochs=1, verbose=0)
    before = [ops.convert_to_numpy(v.value).copy() for v in everything(model)]
    order = [chosen.copy() for chosen in train.record_indices]
    found = kft.find_learning_rate(model, train, steps=20)
    for old, new in zip(before, everything(model), strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new.value))
    assert model.compiled and int(ops.convert_to_numpy(model.optimizer.iterations.value)) == 3
    assert all(np.array_equal(a, b) for a, b in zip(order, train.record_indices, strict=True))
    assert found.learning_rates[0] == 1e-6 and np.all(np.diff(found.learning_rates) > 0)
    assert 1e-6 <= found.suggestion <= found.learning_rates[int(np.argmin(found.smooth))]
    figure, caption = found.plot()
    assert f"{len(found.losses)} steps" in caption and figure.axes


def everything(model):
    return [*model.variables, *model.optimizer.variables]


@pytest.mark.once
def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates = np.geomspace(1e-6, 1.0, 121)
    losses = 2 - 1 / (1 + (3e-3 / rates) ** 2) + (rates / 0.3) ** 4
    found = kft.training.range_test._read(rates, losses + 0.01 * RNG.standard_normal(121))
    assert 2e-3 < found.suggestion < 2e-2  # the average lags behind


@pytest.mark.in_turn("torch")
def test_the_range_test_ends_when_the_loss_has_left_all_bounds():
    model = make()
    train = kft.batches((SEQUENCES, TARGETS), model.encode, 8, 0)
    found = kft.find_learning_rate(
        model, train, smallest=1e-3, largest=1e4, steps=60,
        optimizer=lambda rate, _: keras.optimizers.SGD(rate),
    )  # fmt: skip
    assert len(found.losses) < 60
    rising = "largest must be a number above 1.0, received 0.1"
    few = "steps must be an integer of at least 10, received 3"
    for options, message in (({"smallest": 1.0, "largest": 0.1}, rising), ({"steps": 3}, few)):
        with pytest.raises(ValueError, match=message):
            kft.find_learning_rate(model, train, **options)
    kft.freeze(model)
    with pytest.raises(ValueError, match="No weight of model is trainable"):
        kft.find_learning_rate(model, train)


# Linear probes ------------------------------------------------------------------------------------


def test_a_linear_probe_is_ridge_regression_on_pooled_features():
    model, data = make(), dataset()
    kft.fit(model, data, "linear_probe", verbose=0)
    x = kft.embed(model, data.train.inputs).astype("float64")
    centre, scale = x.mean(0), x.std(0)
    found = []
    mean, std = TARGETS.mean(), TARGETS.std()
    for penalty in kft.training.probing.PENALTIES:
        ridge = Ridge(alpha=penalty * len(x))
        ridge.fit((x - centre) / scale, (data.train.targets - mean) / std)
        answers = [
            ridge.predict((kft.embed(model, part.inputs) - centre) / scale) * std + mean
            for part in (data.valid, data.test)
        ]
        found.append((np.mean((answers[0] - data.valid.targets) ** 2), answers[1]))
    errors = [error for error, _ in found]
    best = next((i for i in range(len(errors) - 1) if errors[i + 1] >= errors[i]), len(errors) - 1)
    probe = kft.predict(model, data.test.inputs)[:, 0]
    np.testing.assert_allclose(probe, found[best][1], atol=1e-3 * std)


def test_a_linear_probe_of_classes_is_logistic_regression():
    model = make(kft.heads.Classification(2))
    data = dataset(KINDS, "classification", classes=("no", "yes"))
    done = kft.fit(model, data, "linear_probe", verbose=0)
    x = kft.embed(model, data.train.inputs).astype("float64")
    probe = kft.predict(model, data.train.inputs)
    z = (x - x.mean(0)) / x.std(0)
    candidates = [
        LogisticRegression(C=1 / (p * len(x)), max_iter=1000).fit(z, data.train.targets)
        for p in kft.training.probing.PENALTIES
    ]
    differences = [np.abs(c.predict_proba(z) - probe).max() for c in candidates]
    assert min(differences) < 1e-4
    assert done.history == [] and done.best_epoch is None


def test_linear_probes_of_residues_and_labels():
    rows = [np.array([c in "AC" for c in s], dtype="int32") for s in SEQUENCES]
    model = make(kft.heads.ResidueClassification(2))
    kft.fit(model, (SEQUENCES, rows), "linear_probe", verbose=0)
    answers = np.concatenate(kft.predict(model, SEQUENCES)).argmax(1)
    assert np.mean(answers == np.concatenate(rows)) > 0.9  # 0.8 do not have them
    labels = np.array([[c in s for c in "ACD"] for s in SEQUENCES]).astype("int32")
    model = make(kft.heads.MultiLabel(3))
    kft.fit(model, (SEQUENCES, labels), "linear_probe", verbose=0)
    assert np.mean((kft.predict(model, SEQUENCES) > 0.5) == labels) > 0.75


@pytest.mark.once
@pytest.mark.parametrize(
    ("head", "data", "message"),
    [
        (
            kft.heads.EsmClassification(2),
            (SEQUENCES, KINDS),
            "a linear head, received EsmClassification",
        ),
        (
            kft.heads.Contacts(),
            data_of("contacts"),
            "a hidden layer .*kft.fit_contacts solves for",
        ),
        (kft.heads.Distogram(), data_of("distogram"), "received Distogram, which has a hidden"),
        (kft.heads.Torsions(), data_of("torsions"), "received Torsions, whose loss has no"),
    ],
)
def test_a_linear_probe_needs_a_linear_head(head, data, message):
    with pytest.raises(ValueError, match=message):
        kft.fit(make(head), data, "linear_probe", verbose=0)


def plain(*last, units=2):
    """A model of three numbers that ends in the layers given."""
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(units), *last])


POINTS = RNG.standard_normal((60, 3)).astype("float32")
SIDES = (POINTS[:, 0] > 0).astype("int32")


@pytest.mark.once
def test_a_softmax_may_be_a_layer_of_its_own():
    model = plain(keras.layers.Softmax())
    kft.fit(
        model, (list(POINTS), SIDES), "linear_probe", verbose=0,
        loss="sparse_categorical_crossentropy",
    )  # fmt: skip
    assert np.mean(kft.predict(model, list(POINTS)).argmax(1) == SIDES) > 0.9


@pytest.mark.once
@pytest.mark.parametrize(
    ("model", "message"),
    [
        (plain(keras.layers.ReLU()), "ends in one Dense layer with a linear, sigmoid or softmax"),
        (plain(), "has 2 linear units and the targets are classes: .* Use a softmax"),
        (plain(keras.layers.Dense(2, use_bias=False)), "sets a bias, which 'dense.*' lacks"),
    ],
)
def test_models_that_a_linear_probe_cannot_solve(model, message):
    before = values(model)
    with pytest.raises(ValueError, match=message):
        kft.fit(
            model, (list(POINTS), SIDES), "linear_probe", verbose=0,
            loss="sparse_categorical_crossentropy",
        )  # fmt: skip
    assert same(before, values(model))


@pytest.mark.once
def test_a_linear_probe_of_one_class_predicts_it_and_numbers_have_no_class_weight():
    model = make(kft.heads.Classification(3))
    kft.fit(model, (SEQUENCES, np.full(len(SEQUENCES), 2)), "linear_probe", verbose=0)
    chances = kft.predict(model, SEQUENCES)
    assert (chances.argmax(1) == 2).all() and (chances[:, :2] < 0.1).all()
    with pytest.raises(ValueError, match="class_weight"):
        kft.fit(make(), (SEQUENCES, TARGETS), "linear_probe", class_weight=[1.0, 2.0], verbose=0)


@pytest.mark.once
def test_a_weighted_label_is_called_more_often():
    labels = np.array([[c in s for c in "AC"] for s in SEQUENCES]).astype("int32")
    means = []
    for weight in (1.0, 50.0):
        model = make(kft.heads.MultiLabel(2))
        kft.fit(model, (SEQUENCES, labels), "linear_probe", class_weight=[1.0, weight], verbose=0)
        means.append(kft.predict(model, SEQUENCES).mean(axis=0))
    assert means[1][1] > means[0][1] + 0.05


# What the head would learn without a word ---------------------------------------------------------

BAD_TARGETS = {
    "a class too many": (lambda: kft.heads.Classification(2), KINDS + 1, "integers from 0 to 1"),
    "classes -1 and 1": (lambda: kft.heads.Classification(2), 2 * KINDS - 1, "from -1 to 1"),
    "numbers for classes": (lambda: kft.heads.Classification(2), TARGETS, "are float64 from"),
    "labels of 3": (lambda: kft.heads.MultiLabel(1), 3 * KINDS[:, None], "integers from 0 to 1"),
    "two numbers": (
        lambda: kft.heads.Regression(), np.stack([TARGETS] * 2, 1), "give targets=2 to the head",
    ),
    "one per record": (lambda: kft.heads.ResidueClassification(2), KINDS, "one target per residue"),
    "none": (lambda: kft.heads.Regression(), None, "have no targets"),
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize("case", BAD_TARGETS)
@pytest.mark.parametrize("name", ["linear_probe", "head_only"])
def test_targets_that_do_not_fit_the_head(case, name):
    head, targets, message = BAD_TARGETS[case]
    with pytest.raises(ValueError, match=message):
        kft.fit(make(head()), (SEQUENCES, targets), name, verbose=0)


@pytest.mark.in_turn("tensorflow")
def test_afterwards_the_model_can_be_trained_evaluated_and_fitted_again():
    model = make()
    kft.fit(model, (SEQUENCES, TARGETS), "linear_probe", verbose=0)
    train = kft.batches((SEQUENCES, TARGETS), model.encode, 8, 0)
    assert model.evaluate(train, verbose=0, return_dict=True)["loss"] > 0
    kft.fit(model, (SEQUENCES, TARGETS), "head_only", 2, batch_size=8, verbose=0)
    before = values(model)
    model.fit(train, epochs=1, verbose=0)  # the schedule that has run out is not in the way
    assert not same(before, values(model))


def test_what_a_plain_model_was_compiled_with_is_kept():
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="out")(hidden))
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    x = list(RNG.standard_normal((200, 3)).astype("float32"))
    y = np.array([v[0] > 0 for v in x]).astype("int32")
    kft.fit(model, (x, y), "linear_probe", verbose=0)
    assert np.mean((kft.predict(model, x)[:, 0] > 0.5) == y) > 0.8
    done = kft.fit(model, (x, y), "head_only", 2, verbose=0)
    assert set(done.history[0]) == {"phase", "epoch", "loss", "accuracy"}


def test_records_of_several_arrays_and_sequential_models():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    hidden = keras.layers.Dense(4, name="hidden")(a + b)
    model = keras.Model({"a": a, "b": b}, keras.layers.Dense(1, name="out")(hidden))
    x = [{"a": v, "b": 2 * v} for v in RNG.standard_normal((80, 3)).astype("float32")]
    y = np.array([v["a"][0] for v in x])
    done = kft.fit(model, (x, y), "head_only", 2, loss="mean_squared_error", verbose=0)
    assert done.phases[0].why_not_computed_once is None
    stack = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    kft.fit(stack, ([v["a"] for v in x], y), "linear_probe", loss="mean_squared_error", verbose=0)
    assert np.corrcoef(kft.predict(stack, [v["a"] for v in x])[:, 0], y)[0, 1] > 0.9


@pytest.mark.once
def test_insisting_on_a_frontier_fails_before_the_first_epoch():
    model = make()
    before = values(model)
    with pytest.raises(kft.training.frontier.FrontierError):
        kft.fit(model, (SEQUENCES, TARGETS), "gradual_unfreezing", 4, frontier=True, verbose=0)
    assert same(before, values(model))


@pytest.mark.in_turn("torch")
def test_divergence_is_said():
    with pytest.warns(UserWarning, match="training has diverged: lower learning_rate"):
        done = kft.fit(
            make(), dataset(), "full", 2, learning_rate=1e30, batch_size=4, verbose=0,
            optimizer=lambda rate, _: keras.optimizers.SGD(rate),
        )  # fmt: skip
    assert done.best_epoch is None and len(done.history) == 2


def test_accumulated_gradients_are_those_of_a_larger_batch():
    """Two batches of two are one of four, also where phases follow each other."""
    rng, targets = np.random.default_rng(3), np.array([1.0, -1.0, 0.5, 2.0])
    records = rng.standard_normal((4, 3)).astype("float32"), targets
    first, ends = rng.standard_normal((3, 1)), []
    for steps, batch_size in ((None, 4), (2, 2)):
        x = keras.Input((3,))
        model = keras.Model(x, keras.layers.Dense(1, name="only")(x))
        model.get_layer("only").kernel.assign(first)
        kft.fit(
            model,
            records,
            phases(2, 1),
            batch_size=batch_size,
            loss="mse",
            verbose=0,
            optimizer=lambda rate, variables, steps=steps: keras.optimizers.Adam(
                0.1, gradient_accumulation_steps=steps
            ),
        )
        ends.append(values(model))
    assert ends[0].keys() == ends[1].keys()
    for path, expected in ends[0].items():
        assert_rounds_alike(ends[1][path], expected, what=path)
    assert np.abs(ends[0]["only/kernel"] - first).max() > 0.2  # three steps, not six or none
