"""Raw inputs: the same containers are taken, and the same refused, wherever inputs are given."""

import warnings

import numpy as np
import pandas as pd
import pytest
from models import esm2

import kft
from kft.data import Split
from kft.inference import scoring

pytestmark = pytest.mark.once

PROTEINS = ["MKTAYI", "GSSMKT", "GIGKFL"]
TABLE = pd.DataFrame({"name": list("abc"), "sequence": PROTEINS})

BACKBONE = esm2()
MODEL = kft.Model(BACKBONE, kft.heads.Regression())


def fitted(inputs):
    model = kft.Model(esm2(), kft.heads.Regression())
    kft.fit(model, (inputs, [0.0, 1.0, 2.0]), "linear_probe", verbose=0)
    return kft.predict(model, PROTEINS)


# Everything that takes raw sequences, as a function whose result can be compared.
TAKERS = {
    "encode": lambda x: BACKBONE.encode(x)["token_ids"],
    "embed": lambda x: kft.embed(BACKBONE, x),
    "predict": lambda x: kft.predict(MODEL, x),
    "batches": lambda x: kft.batches(x, BACKBONE.encode, batch_size=3, seed=None)[0]["token_ids"],
    "pair": lambda x: kft.batches((x, [0, 1, 2]), BACKBONE.encode, seed=None)[0][0]["token_ids"],
    "Split": lambda x: np.array(Split(x, [0, 1, 2]).inputs),
    "fill": lambda x: np.array([len(gaps) for gaps in scoring.fill(BACKBONE, x)]),
    "masked_score": lambda x: scoring.masked_score(BACKBONE, x).perplexity.value,
    "fit": fitted,
}
TAKEN = {
    "tuple": tuple,
    "generator": iter,
    "array": np.array,
    "array of objects": lambda x: np.array(x, dtype=object),
    "array of one column": lambda x: TABLE[["sequence"]].to_numpy(),
    "Series": pd.Series,
    "Series of another index": lambda x: pd.Series(x, index=[7, 7, 1], dtype="string"),
    "DataFrame of one column": lambda x: pd.DataFrame({"peptide": x}),
    "DataFrame": lambda x: TABLE,
    "dict's values": lambda x: dict(enumerate(x)).values(),
}
REFUSED = {
    "dict": (dict(enumerate(PROTEINS)), "received a dict: give list"),
    "set": (set(PROTEINS), "received a set, which has no order: give a list"),
    "bytes": (b"MKTAYI", r"received one bytes, b'MKTAYI': write \[(input|sequence)\]"),
    "None": (None, r"received None \(NoneType\)"),
    "number": (3, r"received 3 \(int\)"),
    "list of bytes": ([b"MKT", b"GSS", b"GIG"], "b'MKT'.*bytes"),
    "table": (
        pd.DataFrame({"id": [1, 2, 3], "peptide": PROTEINS}),
        r"a table with the columns id, peptide: give the one that holds the inputs, such as table",
    ),
}


@pytest.fixture(scope="module")
def expected():
    return {name: take(PROTEINS) for name, take in TAKERS.items()}


@pytest.mark.parametrize("container", TAKEN)
def test_what_can_be_listed_is_taken_everywhere(expected, container):
    for name, take in TAKERS.items():
        if name == "fit" and container not in ("DataFrame", "generator"):
            continue  # `kft.batches`, which it calls, is among them
        np.testing.assert_array_equal(take(TAKEN[container](PROTEINS)), expected[name], name)


@pytest.mark.parametrize("container", REFUSED)
@pytest.mark.parametrize("taker", TAKERS)
def test_what_cannot_is_an_error_that_says_what_to_give(taker, container):
    given, message = REFUSED[container]
    with pytest.raises(TypeError, match=message), warnings.catch_warnings():
        warnings.simplefilter("error")
        TAKERS[taker](given)


def test_a_string_is_one_sequence_unless_it_may_be_a_path():
    for name, take in TAKERS.items():
        error = FileNotFoundError if name in ("embed", "predict") else TypeError
        with pytest.raises(error):
            take("MKTAYI")


def test_a_split_stands_for_its_inputs_and_a_data_set_does_not():
    split = Split(PROTEINS, [0.0, 1.0, 2.0])
    np.testing.assert_array_equal(kft.predict(MODEL, split), kft.predict(MODEL, PROTEINS))
    with pytest.raises(TypeError, match="a Dataset: give one of its parts, such as data.test"):
        kft.predict(MODEL, kft.data.load("amp"))


def test_a_row_of_a_table_is_no_sequence():
    with pytest.raises(TypeError, match=r"\(dict\): give one column, as inputs='peptide'"):
        BACKBONE.encode([{"peptide": "MKT", "age": 3}])
