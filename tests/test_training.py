"""The same training run on every backend: 50 steps beside transformers with plain torch."""

from functools import partial
from itertools import islice

import keras
import numpy as np
import pytest
import references
import torch
from parity import assert_rounds_alike

import kft

pytestmark = pytest.mark.usefixtures("optimised")

STEPS, RATE, MOMENTUM = 50, 0.02, 0.9
# What rounding in float32 grows to in 50 steps, in epsilons of the largest loss: measured 1.3.
ROUNDINGS = 64


def batches():
    """The same 50 batches for everybody: proteins of two kinds, padded to 32 tokens.

    A fifth of the labels is wrong, so that the loss stays at a height where it can differ.
    """
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        kinds = rng.integers(0, 2, 8)
        proteins = [
            "".join(rng.choice(list(("ADEGLST", "AFIKRVW")[kind]), rng.integers(5, 30)))
            for kind in kinds
        ]
        labels = np.where(rng.random(8) < 0.2, 1 - kinds, kinds).astype("int32")
        yield kft.backbones.esm2.encode(proteins, pad_lengths=(32,)), labels


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM)


def reference_curve(reference, make=sgd, clip=None):
    """Mean pooling over residues, a zero-initialised linear layer, SGD with momentum."""
    model, head = reference.esm, torch.nn.Linear(32, 2)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = make(parameters)
    for inputs, kinds in batches():
        ids = torch.tensor(inputs["token_ids"]).long()
        hidden = model(ids, attention_mask=(ids != 1).long()).last_hidden_state
        residues = ((ids != 0) & (ids != 1) & (ids != 2)).float()
        pooled = torch.einsum("bl,bld->bd", residues / residues.sum(1, keepdim=True), hidden)
        loss = torch.nn.functional.cross_entropy(head(pooled), torch.tensor(kinds).long())
        optimizer.zero_grad()
        loss.backward()
        for parameter in parameters if clip else ():  # Keras clips each weight by itself
            torch.nn.utils.clip_grad_norm_([parameter], clip)
        optimizer.step()
        yield float(loss.detach())


def test_loss_curve_is_the_references():
    reference = references.hugging_face(2, 32, 4)
    model = kft.Model(references.from_reference(reference), kft.heads.Classification(2))
    model.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM), loss="sparse_categorical_crossentropy"
    )
    curve = []
    for inputs, kinds in batches():
        model.reset_metrics()
        curve.append(float(model.train_on_batch(inputs, kinds)))
    expected = np.array(list(reference_curve(reference)))
    assert np.ptp(expected) > 0.3, "nothing moved that could differ"
    assert_rounds_alike(curve, expected, ROUNDINGS, "the losses")


def test_adam_means_the_same_everywhere(as_written):
    """Its squares tell whether the gradient of a table that is looked up is one table."""
    reference = references.hugging_face(2, 32, 4)
    model = kft.Model(references.from_reference(reference), kft.heads.Classification(2))
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-12, clipnorm=0.1),
        loss="sparse_categorical_crossentropy",
    )
    table = reference.esm.embeddings.word_embeddings.weight
    before = table.detach().numpy().copy()
    for inputs, kinds in islice(batches(), 3):
        model.train_on_batch(inputs, kinds)
    adam = partial(torch.optim.Adam, lr=1e-2, eps=1e-12)
    list(islice(reference_curve(reference, adam, clip=0.1), 3))
    moved = keras.ops.convert_to_numpy(model.backbone.stages[0].tokens.embeddings.value) - before
    expected = table.detach().numpy() - before
    assert np.abs(expected).max() > 1e-2
    # Where a gradient is near zero Adam takes a whole step by its rounding: here and there one may.
    errors = np.abs(moved - expected)
    assert np.quantile(errors, 0.99) < 1e-3 * 1e-2
