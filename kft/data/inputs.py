"""What an input is: lists of raw inputs, their kind, and what encoders state about theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from os import PathLike
from typing import Any, Protocol

import numpy as np

from kft.messages import listed


class InputKind(StrEnum):
    """What the inputs of a data set or of an encoder are; it compares equal to its name.

    "sequence": strings of residues, which differ in length. "pair": two of these each. "image":
    paths, PIL images or arrays of pixels. "table": rows of a table, each a dict of numbers and
    categories by column. "row": arrays of numbers of one shape, or dicts of them.

    Example:
        >>> InputKind("sequence").has_length, InputKind("image") == "image"
        (True, True)
    """

    SEQUENCE = "sequence"
    PAIR = "pair"
    IMAGE = "image"
    TABLE = "table"
    ROW = "row"

    def __repr__(self) -> str:
        return repr(self.value)

    @property
    def has_length(self) -> bool:
        """Whether inputs differ in length, so that batches put similar lengths together."""
        return self in (InputKind.SEQUENCE, InputKind.PAIR)


def kind_of(inputs: Sequence[Any]) -> InputKind:
    """Return the kind of inputs by their Python types. Nothing else in kft decides it.

    Args:
        inputs: List of N inputs. Strings are sequences. So is what fits no other kind, such as an
            input that is None: encoders say what is wrong with it.

    Example:
        >>> kind_of(["MKTAYI", "GSS"]), kind_of([np.zeros((8, 8))]), kind_of([np.zeros(3)])
        ('sequence', 'image', 'row')
        >>> kind_of([{"age": 31.0, "sex": "f"}]), kind_of([("MKTAYI", "GSS")])
        ('table', 'pair')
    """
    if not len(inputs) or all(isinstance(x, str) for x in inputs):
        return InputKind.SEQUENCE
    first = next(x for x in inputs if not isinstance(x, str))
    if isinstance(first, list | tuple) and len(first) == 2 and isinstance(first[0], str):
        return InputKind.PAIR
    if isinstance(first, PathLike) or hasattr(first, "convert"):  # as PIL's images have
        return InputKind.IMAGE
    if isinstance(first, dict) and first and not any(map(np.ndim, first.values())):
        return InputKind.TABLE
    if isinstance(first, dict) or np.ndim(first) == 1 or np.ndim(first) > 3:
        return InputKind.ROW
    return InputKind.IMAGE if np.ndim(first) else InputKind.SEQUENCE


def residues_in(x: Any) -> int:
    """Return the length of a sequence, or that of the longer one of a pair.

    Args:
        x: An input that has a length, see `InputKind.has_length`.

    Example:
        >>> residues_in("MKT"), residues_in(("MKT", "GSSGIG"))
        (3, 6)
    """
    return len(x) if isinstance(x, str) else max(map(len, x))


SEQUENCE_COLUMN = "sequence"  # the column that is taken of a table with several, if there is one


def listed_inputs(inputs: Any, name: str = "inputs") -> list[Any]:
    """Return raw inputs as a list. Everything in kft that takes raw inputs calls this function.

    Args:
        inputs: A list, tuple, array, generator or other iterable of inputs; a pandas Series; a
            DataFrame with one column, or with one named "sequence"; or an object with `inputs`,
            such as a `kft.data.Split`.
        name: Name of the argument in errors.

    Returns:
        list: the inputs; a list is returned unchanged.

    Raises:
        TypeError: A single string, bytes, a dict, a set, None or a number; or a table with several
            columns, none of them named "sequence". The message says what to give.

    Example:
        >>> import pandas as pd
        >>> listed_inputs(pd.DataFrame({"sequence": ["MKT", "GSS"], "y": [0, 1]}))
        ['MKT', 'GSS']
        >>> listed_inputs({"a": "MKT"})
        Traceback (most recent call last):
        ...
        TypeError: inputs must be a list of inputs, received a dict: give list(inputs.values()).
    """
    if isinstance(inputs, list):
        return inputs
    inputs = getattr(inputs, "inputs", inputs) if hasattr(inputs, "targets") else inputs
    if hasattr(inputs, "columns") and hasattr(inputs, "__getitem__"):
        return list(inputs[input_column(list(inputs.columns), name)])
    if isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OUST" and inputs.shape[1:] == (1,):
        return list(inputs[:, 0])  # of `table[["sequence"]].to_numpy()`
    remedy = _remedy(inputs, name)
    if remedy is None:
        return list(inputs)
    raise TypeError(f"{name} must be a list of inputs, received {remedy}.")


def _remedy(inputs: Any, name: str) -> str | None:
    """Return what was received and what to give for it; None for what can be made a list."""
    kind, one = type(inputs).__name__, name.removesuffix("s")
    if isinstance(inputs, str | bytes | bytearray):
        kind = "string" if isinstance(inputs, str) else kind
        return f"one {kind}, {inputs[:20]!r}: write [{one}]"
    if isinstance(inputs, PathLike) or hasattr(inputs, "convert"):  # as PIL's images have
        return f"one {kind}: write [{one}]"
    if isinstance(inputs, Mapping):
        return f"a {kind}: give list({name}.values())"
    if isinstance(inputs, Set):
        return f"a {kind}, which has no order: give a list"
    if hasattr(inputs, "train"):
        return f"a {kind}: give one of its parts, such as data.test"
    if not np.iterable(inputs):
        return f"{inputs!r:.60} ({kind}): write [{one}] for a single one"
    return None


def input_column(columns: Sequence[Any], name: str = "inputs") -> Any:
    """Return the column of a table that holds the inputs: the only one, or the one "sequence".

    Args:
        columns: Names of the columns.
        name: Name of the argument in errors.

    Raises:
        TypeError: There are several, and none is named "sequence".

    Example:
        >>> input_column(["id", "sequence"]), input_column(["peptide"])
        ('sequence', 'peptide')
    """
    if len(columns) == 1 or SEQUENCE_COLUMN in columns:
        return SEQUENCE_COLUMN if SEQUENCE_COLUMN in columns else columns[0]
    raise TypeError(
        f"{name} is a table with the columns {listed(columns)}: give the one that holds the "
        f"inputs, such as table[{columns[0] if columns else 'sequence'!r}]."
    )


class Encoder(Protocol):
    """What a backbone's `encode` is: a callable that states which inputs it takes.

    A plain function with the same arguments is enough: `encoder_info` fills in what it does not
    state.

    Attributes:
        input_kind: An `InputKind` or its name: which inputs it takes.
        specials: Numbers of special tokens before and after the residues of a sequence: (1, 1) for
            "<cls> residues <eos>", (0, 0) where there are none.
        pad: {name of an array: value at padded positions}, so that encoded sequences can be kept
            and padded later; None if they are encoded again for each batch.
        check: Function (inputs, names) that raises what is wrong with inputs of one size before
            training starts, or None. Sequences are encoded one by one to find out.
        changes: Function of the inputs that counts what encoding changes in them, see
            `kft.data.sequences.changes`; or None.
        alphabet: Tokens in the order of their ids, which masked language modelling needs, see
            `kft.pretraining`; or None.
        deterministic: Whether the same input always gives the same arrays, so that `kft.fit` may
            encode each image once and keep it. Not so for an encoder that augments at random.
    """

    input_kind: str
    specials: tuple[int, int]
    pad: dict[str, float] | None
    check: Callable[[Sequence[Any], Sequence[str]], None] | None
    changes: Callable[[Sequence[Any]], Counter] | None
    alphabet: Sequence[str] | None
    deterministic: bool

    def __call__(
        self,
        inputs: Sequence[Any],
        max_length: int | None = None,
        pad_lengths: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Turn inputs into the arrays that a model takes.

        Args:
            inputs: List of B inputs.
            max_length: Number of residues to keep of each sequence; None keeps all.
            pad_lengths: Ascending numbers of tokens; a batch is padded to the first that holds it.
            names: Names of the inputs in errors.

        Returns:
            dict of arrays (B, ...); of sequences (B, L), special tokens included.
        """


@dataclass(frozen=True)
class EncoderInfo:
    """Properties of an encoder, see `Encoder`."""

    input_kind: InputKind
    specials: tuple[int, int]
    pad: dict[str, float] | None
    check: Callable[[Sequence[Any], Sequence[str]], None] | None
    changes: Callable[[Sequence[Any]], Counter] | None
    alphabet: tuple[str, ...] | None
    deterministic: bool

    def residues(self, tokens: int) -> slice:
        """Return the slice of the residues among the tokens of one sequence.

        Args:
            tokens: Number of tokens of the sequence, special ones included and padding not.

        Example:
            >>> encoder_info(None, ["MKT"]).residues(5)
            slice(1, 4, None)
        """
        before, after = self.specials
        return slice(before, tokens - after)


# Default for a function without this attribute: the special tokens of ESM-2 and BERT. Where it is
# wrong, targets of residues do not fit their tokens, which is an error.
SPECIALS = (1, 1)


def encoder_info(
    encode: Callable[..., dict[str, np.ndarray]] | None, inputs: Sequence[Any] = ()
) -> EncoderInfo:
    """Return the properties of an encoder, with defaults for those that it does not have.

    Args:
        encode: An `Encoder`, or a function with the same arguments and some of its attributes or
            none, or None. `encode.specials = (0, 0)` states that there are no special tokens.
        inputs: Inputs to encode; their kind is taken if `encode` has no `input_kind`.

    Example:
        >>> encoder_info(lambda inputs: {"x": np.array(inputs)}, [np.zeros(3)]).input_kind
        'row'
    """
    alphabet = getattr(encode, "alphabet", None)
    return EncoderInfo(
        input_kind=InputKind(getattr(encode, "input_kind", None) or kind_of(inputs)),
        specials=tuple(getattr(encode, "specials", SPECIALS)),
        pad=getattr(encode, "pad", None),
        check=getattr(encode, "check", None),
        changes=getattr(encode, "changes", None),
        alphabet=None if alphabet is None else tuple(alphabet),
        deterministic=getattr(encode, "deterministic", False),
    )
