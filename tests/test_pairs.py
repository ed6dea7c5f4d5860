"""Pairs of sequences: the backbone, the data set, splits by protein, and baselines of leakage."""

import warnings
from dataclasses import replace

import contracts
import keras
import models
import numpy as np
import pandas as pd
import pytest
from parity import assert_rounds_alike

import kft
from kft.backbones.tabular.columns import Column
from kft.backbones.tabular.model import DenseBackbone
from kft.data import Dataset, Split, pair_classes, pair_split, read_pairs
from kft.data.inputs import InputKind
from kft.evaluation import baselines
from kft.exploration import near_copies
from kft.models.pairs import PairEncoder
from kft.training.strategies import HeadOnly, LinearProbe

PAIRS = [("MKTAYI", "GSS"), ("ACDEFGHIKL", "K"), ("GSS", "MKTAYI"), ("LLKK", "WWPWWPWWPWW")]
DATA = (PAIRS * 2, [0, 1, 0, 1] * 2)


def make(backbone=None, **options):
    """A small model of pairs whose head is not zero."""
    tower = models.esm2(blocks=2) if backbone is None else backbone
    head = kft.heads.Classification(2, kernel_initializer=keras.initializers.GlorotNormal(seed=1))
    return kft.Model(kft.PairBackbone(tower, **options), head)


# The backbone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", models.in_turn(["cls", "mean"], everywhere=["mean"]))
def test_features_are_those_of_both_and_their_order_is_not_seen(pooling):
    tower = models.esm2(blocks=2)
    backbone = kft.PairBackbone(tower, pooling)
    found = kft.embed(backbone, PAIRS)
    first, second = (kft.embed(tower, side, pooling) for side in zip(*PAIRS, strict=True))
    expected = np.hstack([np.abs(first - second), first * second, first + second])
    assert_rounds_alike(found, expected)
    np.testing.assert_array_equal(found[0], found[2])
    assert backbone.width == found.shape[1] == 3 * 16
    assert np.abs(found[0] - found[1]).max() > 0.01


@pytest.mark.usefixtures("as_written")
def test_a_pair_is_predicted_as_if_it_were_alone():
    contracts.check_padded_records(make(), PAIRS)


@pytest.mark.parametrize("way", contracts.WAYS, ids=lambda way: way.__name__)
def test_copies_share_nothing(way, tmp_path):
    if way is not contracts.saved and keras.backend.backend() != "torch":
        pytest.skip("the config is the same on all backends")
    model = make()
    model.backbone.stages[1].trainable = False
    contracts.check_copy(model, way, tmp_path)


@pytest.mark.in_turn("torch")
def test_the_frontier_is_inside_of_both_towers():
    model = make()
    x = model.encode(PAIRS)
    kft.freeze(model, ["embedding", "block_0"])
    frozen, _ = contracts.check_split(model, x)
    shapes = sorted(x.shape[1:] for x in keras.tree.flatten(frozen.outputs) if len(x.shape) == 3)
    assert shapes == [(None, 16), (None, 16)]
    kft.train_only(model, "head")
    frozen, _ = contracts.check_split(model, x)
    assert [tuple(x.shape) for x in keras.tree.flatten(frozen.outputs)] == [(None, 48)]


@pytest.mark.in_turn("torch")
@pytest.mark.parametrize(
    ("strategy", "frozen"),
    [
        (LinearProbe(), ["embedding", "block_0", "block_1", "final_norm"]),
        (HeadOnly(epochs=2), ["embedding", "block_0", "block_1", "final_norm"]),
        (kft.strategies.get("last_blocks", blocks=1, epochs=2), ["embedding", "block_0"]),
        (kft.strategies.get("full", epochs=1), []),
    ],
    ids=lambda x: type(x).__name__,
)
def test_strategies(strategy, frozen, tmp_path):
    contracts.check_training(strategy, make(), DATA, frozen, tmp_path)


@pytest.mark.in_turn("torch")
def test_training_at_the_frontier_is_that_of_the_whole():
    kept = []
    for frontier in (True, False):
        model = make()
        strategy = kft.strategies.get("last_blocks", blocks=1, epochs=2)
        kft.fit(model, DATA, strategy, frontier=frontier, verbose=0, batch_size=4)
        kept.append(kft.predict(model, PAIRS))
    assert_rounds_alike(*kept)


@pytest.mark.in_turn("torch")
def test_adapters(tmp_path):
    model = make()
    contracts.check_base_is_kept(make(), model.encode(PAIRS))
    kft.add_lora(model, 2)
    contracts.check_adapter_training(model, DATA, tmp_path, rank=2)
    kft.save_adapter(model, tmp_path / "adapter")
    again = make()
    kft.load_adapter(again, tmp_path / "adapter")
    assert_rounds_alike(kft.predict(again, PAIRS), kft.predict(model, PAIRS))


@pytest.mark.once
def test_esmc_is_a_tower_too():
    backbone = kft.PairBackbone(models.esmc())
    assert np.array_equal(*kft.embed(backbone, [PAIRS[0], PAIRS[2]]))


@pytest.mark.once
def test_the_encoder_pads_both_to_one_length_and_says_what_it_cuts():
    encode = PairEncoder(models.esm2().encode)
    arrays = encode(PAIRS, pad_lengths=(16,))
    assert {name: x.shape for name, x in arrays.items()} == {
        "token_ids_first": (4, 16), "token_ids_second": (4, 16)
    }  # fmt: skip
    alone = models.esm2().encode([PAIRS[3][1]])["token_ids"][0]
    np.testing.assert_array_equal(arrays["token_ids_second"][3, : len(alone)], alone)
    with pytest.warns(UserWarning, match="2 of 4 inputs were longer than max_length=8: 5 residues"):
        batches = kft.batches((PAIRS, [0] * 4), encode, max_length=8)
    assert sorted(batches.lengths) == [8, 8, 10, 10]
    with pytest.warns(UserWarning, match="1 of 2 sequences ended in a stop"):
        kft.batches([("MKT*", "GSS")], encode)


@pytest.mark.once
@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (["MKT"], TypeError, r"must be a pair of strings of residues, .*received 'MKT'"),
        ([("MKT", 5)], TypeError, "must be a pair of strings of residues"),
        ([("MKT", "GSS", "A")], TypeError, "must be a pair"),
        ([("MKT", "")], ValueError, r"the second of inputs\[0\] is empty"),
        ([("MK1", "GSS")], ValueError, r"the first of inputs\[0\] has '1' at position 3"),
    ],
)
def test_what_is_no_pair_is_named(inputs, error, message):
    with pytest.raises(error, match=message):
        kft.predict(make(), inputs)


@pytest.mark.once
def test_wrong_towers_are_named():
    with pytest.raises(TypeError, match="tower must be a backbone whose `encode` takes sequences"):
        kft.PairBackbone(DenseBackbone([Column("age")]))
    with pytest.raises(TypeError, match="tower must be a backbone"):
        kft.PairBackbone(kft.PairBackbone(models.esm2()))
    with pytest.raises(ValueError, match="pooling must be one of"):
        kft.PairBackbone(models.esm2(), "attention")
    with pytest.raises(TypeError, match=r"for pairs take kft.PairBackbone\(backbone\)"):
        kft.embed(models.esm2(), PAIRS)


# Data sets ----------------------------------------------------------------------------------------


def simulated(proteins=30, pairs=200, seed=0):
    """Pairs that interact if their proteins begin with W and D; some proteins have both."""
    rng = np.random.default_rng(seed)
    names = models.strings([12] * proteins, "ACEFGHIKLMNPQRSTVY", seed)
    heads = [("WWW", "DDD", "WWWDDD")[rng.integers(3)] for _ in range(proteins)]
    names = [head + name for head, name in zip(heads, names, strict=True)]
    first, second = np.triu_indices(proteins, 1)
    at = rng.permutation(len(first))[:pairs]
    table = pd.DataFrame({"a": [names[i] for i in first[at]], "b": [names[i] for i in second[at]]})
    binds = [
        ("WWW" in a and "DDD" in b) or ("DDD" in a and "WWW" in b)
        for a, b in zip(table.a, table.b, strict=True)
    ]
    return table.assign(y=np.where(binds, "yes", "no"))


@pytest.mark.once
def test_pairs_are_kept_in_normal_form():
    with pytest.warns(UserWarning, match="1 of 4 sequences held lower-case letters"):
        split = Split([("mkt", "GSS"), ["AAA", "WW"]], [0, 1])
    assert split.inputs == [("MKT", "GSS"), ("AAA", "WW")]
    assert split.input_kind is InputKind.PAIR
    assert repr(split) == "Split(2 pairs, input lengths 3 to 3)"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert split.take([1]).inputs == [("AAA", "WW")]
    with pytest.raises(TypeError, match=r"inputs\[1\]` must be a pair of strings"):
        Split([("MKT", "GSS"), "AAA"], [0, 1])


@pytest.mark.once
@pytest.mark.parametrize("split", ["C1", "C2", "C3"])
def test_test_pairs_are_of_the_class_asked_for(split):
    data = read_pairs(simulated(), ["a", "b"], split=split)
    train = data.train.inputs
    for part in (data.valid, data.test):
        assert set(pair_classes(train, part.inputs)) == {split}
    sizes = [len(part) for part in data.splits.values()]
    assert sum(sizes) == 200 if split == "C1" else 60 < sum(sizes) < 200
    assert f"{200 - sum(sizes):,} of 200 pairs are left out" in data.notes[0]
    if split == "C3":  # nor are proteins of valid in test
        assert set(pair_classes(data.valid.inputs, data.test.inputs)) == {"C3"}
    assert sizes[0] > 0.6 * sum(sizes)
    again = read_pairs(simulated(), ["b", "a"], split=split)
    assert [set(x) for x in again.train.inputs] == [set(x) for x in train] or split != "C1"


@pytest.mark.once
def test_near_copies_of_proteins_stay_together():
    rng = np.random.default_rng(0)
    founders = models.strings([30] * 20, seed=1)
    family = {}
    for i, founder in enumerate(founders):
        for _ in range(2):
            at = rng.integers(30)
            family[founder[:at] + "W" + founder[at + 1 :]] = i
    names = list(family)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    for near, shared in ((True, False), (False, True)):
        parts = pair_split(pairs, "C3", seed=0, near_copies=near)
        seen = [{family[x] for i in at for x in pairs[i]} for at in parts.values()]
        assert bool(seen[0] & seen[2]) == shared


@pytest.mark.once
def test_a_table_of_pairs_is_read_with_errors_that_name_the_line(tmp_path):
    table = simulated()
    path = tmp_path / "pairs.csv"
    table.to_csv(path, index=False)
    data = read_pairs(path, ["a", "b"], split="random")
    assert data.classes == ("no", "yes") and data.task == "classification"
    every = [pair for part in data.splits.values() for pair in part.inputs]
    assert sorted(every) == sorted(zip(table.a, table.b, strict=True))
    mirrored = pd.concat(
        [table, pd.DataFrame({"a": table.b[:3], "b": table.a[:3], "y": "no"})], ignore_index=True
    )
    mirrored.loc[mirrored.index[:3], "y"] = "yes"
    notes = " ".join(read_pairs(mirrored, ["a", "b"], split=None).notes)
    assert "3 pairs in several rows with different values of column 'y'" in notes
    assert "3 records repeat the pair of an earlier one" in notes
    path.write_text("a,b,y\nMKT,GSS,yes\nMKT,,no\n")
    with pytest.raises(ValueError, match="line 3"):
        read_pairs(path, ["a", "b"], split=None)
    for options, message in (
        ({"inputs": ["a", "a"]}, "`inputs` must be two columns"),
        ({"inputs": "a"}, "`inputs` must be two columns"),
        ({"split": "cluster"}, "'C3' keeps near copies together"),
        ({"split": "C4"}, "`split` must be"),
        ({"task": "residue_regression"}, "pairs have one target each"),
        ({"inputs": ["a", "c"]}, "c"),
    ):
        with pytest.raises(ValueError, match=message):
            read_pairs(table, **{"inputs": ["a", "b"]} | options)


@pytest.mark.once
def test_too_few_proteins_for_a_split_are_named():
    with pytest.raises(ValueError, match="class C3 leaves no pairs for train of 3 proteins"):
        pair_split([("MKTAYI", "GSSGSS"), ("MKTAYI", "WWPWWP")])
    with pytest.raises(ValueError, match="scheme must be one of C1, C2, C3"):
        pair_split(PAIRS, "C4")
    with pytest.raises(ValueError, match="`fractions` must be three positive numbers"):
        pair_split(PAIRS, fractions=(1, 2))


@pytest.mark.once
def test_only_equal_pairs_in_either_order_are_near_copies():
    found = near_copies(PAIRS[:2], [("GSS", "mktayi"), ("GSS", "AAAAAA")])
    assert found[["test", "train"]].to_numpy().tolist() == [[0, 0]]
    assert "only equal ones" in found.attrs["note"]


# Baselines ----------------------------------------------------------------------------------------


def toy(train, targets, test):
    return Dataset(
        "toy", "classification", Split(train, targets), None, Split(test, [0, 1]),
        source="typed in", licence="none", citation="", checksum="", classes=("no", "yes"),
    )  # fmt: skip


@pytest.mark.once
def test_the_degree_is_the_mean_target_of_the_pairs_of_each_protein():
    data = toy([("AA", "CC"), ("AA", "DD"), ("EE", "CC")], [1, 1, 0], [("CC", "AA"), ("YY", "VV")])
    found = baselines.degree(data).predictions
    mean = 2 / 3
    expected = ((2 + mean) / 3 + (1 + mean) / 3) / 2  # AA is in two that interact, CC in one of two
    np.testing.assert_allclose(found[:, 1], [expected, mean])
    np.testing.assert_allclose(found.sum(axis=1), 1)
    numbers = Dataset(
        "toy", "regression", Split(data.train.inputs, [1.0, 1.0, 0.0]), None,
        Split(data.test.inputs, [0.0, 1.0]), source="", licence="", citation="", checksum="",
    )  # fmt: skip
    np.testing.assert_allclose(baselines.degree(numbers).predictions, found[:, 1])


@pytest.mark.once
def test_similar_pairs_are_found_in_either_order():
    sequences = models.strings([20] * 12, seed=3)
    train = list(zip(sequences[:6], sequences[6:], strict=True))
    data = toy(train, [0, 1, 0, 1, 0, 1], [train[0][::-1], train[1]])
    found = baselines.similar_pairs(data).predictions
    assert found.argmax(axis=1).tolist() == [0, 1]


@pytest.mark.once
def test_baselines_of_leakage_fall_to_chance_where_no_protein_was_seen():
    """What knows proteins alone scores on C1, not on C3; what sees the motifs scores on both."""
    scores = {}
    for split in ("C1", "C3"):
        data = read_pairs(simulated(80, 1500), ["a", "b"], split=split)
        assert list(baselines.suited(data)) == [
            "constant", "degree", "similar_pairs", "pair_composition"
        ]  # fmt: skip
        for fit in (baselines.degree, baselines.pair_composition):
            scored = kft.evaluation.score(data.task, data.test.targets, fit(data).predictions)
            scores[split, fit.__name__] = scored["AUROC"].value
    assert scores["C1", "degree"] > 0.7 and scores["C3", "degree"] == 0.5
    assert scores["C3", "pair_composition"] > 0.8


@pytest.mark.once
def test_compare_and_evaluate_take_pairs(tmp_path):
    data = read_pairs(simulated(), ["a", "b"], split="C2")
    backbone = kft.PairBackbone(models.esm2())
    found = kft.compare(
        backbone, data, ["linear_probe"], seeds=1, controls=False, out=tmp_path, verbose=False,
        resamples=20,
    )  # fmt: skip
    rows = {row.name: row for row in found.rows}
    assert {"degree of proteins", "5 similar pairs", "linear_probe"} <= rows.keys()
    assert not any(row.error for row in found.rows)
    model = kft.fit(make(), data, "linear_probe", verbose=0).model
    judged = kft.evaluate(model, replace(data, name="pairs"), resamples=20)
    assert np.isfinite(judged.scores["AUROC"].value)
    predicted = kft.predict(model, data.test.inputs)
    mine = pd.DataFrame(data.test.inputs, columns=["sequence_a", "sequence_b"]).assign(id="x")
    mine.to_csv(tmp_path / "mine.csv", index=False)
    for source in (mine, tmp_path / "mine.csv"):
        table = kft.predict(model, source, as_frame=True)
        assert np.allclose(table.probability_yes, predicted[:, 1], atol=1e-6)
        assert table.sequence_a.tolist() == mine.sequence_a.tolist()
    with pytest.raises(ValueError, match="must have the columns sequence_a and sequence_b"):
        kft.predict(model, mine.rename(columns={"sequence_a": "a"}))
    assert "first" in str(kft.explore(data))
