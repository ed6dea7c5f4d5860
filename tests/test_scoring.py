"""What a language model puts in gaps, and how it is scored."""

import interrupted
import keras
import numpy as np
import pytest
from models import esm2

import kft
from kft.backbones.residue_tokens import ALPHABET
from kft.inference import scoring


@pytest.fixture(scope="module")
def backbone():
    return esm2(1, 32, 4)


@pytest.mark.once
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
    for top in (21, 0, 2.5):
        with pytest.raises(ValueError, match=f"top must be an integer from 1 to 20, .* {top}"):
            scoring.fill(backbone, ["MK<mask>"], top=top)
    with pytest.raises(ValueError, match="tokens must be an integer of at least 1, received 8.5"):
        scoring.fill(backbone, ["MK<mask>"], tokens=8.5)
    with pytest.raises(ValueError, match="sequences is empty"):
        scoring.reference_scores(["MKTAYI" * 9], [], kft.backbones.esm2.encode)
    with pytest.raises(ValueError, match="sequences is empty"):
        scoring.fill(backbone, [])
    with pytest.raises(TypeError, match=r"received one string, 'MKT<mask>': write \[sequence\]"):
        scoring.fill(backbone, "MKT<mask>")
    with pytest.raises(ValueError, match="No residue is hidden"):
        scoring.masked_score(backbone, ["XXXX"])


@pytest.mark.once
@pytest.mark.parametrize(
    "change", [{"crop": -1}, {"crop": 1024.0}, {"crop": None}, {"seed": -1}, {"seed": 0.5}]
)
def test_bad_settings(backbone, change):
    ((name, value),) = change.items()
    proteins, message = ["MKTAYI" * 9], f"{name} must be an integer of at least ., .* {value}"
    with pytest.raises(ValueError, match=message):
        scoring.masked_score(backbone, proteins, **change)
    with pytest.raises(ValueError, match=message):
        scoring.reference_scores(proteins, proteins, backbone.encode, **change)


def test_scores_do_not_depend_on_how_they_are_batched(backbone):
    sequences = interrupted.proteins(20)
    one = scoring.masked_score(backbone, sequences, tokens=64)
    two = scoring.masked_score(backbone, sequences, tokens=4096)
    assert one.masked == two.masked
    assert one.perplexity.value == pytest.approx(two.perplexity.value, rel=1e-5)


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
