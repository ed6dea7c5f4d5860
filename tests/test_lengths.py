"""The lengths that batches are padded to."""

import itertools

import keras
import numpy as np
import pytest

from kft.training import lengths
from kft.training.lengths import (
    FEW_LENGTHS,
    WORTH_FEW,
    WORTH_PREDICTING,
    WORTH_TRAINING,
    chosen_lengths,
)


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.setattr(lengths, "compiles_each_length", lambda: True)


def tokens(records, chosen):
    """Tokens of records, each padded to the first of the lengths that holds it."""
    return sum(min(n for n in chosen if n >= record) for record in records)


def cost(records, chosen):
    return sum(lengths.cost(min(n for n in chosen if n >= record)) for record in records)


def proteins(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.clip(rng.lognormal(np.log(300), 0.6, count), 30, 1024).astype(int)


def test_a_processor_compiles_each_length_on_jax_alone():
    on_jax = keras.backend.backend() == "jax"
    assert lengths.compiles_each_length() == on_jax
    assert bool(chosen_lengths(proteins(9), training=True)) == on_jax
    assert lengths.few_lengths() == (FEW_LENGTHS if on_jax else ())


@pytest.mark.once
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("seed", range(3))
def test_no_other_lengths_to_train_on_cost_less(seed):
    records = np.random.default_rng(seed).integers(2, 9, 40) * 200  # multiples of 200 up to 1,600
    chosen = chosen_lengths(records, training=True)
    candidates = sorted({*map(lengths._rounded, records), *chosen})
    costs = [
        cost(records, some) + WORTH_TRAINING * len(some)
        for count in range(1, len(candidates) + 1)
        for some in itertools.combinations(candidates, count)
        if some[-1] >= records.max()
    ]
    assert cost(records, chosen) + WORTH_TRAINING * len(chosen) <= min(costs) + 1e-6


@pytest.mark.once
@pytest.mark.usefixtures("compiled")
def test_many_records_have_little_padding_and_few_have_few_lengths():
    shares, counts = [], []
    for count in (20, 500, 10_000):
        records = proteins(count)
        chosen = chosen_lengths(records, training=True)
        shares.append(tokens(records, chosen) / records.sum())
        counts.append(len(chosen))
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] < 1.06
    assert counts[0] <= 4
    assert counts[0] < counts[1] < counts[2] < 40


@pytest.mark.once
@pytest.mark.usefixtures("compiled")
def test_predictions_share_their_lengths_until_others_pay():
    assert chosen_lengths(np.array([50]), training=False) == (64,)
    for records in ([50, 300, 301], proteins(40)):
        chosen = chosen_lengths(np.array(records), training=False)
        assert set(chosen) <= set(FEW_LENGTHS)
        usual = {min(n for n in FEW_LENGTHS if n >= record) for record in records}
        assert len(chosen) < len(usual)
        spared = WORTH_FEW * (len(usual) - len(chosen))
        assert cost(records, chosen) - spared <= cost(records, FEW_LENGTHS)
    many = proteins(10_000)
    chosen = chosen_lengths(many, training=False)
    more = len(set(chosen) - set(FEW_LENGTHS))
    assert cost(many, chosen) + more * WORTH_PREDICTING < cost(many, FEW_LENGTHS)
    assert tokens(many, chosen) / many.sum() < 1.1


@pytest.mark.once
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("records", [[1], [58] * 4000, [36_000, 50, 5000], [4097], [8, 9]])
def test_every_record_fits(records, training):
    chosen = chosen_lengths(np.array(records), training)
    assert list(chosen) == sorted(set(chosen))
    assert chosen[-1] >= max(records)
    assert tokens(records, chosen) < 2.1 * sum(records) + 8
    if len(set(records)) == 1 and len(records) > 1:
        assert records[0] in chosen  # all have one length: there is no padding
