"""One contract for every head with every pooling, and what sets them apart."""

from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import references
import torch
from contracts import (
    LENGTHS,
    B,
    D,
    call,
    check_head_config,
    check_head_training,
    check_mixed_precision,
    check_padding,
    check_pooled_features,
    check_prior,
    head_inputs,
    randomise,
)
from keras import ops
from models import in_turn
from parity import assert_parity, assert_rounds_alike
from transformers import EsmForSequenceClassification, EsmForTokenClassification

import kft
from kft.backbones.esm2.model import ESM2
from kft.models import heads
from kft.models.heads import POOLINGS, Classification, Pooling, Regression

POOLED = {  # class, arguments, what an untrained head answers, the scale of the answers
    "classification": ("Classification", {"classes": 3}, [1 / 3] * 3, 1.0),
    "multi-label": ("MultiLabel", {"labels": 2}, [0.5] * 2, 1.0),
    "regression": ("Regression", {"targets": 2, "mean": [310.0, -1.0], "std": [9.0, 2.0]},
                   [310.0, -1.0], 9.0),
}  # fmt: skip
OTHERS = {
    "residue classes": ("ResidueClassification", {"classes": 3}, [1 / 3] * 3, 1.0),
    "residue numbers": ("ResidueRegression", {"targets": 2, "mean": 1.0, "std": [3.0, 1.0]},
                        [1.0, 1.0], 3.0),
    "torsions": ("Torsions", {"mean": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]},
                 [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], 5.0),
    "contacts": ("Contacts", {"width": 4, "prior": [[0.25, 0.75]] * 101}, [0.25, 0.75], 1.0),
    "distogram": ("Distogram", {"classes": 5, "width": 4, "seed": 2}, [0.2] * 5, 1.0),
    "esm": ("EsmClassification", {"classes": 3, "dropout": 0.1, "seed": 3}, [1 / 3] * 3, 1.0),
    "esm tokens": ("EsmTokenClassification", {"classes": 3, "dropout": 0.1}, [1 / 3] * 3, 1.0),
}  # fmt: skip
HEADS = POOLED | OTHERS

# Each kind and each pooling; a head leaves pooling to `Pooling`, so the rest is the long form.
FEW = [("classification", "mean"), ("classification", "max"), ("multi-label", "cls"),
       ("regression", "attention")]  # fmt: skip
ALWAYS = [*FEW, *((kind, None) for kind in OTHERS)]
LONG = [
    pytest.param(kind, pooling, marks=pytest.mark.long)
    for kind in POOLED
    for pooling in POOLINGS
    if (kind, pooling) not in FEW
]
every_head = pytest.mark.parametrize(("kind", "pooling"), [*ALWAYS, *LONG])
heads_in_turn = pytest.mark.parametrize(
    ("kind", "pooling"), [*in_turn(ALWAYS, everywhere=FEW[-1:]), *LONG]
)
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


def make(kind, pooling=None, **options):
    name, arguments, _, _ = HEADS[kind]
    if pooling is not None:
        options["pooling"] = pooling
    return getattr(heads, name)(**arguments, **options)


@pytest.fixture
def features():
    return head_inputs()[0]


@pytest.fixture
def mask():
    return head_inputs()[1]


# The contract -----------------------------------------------------------------------------------


@heads_in_turn
def test_outputs_start_at_the_prior(kind, pooling):
    check_prior(partial(make, kind, pooling), HEADS[kind][2])


@heads_in_turn
def test_padding_and_other_records_change_nothing(kind, pooling):
    check_padding(partial(make, kind, pooling), masked=pooling not in ("cls", None))


@every_head
def test_config_and_weights_make_the_same_head(kind, pooling):
    check_head_config(partial(make, kind, pooling), {**HEADS[kind][1], "pooling": pooling})


@every_head
@pytest.mark.usefixtures("as_written")
def test_learns_and_is_saved_with_its_loss_and_metrics(kind, pooling, tmp_path):
    weights = 2 + (pooling == "attention") + 2 * (kind == "esm")
    weights += 6 * (kind in ("contacts", "distogram"))
    check_head_training(partial(make, kind, pooling), weights, tmp_path)


@heads_in_turn
def test_outputs_stay_float32_in_mixed_precision(kind, pooling):
    check_mixed_precision(partial(make, kind, pooling), HEADS[kind][3])


@every_head
def test_what_is_pooled_already_is_not_pooled_again(kind, pooling, features):
    head = make(kind, pooling)
    if head.per_residue:
        with pytest.raises(ValueError, match=r"position.* of features .*\(4, 6\)"):
            head(features[:, 0])
        return
    check_pooled_features(partial(make, kind, pooling), 2 + 2 * (kind == "esm"))


@pytest.mark.once
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_says_what_it_is(kind):
    head = make(kind, "mean" if kind in POOLED else None)
    tasks = ["classification", "multilabel", "regression"]
    tasks += ["residue_classification", "residue_regression", "torsions", "contacts", "distogram"]
    tasks += ["classification", "residue_classification"]
    assert head.task == dict(zip(HEADS, tasks, strict=True))[kind]
    assert head.per_residue == (head.task.level != "record")
    assert (head.pooling is None) == (kind in OTHERS)
    assert all(isinstance(metric, keras.metrics.Metric) for metric in head.make_metrics())


# In what they differ ----------------------------------------------------------------------------


def test_a_regression_answers_in_the_unit_of_the_targets(features, mask):
    head = Regression(2, mean=[2.0, 300.0], std=[3.0, 10.0])
    head(features, mask)
    head.dense.bias.assign([1.0, -1.0])
    answers = call(head, features, mask)
    np.testing.assert_allclose(answers, [[5.0, 290.0]] * B, rtol=1e-6)
    # The loss is in units of the deviations, the metric in those of the targets.
    targets = np.array([[5.0, 310.0]] * B)
    assert float(head.make_loss()(targets, answers)) == pytest.approx((0 + 4) / 2)
    (metric,) = head.make_metrics()
    metric.update_state(targets, answers)
    assert float(metric.result()) == pytest.approx((0 + 20) / 2)


@pytest.mark.once
def test_two_targets_of_unlike_units_are_both_learnt():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, D)).astype("float32")
    targets = (x @ rng.standard_normal((D, 2))) * [1e-3, 50.0] + [0.01, 300.0]
    data = SimpleNamespace(task="regression", classes=None, train=SimpleNamespace(targets=targets))
    head = heads.for_data(data)
    model = keras.Sequential([keras.Input((D,)), head])
    model.compile(keras.optimizers.Adam(0.1), head.make_loss())
    model.fit(x, targets, epochs=12, batch_size=32, verbose=0)
    left = targets - model.predict(x, verbose=0)
    assert (left.std(axis=0) < 0.05 * targets.std(axis=0)).all()


@pytest.mark.once
def test_class_weights_bring_back_the_rare_class():
    """Nine to one, and classes that overlap: unweighted, nearly nothing is called rare."""
    rng = np.random.default_rng(0)
    targets = (np.arange(1000) % 10 == 0).astype("int32")
    x = (rng.standard_normal((1000, D)) + 0.35 * targets[:, None]).astype("float32")
    recall = {}
    for name, weight in (("plain", None), ("balanced", kft.losses.balanced(targets, 2))):
        head = Classification(2)
        model = keras.Sequential([keras.Input((D,)), head])
        model.compile(keras.optimizers.Adam(0.05), head.make_loss(class_weight=weight))
        model.fit(x, targets, epochs=8, batch_size=100, shuffle=False, verbose=0)
        called = model.predict(x, verbose=0).argmax(axis=1)
        recall[name] = [(called[targets == k] == k).mean() for k in (0, 1)]
    assert np.mean(recall["plain"]) < 0.6
    assert np.mean(recall["balanced"]) > np.mean(recall["plain"]) + 0.1
    assert min(recall["balanced"]) > 0.6


@pytest.mark.parametrize("kind", ["esm", "esm tokens"])
def test_dropout_drops_in_training_only(kind, features, mask):
    head = make(kind)
    head(features, mask)
    randomise(head)
    still = call(head, features, mask)
    np.testing.assert_array_equal(call(head, features, mask), still)
    dropped = ops.convert_to_numpy(head(features, mask, training=True))
    assert np.abs(dropped - still).max() > 1e-3


# Beside transformers ----------------------------------------------------------------------------


@pytest.mark.usefixtures("optimised")
def test_probabilities_are_those_of_transformers():
    encoder = references.hugging_face(2, 32, 4, scale=0.2)
    ours = heads.EsmClassification(5, name="whole"), heads.EsmTokenClassification(5, name="tokens")
    backbone = references.from_reference(encoder)
    model = keras.Model(backbone.input, [head(backbone.output) for head in ours])
    theirs = []
    for head, form in zip(
        ours, (EsmForSequenceClassification, EsmForTokenClassification), strict=True
    ):
        torch.manual_seed(1)
        reference = form(references.esm_config(2, 32, 4, num_labels=5)).eval()
        references._perturbed(reference, 0.2)
        reference.esm = encoder.esm
        theirs.append(reference)
        last = getattr(reference.classifier, "out_proj", reference.classifier)
        for layer, linear in {"dense": last, **dict(reference.classifier.named_children())}.items():
            if layer != "dropout":
                kernel, bias = (p.detach().numpy() for p in (linear.weight, linear.bias))
                getattr(head, layer).set_weights([kernel.T, bias])

    proteins = references.proteins(np.random.default_rng(2).integers(1, 30, 19))
    tokens = backbone.encode([*proteins, "MK<mask>AYI"])["token_ids"]
    ids = torch.tensor(tokens).long()
    found = model.predict_on_batch({"token_ids": tokens})
    for head, reference, answers in zip(ours, theirs, found, strict=True):
        there = tokens != 1 if head.per_residue else slice(None)
        exact, rounded = (
            log_probabilities(reference, ids, kind)[there] for kind in ("double", "float")
        )
        assert np.ptp(exact) > 1
        assert_parity(np.log(answers)[there], rounded, exact, head.name)


def log_probabilities(reference, ids, kind):
    with torch.no_grad():
        logits = getattr(reference, kind)()(ids, attention_mask=(ids != 1).long()).logits
        return torch.log_softmax(logits, dim=-1).numpy()


def test_the_hidden_layer_is_drawn_from_the_seed(features):
    drawn = []
    for seed in (0, 0, 1):
        head = heads.EsmClassification(2, seed=seed)
        head(features)
        drawn.append(ops.convert_to_numpy(head.dense.kernel))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).all()
    expected = np.random.default_rng(0).standard_normal((D, D)) / np.sqrt(D)
    np.testing.assert_allclose(drawn[0], expected, rtol=1e-6)  # on every backend


# Pooling ----------------------------------------------------------------------------------------


def test_mean_pooling_is_the_mean_of_the_residues(features, mask):
    expected = [f[1 : 1 + n].mean(axis=0) for f, n in zip(features, LENGTHS, strict=True)]
    assert_rounds_alike(call(Pooling("mean"), features, mask), expected)


def test_max_pooling_is_the_largest_of_the_residues(features, mask):
    features = features - 10  # below the zeros of any padding
    expected = [f[1 : 1 + n].max(axis=0) for f, n in zip(features, LENGTHS, strict=True)]
    np.testing.assert_array_equal(call(Pooling("max"), features, mask), expected)


def test_mean_pooling_of_a_backbone_leaves_special_tokens_out():
    backbone = kft.backbones.randomised(ESM2(1, 16, 2), seed=0)
    sequences = ["MKTAY", "G", "AC<mask>D"]
    pooled = Pooling()(backbone.output, backbone.position_mask)
    model = keras.Model(backbone.input, [backbone.output, pooled])
    hidden, answers = model.predict_on_batch(backbone.encode(sequences))
    expected = [h[1 : 1 + n].mean(axis=0) for h, n in zip(hidden, (5, 1, 4), strict=True)]
    assert_rounds_alike(answers, expected)


def test_attention_pooling_starts_as_the_mean_and_weighs_by_its_score(features, mask):
    pooling = Pooling("attention")
    assert_rounds_alike(call(pooling, features, mask), call(Pooling("mean"), features, mask))
    direction = np.linspace(-2, 2, D, dtype="float32")
    pooling.score.kernel.assign(direction[:, None])
    scores = np.where(mask, features @ direction, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = (weights[..., None] * features).sum(axis=1)
    assert_rounds_alike(call(pooling, features, mask), expected)


def test_cls_pooling_is_the_first_position(features, mask):
    np.testing.assert_array_equal(call(Pooling("cls"), features, mask), features[:, 0])


def without_a_mask(pooling, features):
    """What each pooling is over axis 1, where all positions count."""
    first, mean = features[:, 0], features.mean(axis=1)
    both = np.concatenate([first, mean], axis=1)
    known = {"cls": first, "max": features.max(axis=1), "cls_and_mean": both}
    return known.get(pooling, mean)


@every_pooling
def test_without_a_mask_every_position_counts(pooling, features):
    expected = without_a_mask(pooling, features)
    assert_rounds_alike(call(Pooling(pooling), features), expected)
    inputs = keras.Input((None, D))
    model = keras.Model(inputs, Pooling(pooling)(inputs))
    assert_rounds_alike(call(model, features), expected)


@every_pooling
def test_pooled_features_come_back_as_they_are(pooling, features):
    layer = Pooling(pooling)
    np.testing.assert_array_equal(call(layer, features[:, 0]), features[:, 0])
    assert not layer.weights


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
@pytest.mark.parametrize("size", [(3, 5), (None, None)])
def test_pixels_are_positions(pooling, size):
    images = np.random.default_rng(0).standard_normal((2, 3, 5, D)).astype("float32")
    inputs = keras.Input((*size, D))
    model = keras.Model(inputs, Pooling(pooling)(inputs))
    assert model.output_shape == (None, D)
    expected = without_a_mask(pooling, images.reshape(2, 15, D))
    assert_rounds_alike(model.predict_on_batch(images), expected)
    counted = np.arange(15).reshape(3, 5) % 2 == 0
    found = call(Pooling(pooling), images, np.stack([counted, counted]))
    expected = without_a_mask(pooling, images.reshape(2, 15, D)[:, ::2])
    assert_rounds_alike(found, expected)


# The head that fits -----------------------------------------------------------------------------


def data_of(task, targets, classes=None, masks=None):
    train = SimpleNamespace(targets=targets, masks=masks)
    return SimpleNamespace(task=task, classes=classes, train=train)


@pytest.mark.once
def test_for_data():
    head = heads.for_data(data_of("classification", [0, 2], ("a", "b", "c")), pooling="max")
    assert (type(head), head.classes, head.pooling.kind) == (Classification, 3, "max")
    head = heads.for_data(data_of("regression", np.array([1.0, 3.0, 5.0])))
    assert (head.targets, head.mean, head.std) == (1, 3.0, pytest.approx(8**0.5 / 3**0.5))
    head = heads.for_data(data_of("regression", np.array([[1.0, 0.0], [3.0, 10.0]])), "cls")
    assert (head.targets, head.mean, head.std) == (2, (2.0, 5.0), (1.0, 5.0))
    head = heads.for_data(data_of("multilabel", np.eye(4)))
    assert (type(head), head.labels) == (heads.MultiLabel, 4)
    head = heads.for_data(data_of("residue_classification", [np.array([0])], ("C", "E", "H")))
    assert (type(head), head.classes) == (heads.ResidueClassification, 3)
    rows, masks = (
        [np.array([1.0, 99.0]), np.array([3.0])],
        [np.array([True, False]), np.ones(1) > 0],
    )
    head = heads.for_data(data_of("residue_regression", rows, masks=masks))
    assert (head.mean, head.std) == (2.0, 1.0)


@pytest.mark.once
def test_for_data_names_the_tasks_it_knows():
    known = "classification, multilabel, regression, residue_classification, residue_regression, "
    known += "torsions, contacts, distogram"
    with pytest.raises(
        ValueError, match=f"data.task must be one of {known}, received 'clustering'"
    ):
        heads.for_data(data_of("clustering", [0]))


# Bad arguments ----------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("make_head", [Pooling, Regression, lambda p: Classification(2, p)])
def test_an_unknown_pooling_lists_the_known(make_head):
    arguments = {"pooling": "min"} if make_head is Regression else {}
    known = "mean, cls, max, attention, cls_and_mean"
    with pytest.raises(ValueError, match=f"one of {known}, received 'min'"):
        make_head(**arguments) if arguments else make_head("min")


@pytest.mark.once
def test_poolings_that_cannot_be():
    with pytest.raises(ValueError, match=r"'cls' pooling takes .*received shape \(2, 3, 3, 6\)"):
        Pooling("cls")(np.ones((2, 3, 3, D)))
    with pytest.raises(ValueError, match=r"'mean' pooling takes .*received shape \(2,\)"):
        Pooling()(np.ones(2))
    for head in (heads.ResidueClassification, heads.EsmClassification):
        with pytest.raises(ValueError, match=f"{head.__name__} has no pooling, received 'mean'"):
            head(2, pooling="mean")


@pytest.mark.once
@pytest.mark.parametrize("classes", [1, 0, -3])
def test_too_few_classes(classes):
    for head in (Classification, heads.ResidueClassification, heads.EsmClassification):
        with pytest.raises(ValueError, match=f"classes must be an integer .*, received {classes}"):
            head(classes)
    if classes < 1:
        with pytest.raises(ValueError, match=f"labels must be an integer .*, received {classes}"):
            heads.MultiLabel(classes)


@pytest.mark.once
@pytest.mark.parametrize(
    "bad",
    [
        {"targets": 0},
        {"std": 0.0},
        {"std": -1.0},
        {"std": np.nan},
        {"mean": np.inf},
        {"mean": [1.0, 2.0]},
        {"std": [1.0, 0.0], "targets": 2},
    ],
)
def test_numbers_that_cannot_be(bad):
    (name, value), *_ = bad.items()
    for head in (Regression, heads.ResidueRegression):
        with pytest.raises(ValueError, match=f"^{name} must be .*, received ") as caught:
            head(**bad)
        assert str(value).strip("[]") in str(caught.value)


@pytest.mark.once
def test_numbers_have_no_classes_to_weigh():
    for options in ({"class_weight": [1.0]}, {"label_smoothing": 0.1}):
        with pytest.raises(ValueError, match="Regression has no classes: leave out class_weight"):
            Regression().make_loss(**options)
