"""What a language model puts in gaps, and how it is scored."""

import keras
import numpy as np
import pytest

import kft
from kft import scoring
from kft.backbones import randomised
from kft.backbones.esm2 import ESM2
from kft.backbones.esm2_tokens import ALPHABET


@pytest.fixture(scope="module")
def backbone():
    return randomised(ESM2(1, 32, 4), seed=0)


def test_gaps_hold_the_models_own_probabilities(backbone):
    sequences = ["MKT<mask>YIAKQR<mask>", "GG", "<mask>" + "A" * 40]
    found = scoring.fill(backbone, sequences, top=20, tokens=64)
    assert [[gap.position for gap in gaps] for gaps in found] == [[4, 11], [], [1]]
    logits = keras.ops.convert_to_numpy(backbone.masked_lm(backbone.encode(sequences[:1])))
    standard = [ALPHABET.index(x) for x in "LAGVSERTIDPKQNFYMHWC"]
    shares = np.exp(logits[0, 4, standard])
    shares /= shares.sum()
    gap = found[0][0]
    assert sum(gap.probabilities) == pytest.approx(1, abs=1e-5)
    assert list(gap.probabilities) == sorted(gap.probabilities, reverse=True)
    for residue, share in zip(gap.residues, gap.probabilities, strict=True):
        assert share == pytest.approx(shares["LAGVSERTIDPKQNFYMHWC".index(residue)], abs=1e-5)
    assert scoring.fill(backbone, sequences[:1])[0][0].residues == gap.residues[:3]


@pytest.mark.once
def test_bad_input(backbone):
    with pytest.raises(ValueError, match="top must be 1 to 20, received 21"):
        scoring.fill(backbone, ["MK<mask>"], top=21)
    with pytest.raises(ValueError, match="sequences must be a list of proteins"):
        scoring.reference_scores(["MKTAYI" * 9], [], kft.backbones.esm2.encode)
    for wrong in ("MKT<mask>", []):
        with pytest.raises(ValueError, match="sequences must be a list of proteins"):
            scoring.fill(backbone, wrong)
    with pytest.raises(ValueError, match="No residue is hidden"):
        scoring.masked_score(backbone, ["XXXX"])


@pytest.mark.once
def test_a_protein_without_an_answer_changes_nothing(backbone):
    """Warnings are errors here: some draws of the proteins hold no <mask> at all."""
    protein = "MKTAYIAKQRQISFVKSHFSRQ" * 3
    one = scoring.masked_score(backbone, [protein])
    two = scoring.masked_score(backbone, [protein, "XXXX"])
    assert two == one and two.perplexity.low == two.perplexity.high


@pytest.mark.once
def test_the_markov_model_knows_neighbours():
    """Each residue follows from its neighbours, which residue frequencies cannot know."""
    corpus = ["LAGV" * 20, "SERT" * 20] * 10
    found = scoring.reference_scores(corpus, corpus, kft.backbones.esm2.encode)
    assert found["Markov model"].accuracy.value > 0.95 > 0.3 > found["uniform"].accuracy.value
    assert found["residue frequencies"].perplexity.value == pytest.approx(8, rel=0.02)
    assert found["Markov model"].perplexity.value < 2
