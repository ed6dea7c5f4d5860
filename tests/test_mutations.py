"""Effects of mutations: each score against its equation, notations, tables, windows, bad input."""

import math

import numpy as np
import pandas as pd
import pytest
import references
import scipy.special
import torch
from models import esm2, esmc, in_turn
from parity import assert_rounds_alike

import kft
from kft.backbones.residue_tokens import ALPHABET, MASK
from kft.inference.mutations import passes
from kft.inference.mutations.methods import METHODS, OF_SEQUENCES, hidden_log_probability
from kft.inference.mutations.notation import parse
from kft.inference.mutations.numbering import mutant_of
from kft.inference.mutations.scanning import scan

RESIDUES = "LAGVSERTIDPKQNFYMHWC"
WILD_TYPE = "MKTAYIAKQRQISFVKSHFS"
# What a mutant is, written out, so that the reference uses neither notations nor tables.
REPLACED = {
    "K2R": "MRTAYIAKQRQISFVKSHFS",
    "K2W:T3C": "MWCAYIAKQRQISFVKSHFS",
    "p.[Tyr5Ala;Val15Gly;Ser20Leu]": "MKTAAIAKQRQISFGKSHFL",
    "WT": WILD_TYPE,
}
LONGER_AND_SHORTER = {
    "Y5_": "MKTAIAKQRQISFVKSHFS",
    "K2_I6del": "MAKQRQISFVKSHFS",
    "p.Ala4_Tyr5insTrpTrpTrp": "MKTAWWWYIAKQRQISFVKSHFS",
    "S20dup": "MKTAYIAKQRQISFVKSHFSS",
    "H18_S20delinsG": "MKTAYIAKQRQISFVKSG",
}


@pytest.fixture(scope="module")
def small():
    return esm2()


# Each score against its equation ------------------------------------------------------------------


def written_out(reference):
    """The scores of the methods, one pass at a time, from their equations."""

    def p(sequence, hidden=()):
        ids = [0, *map(ALPHABET.index, sequence), 2]
        for i in hidden:
            ids[i + 1] = MASK
        with torch.no_grad():
            logits = reference(torch.tensor([ids])).logits[0, 1:-1]
        return torch.log_softmax(logits, -1).numpy()

    def gains(x, y, given):
        return sum(
            given(i)[i, ALPHABET.index(y[i])] - given(i)[i, ALPHABET.index(x[i])]
            for i in range(len(x)) if x[i] != y[i]
        )  # fmt: skip

    def sites(x, y):
        return [i for i in range(len(x)) if x[i] != y[i]]

    def pll(z):
        return sum(p(z, [i])[i, ALPHABET.index(z[i])] for i in range(len(z)))

    def one_pass(z):
        """From q = p (a + b / 20) / (a p + b / 20), by bisection, with the rates of BERT."""
        total, log = 0.0, p(z)
        for i, letter in enumerate(z):
            low, high, q = 0.0, 1.0, np.exp(log[i, ALPHABET.index(letter)])
            for _ in range(200):
                middle = (low + high) / 2
                below = middle * (0.1 + 0.1 / 20) / (0.1 * middle + 0.1 / 20) < q
                low, high = (middle, high) if below else (low, middle)
            total += np.log(middle)
        return total

    return {
        "wild_type_marginal": lambda x, y: gains(x, y, lambda i: p(x)),
        "masked_marginal": lambda x, y: gains(x, y, lambda i: p(x, [i])),
        "joint_masked_marginal": lambda x, y: gains(x, y, lambda i: p(x, sites(x, y))),
        "mutant_marginal": lambda x, y: gains(x, y, lambda i: p(y)),
        "pseudo_log_likelihood": lambda x, y: pll(y) - pll(x),
        "pseudo_perplexity": lambda x, y: np.exp(-pll(x) / len(x)) - np.exp(-pll(y) / len(y)),
        "one_pass_pseudo_perplexity": lambda x, y: (
            np.exp(-one_pass(x) / len(x)) - np.exp(-one_pass(y) / len(y))
        ),
    }


@pytest.fixture(scope="module")
def pair():
    """Ours in float32, the reference in float64, with the same weights of scale 0.1."""
    reference = references.hugging_face(2, 32, 4)
    return references.from_reference(reference), written_out(reference.double())


@pytest.mark.parametrize("method", in_turn(METHODS, everywhere=["masked_marginal"]))
def test_scores_are_those_of_the_equations(pair, method):
    """With insertions and deletions the batches hold several lengths, and padding."""
    backbone, equations = pair
    mutants = REPLACED | (LONGER_AND_SHORTER if method in OF_SEQUENCES else {})
    found = kft.score_mutations(backbone, WILD_TYPE, list(mutants), method, tokens=128)
    expected = [equations[method](WILD_TYPE, y) for y in mutants.values()]
    assert np.abs(expected[:3]).max() > 0.01
    np.testing.assert_allclose(found.score, expected, rtol=0, atol=1e-4)
    assert found.score[3] == 0 and set(found.problem) == {""}


@pytest.mark.once
def test_methods_that_are_one_for_a_single_site_are(pair):
    """All 380 single mutants; those of several sites differ."""
    backbone, _ = pair
    single = scan(backbone, WILD_TYPE, "masked_marginal")
    joint = scan(backbone, WILD_TYPE, "joint_masked_marginal", tokens=64)
    assert_rounds_alike(joint.score, single.score)
    double = [
        kft.score_mutations(backbone, WILD_TYPE, ["K2W:T3C"], method).score[0]
        for method in ("masked_marginal", "joint_masked_marginal")
    ]
    assert abs(double[0] - double[1]) > 1e-3


@pytest.mark.once
def test_one_pass_is_exact_for_certainty():
    np.testing.assert_allclose(hidden_log_probability(np.array([0.0, -1e-9])), [0, -2.1e-8])


@pytest.mark.once
def test_esmc_is_scored_too():
    found = kft.score_mutations(esmc(), WILD_TYPE, list(REPLACED))
    assert np.isfinite(found.score).all() and found.score[3] == 0 != found.score[0]


# A scan, memory, windows --------------------------------------------------------------------------


@pytest.mark.once
def test_a_scan_has_all_single_mutants_in_the_numbering_of_the_user(small):
    with pytest.warns(UserWarning, match="1 of 6 residues are no standard ones"):
        found = scan(small, "MKXaYI", offset=100)
    assert found.columns.tolist() == ["mutant", "position", "wild_type", "residue", "score"]
    assert len(found) == 5 * 19 == found.mutant.nunique()
    assert sorted(set(found.position)) == [101, 102, 104, 105, 106]
    scored = kft.score_mutations(small, "MKXAYI", ["A4V"])
    assert found.set_index("mutant").score["A104V"] == pytest.approx(scored.score[0], abs=1e-6)
    figure, caption = kft.plots.plot_scan(found, "a peptide", most=2)
    ordered = found.sort_values("score")
    assert f"Worst: {ordered.mutant.iloc[0]} (" in caption
    assert f"Best: {ordered.mutant.iloc[-1]} (" in caption
    image = figure.axes[0].images[0].get_array()
    row, column = kft.plots.mutations.RESIDUES.index("V"), 2
    assert image[row, column] == pytest.approx(scored.score[0], abs=1e-6)
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == []


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="score"), "lacks 'score'"),
        (lambda t: t[:0], "empty"),
        (lambda t: t.assign(score=np.nan), "not a finite number"),
        (lambda t: pd.concat([t, t]), "two scores of one residue at position 1"),
    ],
)
def test_a_figure_of_a_wrong_table_is_refused(change, message):
    table = pd.DataFrame({"position": [1], "wild_type": "M", "residue": "L", "score": [0.5]})
    with pytest.raises(ValueError, match=message):
        kft.plots.plot_scan(change(table))


@pytest.mark.once
@pytest.mark.parametrize("method", METHODS)
def test_memory_does_not_grow_with_the_number_of_mutants(method, small, monkeypatch):
    most, logits_at = [], passes.logits_at

    def watched(backbone, rows, places, tokens):
        most.append(sum(map(len, rows)))
        return logits_at(backbone, rows, places, tokens)

    monkeypatch.setattr(passes, "logits_at", watched)
    monkeypatch.setattr(passes, "BATCHES", 2)
    mutants = [f"{x}{i}G" for i, x in enumerate("MKTAYI", 1)]
    kft.score_mutations(small, "MKTAYI", mutants, method, tokens=16)
    assert max(most) <= 2 * 16
    assert len(most) > 1 or method == "wild_type_marginal"


def get_optimal_window(position, length, window):
    """As ProteinGym publishes it (compute_fitness.py), on tokens."""
    half = window // 2
    if length <= window:
        return [0, length]
    if position < half:
        return [0, window]
    if position >= length - half:
        return [length - window, length]
    return [max(0, position - half), min(length, position + half)]


@pytest.mark.once
def test_windows_are_those_of_proteingym():
    for length, window in ((30, 16), (30, 8), (16, 16), (31, 17)):
        for at in range(length):
            expected = tuple(get_optimal_window(at, length, window))
            assert passes.window_of(at, length, window) == expected, (at, length, window)
    assert passes.window_of(5, 3000, None) == (0, 3000)


@pytest.mark.once
def test_a_long_protein_is_scored_in_windows_or_whole(pair):
    backbone, equations = pair
    y = WILD_TYPE[:9] + "W" + WILD_TYPE[10:]  # token 10 of 22, its window has tokens 6 to 13
    x_window, y_window = WILD_TYPE[5:13], y[5:13]

    def inside(x, y):  # without <cls> and <eos>
        ids = [MASK if a != b else ALPHABET.index(a) for a, b in zip(x, y, strict=True)]
        logits = backbone.masked_lm.predict_on_batch({"token_ids": np.array([ids], "int32")})
        at = ids.index(MASK)
        row = np.asarray(logits, "float64")[0, at]
        return row[ALPHABET.index(y[at])] - row[ALPHABET.index(x[at])]

    found = [
        kft.score_mutations(backbone, WILD_TYPE, ["R10W"], window=window).score[0]
        for window in (8, None, 1024)
    ]
    whole = equations["masked_marginal"](WILD_TYPE, y)
    np.testing.assert_allclose(found, [inside(x_window, y_window), whole, whole], atol=1e-4)
    assert abs(found[0] - found[1]) > 1e-3
    for method in METHODS:
        assert np.isfinite(
            kft.score_mutations(backbone, WILD_TYPE, ["R10W"], method, window=8).score[0]
        )
    with pytest.raises(ValueError, match="do not fit in window=8 together; set window=None"):
        kft.score_mutations(backbone, WILD_TYPE, ["K2R:S20A"], "joint_masked_marginal", window=8)


def proteingym_overlapping(log_softmax, tokens, window):
    """As ProteinGym publishes it for 1,024 tokens (compute_fitness.py), with its numbers scaled."""
    n, scale = len(tokens), window / 1024
    probs, seen, weights = 0.0, np.zeros(n), np.ones(window)
    for i in range(1, window // 4 + 1):
        weights[i] = 1 / (1 + math.exp(-(i - 128 * scale) / (16 * scale)))
    for i in range(window - 2 - window // 4, window - 1):
        weights[i] = 1 / (1 + math.exp((i - (window - 2) + 128 * scale) / (16 * scale)))

    def add(start):
        nonlocal probs
        whole = np.zeros((n, 33))
        whole[start : start + window] = log_softmax(tokens[start : start + window])
        whole[start : start + window] *= weights[:, None]
        probs = probs + whole
        seen[start : start + window] += weights

    start_left, end_left, start_right = 0, window - 1, n - window
    while True:
        add(start_left)
        add(start_right)
        if end_left > start_right:
            break
        start_left += window // 2 - 1
        end_left += window // 2 - 1
        start_right -= window // 2 - 1
    if end_left - start_right + 1 < window // 2 - 1:
        add(int(n / 2) - window // 2)
    return probs / seen[:, None]


@pytest.mark.parametrize("window", [16, 12])
@pytest.mark.once
def test_overlapping_windows_are_those_of_proteingym(pair, window):
    backbone, _ = pair
    protein = (WILD_TYPE * 3)[:53]

    def log_softmax(ids):
        logits = backbone.masked_lm.predict_on_batch({"token_ids": ids[None].astype("int32")})
        return scipy.special.log_softmax(np.asarray(logits, "float64")[0], axis=-1)

    tokens = backbone.encode([protein])["token_ids"][0]
    expected = proteingym_overlapping(log_softmax, tokens, window)
    mutants = [f"{x}{i}{'W' if x != 'W' else 'A'}" for i, x in enumerate(protein, 1)]
    found = kft.score_mutations(
        backbone, protein, mutants, "wild_type_marginal", window=window, overlapping=True
    )
    rows = [(i, ALPHABET.index(m[-1]), ALPHABET.index(m[0])) for i, m in enumerate(mutants, 1)]
    gains = [expected[i, new] - expected[i, old] for i, new, old in rows]
    np.testing.assert_allclose(found.score, gains, rtol=0, atol=1e-4)
    optimal = kft.score_mutations(backbone, protein, mutants, "wild_type_marginal", window=window)
    assert np.abs(found.score - optimal.score).max() > 1e-2


@pytest.mark.once
def test_overlapping_windows_of_a_short_protein_are_one_and_other_methods_refuse_them(small):
    given = small, "MKTAYI", ["K2R"]
    whole = kft.score_mutations(*given, "wild_type_marginal", window=8)
    again = kft.score_mutations(*given, "wild_type_marginal", window=8, overlapping=True)
    assert again.score[0] == whole.score[0]
    with pytest.raises(ValueError, match="overlapping must be False for method='masked_marginal'"):
        kft.score_mutations(*given, overlapping=True)


# Notations ----------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("K2R", "MRTAY"),
        (" k2r ", "MRTAY"),
        ("K2R:T3S", "MRSAY"),
        ("T3S;K2R", "MRSAY"),
        ("K2R, T3S", "MRSAY"),
        ("K2R/T3S+Y5W", "MRSAW"),
        ("K2=", "MKTAY"),
        ("WT", "MKTAY"),
        ("K2_", "MTAY"),
        ("K2-:Y5W", "MTAW"),
        ("K2del", "MTAY"),
        ("K2_A4del", "MY"),
        ("K2_T3insGS", "MKGSTAY"),
        ("K2_A4delinsW", "MWY"),
        ("K2delinsWW", "MWWTAY"),
        ("K2_T3dup", "MKTKTAY"),
        ("M1dup:Y5dup", "MMKTAYY"),
        ("p.Lys2Arg", "MRTAY"),
        ("p.(Lys2Arg)", "MRTAY"),
        ("p.Lys2=", "MKTAY"),
        ("p.=", "MKTAY"),
        ("p.[Lys2Arg;Thr3Ser]", "MRSAY"),
        ("p.Lys2del", "MTAY"),
        ("p.Lys2_Ala4del", "MY"),
        ("p.Lys2_Thr3insGlySer", "MKGSTAY"),
        ("p.Lys2_Ala4delinsTrp", "MWY"),
        ("p.Lys2_Thr3dup", "MKTKTAY"),
    ],
)
def test_notations(text, expected):
    assert mutant_of(parse(text), "MKTAY").apply("MKTAY") == expected


@pytest.mark.once
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no mutation is given"),
        (5, "5 is not a string"),
        ("K2", "'K2' is not a known notation; expected A23V"),
        ("K2R:zz", "'zz' in 'K2R:zz' is not a known notation"),
        ("K2X", "'X' as the mutant, which is not one of the 20"),
        ("K2*", r"a stop \(\*\) as the mutant"),
        ("p.Lys2Ter", r"a stop \(\*\) as the mutant"),
        ("K2_T3insGX", "'X' as the mutant"),
        ("p.Lys2fs", "frame shift"),
        ("p.K2R", "not HGVS for proteins"),
        ("p.Lys2Xaa", "not HGVS for proteins"),
        ("K2R:K2S", "changes position 2 twice"),
        ("K2_A4del:T3S", "changes position 3 twice"),
        ("K2dup:K2_", "changes position 2 twice"),
        ("A4_K2del", "position 2 stands after 4"),
        ("K2_A4insG", "between two neighbours"),
        ("K2_T3ins", "expected residues after 'ins'"),
        ("K2delW", "expected no residues after 'del'"),
        ("M1_Y5del", "all residues are deleted"),
    ],
)
def test_a_wrong_notation_is_named(text, message):
    with pytest.raises(ValueError, match=message):
        mutant_of(parse(text), "MKTAY")


# Numberings ---------------------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize(
    ("mutants", "offset", "message"),
    [
        (["K3R", "T4S"], 0, r"mutations\[0\]: position 3 .*: expected K, found T.* 2 of 2 rows .*"
                            "offset=1 would fit all 2 letters"),
        (["K2R", "T3S"], 5, "position 2 is outside .* positions are 6 to 10.*offset=0 would fit"),
        (["K0R"], 0, "position 0 is outside .* 1 to 5"),
        (["Y6W"], 0, "position 6 is outside .* 1 to 5.*offset=1 would fit"),
        (["K-3R"], 0, "position -3 is outside"),
        (["M1A", "K2R", "T8S", "A9V"], 0, r"mutations\[2\]: position 8.* numberings may be mixed: "
                                          "offset=0 fits 2 of 4 letters, offset=5 the other 2"),
        (["W1A", "K2R", "T3S"], 0, "No offset fits all: offset=0 fits 2 of 3 letters"),
    ],
)  # fmt: skip
def test_wrong_letters_are_named_with_the_offset_that_fits(small, mutants, offset, message):
    with pytest.raises(ValueError, match=message):
        kft.score_mutations(small, "MKTAY", mutants, offset=offset)


@pytest.mark.once
def test_an_offset_changes_numbers_alone(small):
    one = kft.score_mutations(small, "MKTAY", ["K2R", "T3_"], "pseudo_perplexity")
    other = kft.score_mutations(small, "mktay", ["K227R", "T228_"], "pseudo_perplexity", offset=225)
    assert other.score.tolist() == one.score.tolist()


# Tables -------------------------------------------------------------------------------------------


def gym():
    """A table as ProteinGym has them, with an index of its own."""
    return pd.DataFrame(
        {
            "mutant": ["K2R", "K2R:T3S", "A4V"],
            "mutated_sequence": ["MRTAY", "MRSAY", "MKTVY"],
            "DMS_score": ["0.5", "-1.0", "2e-1"],
            "DMS_score_bin": [1, 0, 1],
            "note": ["x", "y", "z"],
        },
        index=[7, 3, 5],
    )


@pytest.mark.once
def test_a_table_of_proteingym_comes_back_with_scores(small, tmp_path):
    table = gym()
    found = kft.score_mutations(small, "MKTAY", table)
    plain = kft.score_mutations(small, "MKTAY", list(table.mutant))
    assert found.columns.tolist() == [*table.columns, "mutations", "score", "problem"]
    assert found.index.tolist() == [7, 3, 5] and found.mutations.tolist() == [1, 2, 1]
    assert found.score.tolist() == plain.score.tolist()
    assert found.DMS_score.tolist() == [0.5, -1.0, 0.2]
    path = tmp_path / "gym.csv"
    table.to_csv(path, index=False)
    of_file = kft.score_mutations(small, "MKTAY", path)
    assert of_file.score.tolist() == plain.score.tolist() and of_file.note.tolist() == list("xyz")
    sequences = kft.score_mutations(small, "MKTAY", table[["mutated_sequence"]])
    assert sequences.score.tolist() == plain.score.tolist()
    renamed = table[["mutant"]].rename(columns={"mutant": "variant"})
    other = kft.score_mutations(small, "MKTAY", renamed, column="variant")
    assert other.score.tolist() == plain.score.tolist()
    series = kft.score_mutations(small, "MKTAY", table.mutant)
    assert series.index.tolist() == [7, 3, 5] and series.score.tolist() == plain.score.tolist()
    assert table.equals(gym())


@pytest.mark.once
def test_sequences_of_another_length_are_insertions_or_deletions(small):
    table = pd.DataFrame({"mutated_sequence": ["MKAY", "mktaay"]})
    method = "pseudo_log_likelihood"
    found = kft.score_mutations(small, "MKTAY", table, method)
    named = kft.score_mutations(small, "MKTAY", ["T3_", "A4dup"], method)
    np.testing.assert_allclose(found.score, named.score, atol=1e-5)


@pytest.mark.once
def test_every_row_comes_back_in_order_with_the_reason(small):
    table = gym()[["mutant"]].assign(
        mutant=["K2R", "K2R:T4S", "A4V"], mutated_sequence=["MRTAY", "", "MKTWY"]
    )
    table = pd.concat([table, pd.DataFrame({"mutant": ["A4*"], "mutated_sequence": "MKT"})])
    with pytest.warns(UserWarning, match="3 of 4 rows are not scored; row 3: position 4 of the"):
        found = kft.score_mutations(small, "MKTAY", table, skip_invalid=True)
    assert found.mutant.tolist() == table.mutant.tolist()
    assert found.score.isna().tolist() == [False, True, True, True]
    assert found.mutations.tolist() == [1, 0, 0, 0]
    reasons = ["", "expected T, found A", "not what A4V makes", "a stop"]
    assert all(a in b for a, b in zip(reasons, found.problem, strict=True)), list(found.problem)
    with pytest.warns(UserWarning, match="1 of 1 rows are not scored"):
        none = kft.score_mutations(small, "MKTAY", ["zz"], skip_invalid=True)
    assert none.score.isna().all()
    with pytest.raises(ValueError, match="cannot score insertions and deletions, as pseudo_log"):
        kft.score_mutations(small, "MKTAY", ["K2R", "K2_"])


@pytest.mark.once
def test_repeated_mutants_are_said_and_scored_alike(small):
    with pytest.warns(UserWarning, match="2 of 4 rows are the mutant of an earlier row"):
        found = kft.score_mutations(small, "MKTAY", ["K2R", "T3S", "p.Lys2Arg", "K2R"])
    assert found.score[0] == found.score[2] == found.score[3] != found.score[1]


@pytest.mark.once
@pytest.mark.parametrize(
    ("mutations", "error", "message"),
    [
        ([], ValueError, "mutations is empty"),
        (pd.DataFrame({"mutant": []}), ValueError, "mutations is empty"),
        ("K2R", TypeError, r"mutations must be a list .* write \[mutation\]"),
        (pd.DataFrame({"x": ["K2R"]}), ValueError, "must have a column 'mutant' or"),
        (gym().assign(DMS_score=["1", "high", "2"]), ValueError,
         r"row 3: DMS_score must be a number, received 'high' \(1 of 3"),
        (gym().assign(score=0), ValueError, "has a column 'score', which the result adds"),
        (pd.DataFrame({"mutated_sequence": [5]}), ValueError, "must be a string, received 5"),
        (pd.DataFrame({"mutated_sequence": ["MKTA1KK"]}), ValueError, "standard residues alone"),
        ([None], ValueError, r"mutations\[0\]: None is not a string"),
        ([["K2R"]], ValueError, r"mutations\[0\]: \['K2R'\] is not a string"),
    ],
)  # fmt: skip
def test_wrong_mutations_are_named(small, mutations, error, message):
    with pytest.raises(error, match=message):
        kft.score_mutations(small, "MKTAY", mutations)


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"wild_type": ""}, ValueError, "wild_type must be a string of residues"),
        ({"wild_type": "MK<mask>AY"}, ValueError, "wild_type must be .* with '<'"),
        ({"wild_type": "MK-AY"}, ValueError, "wild_type must be .* with '-'"),
        ({"wild_type": ["MKTAY"]}, TypeError, "wild_type must be a string of residues"),
        ({"wild_type": "MXTAY", "mutations": ["X2R"]}, ValueError, "wild type is 'X'"),
        ({"method": "marginal"}, ValueError, "method must be one of masked_marginal"),
        ({"window": 7}, ValueError, "window must be an integer of at least 8"),
        ({"tokens": 0}, ValueError, "tokens must be an integer"),
        ({"offset": 0.5}, ValueError, "offset must be an integer"),
        ({"skip_invalid": 1}, TypeError, "skip_invalid must be True or False"),
        ({"column": "y"}, ValueError, "column must be one of the columns .* mutant; received 'y'"),
    ],
)
def test_wrong_arguments_are_named(small, change, error, message):
    options = {"wild_type": "MKTAY", "mutations": ["K2R"], **change}
    with pytest.raises(error, match=message):
        kft.score_mutations(small, **options)
