"""Torsions, contacts and distograms: from targets over training to scores and folds."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from models import esm2
from parity import assert_rounds_alike
from scipy import stats
from toy_chains import ABOUT, CHAINS, coordinates, data_of, split_of

import kft
from kft import structure
from kft.data import Dataset, Split
from kft.data.proteins import chains
from kft.evaluation import baselines
from kft.evaluation.structures import UNKNOWN, as_chains, directions, vectors


def model_of(data):
    return kft.Model(esm2(), kft.heads.for_data(data))


# Loss ---------------------------------------------------------------------------------------------


def test_the_loss_of_angles_is_a_likelihood():
    """As scipy's, for concentrations from 0 to 700, also where the polynomials meet."""
    rng = np.random.default_rng(0)
    k = np.concatenate([[0.0, 1e-3, 3.749, 3.751, 700.0], rng.uniform(0, 20, 95)])
    mean, angle = rng.uniform(-4, 4, (2, 100))
    given = np.stack([k * np.sin(mean), k * np.cos(mean)], axis=-1).astype("float32")
    loss = kft.losses.VonMises(reduction="none")
    found = ops.convert_to_numpy(loss(angle[:, None], given))
    expected = -np.log(1 / (2 * np.pi)) - np.where(k == 0, 0, k * np.cos(angle - mean))
    expected = np.where(k == 0, expected, -stats.vonmises.logpdf(angle, np.maximum(k, 1e-9), mean))
    assert abs(found - expected).max() < 1e-6 * (k.max() + 1)
    assert abs(found - expected)[k < 20].max() < 2e-5


@pytest.mark.once
def test_angles_and_vectors_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="one angle for each two of the predictions"):
        kft.losses.VonMises()(np.zeros((2, 2)), np.zeros((2, 6)))


# From targets to predictions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("torsions", marks=pytest.mark.in_turn("jax")),
        pytest.param("distogram", marks=pytest.mark.in_turn("torch")),
    ],
)
def test_trained_predicted_and_saved(target, tmp_path):
    """At the frozen frontier and with LoRA; a chain is predicted as if it were alone."""
    data = data_of(target)
    model = model_of(data)
    logs = kft.fit(model, data, strategy="head_only", epochs=3, batch_size=2, verbose=0)
    losses = [row["loss"] for row in logs.history]
    assert losses[-1] < losses[0]
    kft.fit(model, data, strategy="lora", epochs=1, batch_size=2, verbose=0)
    assert kft.lora.names(model)
    found = kft.predict(model, CHAINS)
    places = 2 if data.task.per_pair else 1
    assert [x.shape for x in found] == [(len(x),) * places + (model.head.units,) for x in CHAINS]
    assert_rounds_alike(kft.predict(model, CHAINS[1:2])[0], found[1])
    with pytest.warns(UserWarning, match="residues.* cut from their ends"):
        cut = kft.predict(model, CHAINS[:1], max_length=5)[0]
    assert cut.shape[:places] == (5,) * places
    if data.task.per_pair:
        assert all((x == x.transpose(1, 0, 2)).all() for x in found)
        np.testing.assert_allclose(found[0].sum(-1), 1, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    again = kft.predict(keras.saving.load_model(tmp_path / "model.keras"), CHAINS)
    assert all(map(np.array_equal, found, again))


@pytest.mark.once
def test_the_untrained_head_predicts_what_training_holds():
    data = data_of("distogram")
    rows = kft.predict(model_of(data), CHAINS)
    expected = baselines.separation(replace(data, valid=None)).predictions
    for row, other in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row, other, rtol=1e-4)
    data = data_of("torsions")
    (row, *_) = kft.predict(model_of(data), CHAINS)
    used = np.concatenate([x[m] for x, m in zip(data.train.targets, data.train.masks, strict=True)])
    means = directions(vectors(used).mean(axis=0))
    np.testing.assert_allclose(directions(row)[0], means, atol=1e-4)


@pytest.mark.once
def test_targets_of_pairs_lie_where_the_residues_are():
    data, encode = data_of("contacts"), esm2().encode
    with pytest.warns(UserWarning, match="residues.* cut from their ends"):
        batches = kft.batches(data.train, encode, 4, seed=None, max_length=10)
    _, targets, weights = batches[0]
    order = batches.record_indices[0]
    assert targets.shape == weights.shape == (4, *[targets.shape[1]] * 2)
    row = list(order).index(0)
    np.testing.assert_array_equal(targets[row, 1:11, 1:11], data.train.targets[0][:10, :10])
    np.testing.assert_array_equal(weights[row, 1:11, 1:11], data.train.masks[0][:10, :10])
    assert weights.sum() == sum(mask[:10, :10].sum() for mask in data.train.masks)


@pytest.mark.once
def test_targets_of_chains_are_those_of_the_structure():
    sequence = CHAINS[0]
    atoms = coordinates(sequence)
    angles, known = chains._target("torsions", sequence, atoms)
    assert known.tolist() == [False, *[True] * (len(sequence) - 2), False]
    np.testing.assert_allclose(angles[known], structure.torsions(atoms)[known], atol=1e-6)
    bins, known = chains._target("distogram", sequence, atoms)
    apart = abs(np.subtract.outer(range(len(sequence)), range(len(sequence))))
    assert ((known == (apart > 1)).all() and len(chains.BINS) == bins.max() + 1) or bins.max() < 64
    found, known = chains._target("contacts", sequence, atoms)
    assert (known == (apart >= 6)).all()
    assert (found == structure.contacts(atoms)[0]).all()


# Scores -------------------------------------------------------------------------------------------


@pytest.mark.once
def test_angles_are_compared_the_short_way_round():
    true = np.deg2rad([[179.0, 0.0, 180.0], [10.0, 90.0, -180.0]])
    given = vectors(np.deg2rad([[-179.0, 0.0, 170.0], [10.0, -90.0, 180.0]])) * [[3.0], [0.1]]
    scores = kft.evaluation.score("torsions", true, given, groups=[0, 1])
    assert scores.headline == "mean cosine"
    values = [scores[f"MAE {angle}"].value for angle in ("phi", "psi", "omega")]
    np.testing.assert_allclose(values, [1.0, 90.0, 5.0], atol=1e-5)


@pytest.mark.once
def test_scores_of_pairs_are_those_of_the_pairs_that_count():
    rng = np.random.default_rng(0)
    targets, given = [], []
    for n in (9, 14):
        rows = rng.dirichlet(np.ones(2), (n, n))
        given.append((rows + rows.transpose(1, 0, 2)) / 2)
        mask = abs(np.subtract.outer(range(n), range(n))) >= 6
        contact = rng.uniform(size=(n, n)) < 0.3
        targets.append(np.where(mask, contact | contact.T, UNKNOWN))
    scores = kft.evaluation.score("contacts", as_chains(targets), as_chains(given))
    losses, precisions = [], []
    for true, p in zip(targets, given, strict=True):
        first, second = np.nonzero(np.triu(true != UNKNOWN))
        losses += [-np.log(p[i, j, true[i, j]]) for i, j in zip(first, second, strict=True)]
        precisions.append(structure.contact_precision(p[..., 1], true == 1, true != UNKNOWN))
    assert scores["log loss"].value == pytest.approx(np.mean(losses))
    assert scores["precision at L"].value == pytest.approx(np.mean(precisions))
    other = kft.evaluation.score("distogram", as_chains(targets), as_chains(given))
    assert other["likelihood"].value == pytest.approx(np.exp(-np.mean(losses)))


@pytest.mark.once
def test_baselines_of_pairs_count_pairs():
    """By hand: neighbours touch unless one of them is a W."""
    inputs = ["AAWA", "WAAA"]
    near = abs(np.subtract.outer(range(4), range(4))) == 1
    tryptophan = [np.array([letter == "W" for letter in x]) for x in inputs]
    targets = [(near & ~(w[:, None] | w)).astype(int) for w in tryptophan]
    part = Split(inputs * 20, targets * 20, masks=[~np.eye(4, dtype=bool)] * 40)
    data = Dataset("toy", "contacts", part, part, part, classes=("apart", "contact"), **ABOUT)
    blind = baselines.separation(data).predictions[0][..., 1]
    assert blind[0, 1] == blind[1, 2] == pytest.approx((2 * 40 * 3 + 1) / (2 * 40 * 6 + 2))
    seen = baselines.residue_pairs(data).predictions[0][..., 1]
    assert seen[0, 1] > 0.95 and seen[1, 2] < 0.05 and (seen == seen.T).all()
    assert list(baselines.suited(data)) == ["separation", "residue_pairs"]


@pytest.mark.once
@pytest.mark.parametrize("target", ["torsions", "contacts"])
def test_compared_and_evaluated(target, tmp_path):
    """A strategy beside the baselines; a stored run is read again."""
    data = data_of(target)
    options = {"strategies": ["head_only"], "seeds": 1, "controls": True, "epochs": 1}
    options |= {"out": tmp_path / "out", "copies": False, "resamples": 50, "verbose": False}
    result = kft.compare(esm2(), data, **options)
    assert not [row.error for row in result.rows if row.error]
    again = kft.compare(esm2(), data, **options)
    for one, other in zip(result.rows[0].predictions[0], again.rows[0].predictions[0], strict=True):
        np.testing.assert_array_equal(one, other)
    judged = kft.evaluate(model_of(data), data, copies=False, resamples=50)
    assert list(judged) == list(data.task.metrics(2)) and "split of toy" in str(judged)
    with pytest.raises(ValueError, match="kft.evaluate gives the scores"):
        judged.worst()


# Folding ------------------------------------------------------------------------------------------


@pytest.mark.once
def test_a_fold_has_the_predicted_torsions():
    sequence = CHAINS[0]
    helix = np.deg2rad([-63.0, -43.0, 180.0])
    head = kft.heads.Torsions(mean=(50 * vectors(helix)).tolist())
    model = kft.Model(esm2(), head)
    fold = kft.fold(model, sequence, starts=1)
    expected = structure.rebuild(np.tile(helix, (len(sequence), 1)))
    assert structure.rmsd(fold.chain.coordinates[:, 1], expected[:, 1]) < 0.2
    assert np.isnan(fold.expected_lddt).all()
    both = [model, kft.Model(esm2(), kft.heads.for_data(data_of("distogram")))]
    assert (kft.fold(both, sequence, starts=1, iterations=20).chain.confidence > 0).all()


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.once
def test_errors_say_what_is_wrong():
    part = split_of("contacts")
    data = data_of("contacts")
    with pytest.raises(ValueError, match=r"pairs need masks \(residues, residues\)"):
        replace(data, train=Split(part.inputs, part.targets), valid=None, test=None)
    with pytest.raises(ValueError, match=r"must be \(7,\), or \(7, 7\) for pairs"):
        Split(CHAINS[1:2], [np.zeros((7, 7), int)], masks=[np.ones((7, 6), bool)])
    with pytest.raises(ValueError, match="in radians"):
        degrees = [180 * np.ones((len(x), 3)) for x in CHAINS]
        Dataset("toy", "torsions", Split(CHAINS, degrees), None, None, **ABOUT)
    model = model_of(data)
    with pytest.raises(ValueError, match="no table has a row"):
        kft.predict(model, CHAINS, as_frame=True)
    with pytest.raises(ValueError, match="Torsions, received one of Contacts for contacts"):
        kft.fold(model, CHAINS[0])
    with pytest.raises(ValueError, match="prior must be probabilities"):
        kft.heads.Contacts(prior=[[0.5, 0.5]])
    with pytest.raises(ValueError, match="task must be one of .* kft.compare take it"):
        kft.data.Task.named("contacts", "task")


@pytest.mark.once
def test_tables_of_torsions_are_in_degrees():
    model = model_of(data_of("torsions"))
    table = kft.predict(model, CHAINS[:1], as_frame=True)
    assert list(table.columns) == ["sequence", "predicted_phi", "predicted_psi", "predicted_omega"]
    phi = [float(x) for x in table.predicted_phi[0].split()]
    expected = directions(kft.predict(model, CHAINS[:1])[0])[:, 0]
    np.testing.assert_allclose(phi, np.rad2deg(expected), atol=0.06)


# Recipes ------------------------------------------------------------------------------------------


@pytest.mark.in_turn("torch")
@pytest.mark.parametrize("name", ["torsions", "distogram"])
def test_recipe(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kft.data, "load", lambda _, target: data_of(target))
    monkeypatch.setattr(kft, "load", lambda _: esm2())
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--tiny", "--out", str(tmp_path)])
    runpy.run_path(str(Path(__file__).parents[1] / "recipes" / f"{name}.py"), run_name="__main__")
    assert data_of(name).task.headline() in capsys.readouterr().out
