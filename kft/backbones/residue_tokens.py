"""Tokens of the ESM models: from proteins to token ids.

Reference: `fair-esm` 2.0.0 (`esm/data.py`, `esm/constants.py`). ESM-C has the same ids, but for 31,
which `encode` never gives.

Shapes: `B` proteins in a batch, `L` tokens, `N` residues of one protein.
"""

from collections.abc import Sequence

import numpy as np

from kft.arguments import check_optional_integer
from kft.data import sequences as forms
from kft.data.inputs import InputKind, listed_inputs
from kft.messages import count_of, warn

ALPHABET = (
    "<cls> <pad> <eos> <unk> L A G V S E R T I D P K Q N F Y M H W C X B U Z O . - <null_1> <mask>"
).split()
CLS, PAD, EOS, MASK = (ALPHABET.index(token) for token in ("<cls>", "<pad>", "<eos>", "<mask>"))

_MASK_STAND_IN = "\0"  # one character for "<mask>" while a string is looked up
_TOKEN_OF_BYTE = np.full(256, -1, dtype="int32")
for _token in [*(t for t in ALPHABET if len(t) == 1), _MASK_STAND_IN]:
    _TOKEN_OF_BYTE[ord(_token)] = MASK if _token == _MASK_STAND_IN else ALPHABET.index(_token)


def residue_tokens(sequence: str, name: str = "sequence") -> np.ndarray:
    """Return the token ids of one protein, without <cls> and <eos>.

    Args:
        sequence: One-letter residues in upper or lower case, with "<mask>", "-" and "." where
            there are any. Space around it and one stop (*) at its end are left out.
        name: Name of the sequence in errors.

    Returns:
        int32 array (N,).

    Raises:
        TypeError: Not a string.
        ValueError: The sequence is empty or has a character that is not a residue; the message
            names it and its position.

    Example:
        >>> residue_tokens("MKT").tolist()
        [20, 15, 11]
    """
    if not isinstance(sequence, str):
        advice = ": write .decode() for bytes" * isinstance(sequence, bytes)
        if isinstance(sequence, list | tuple) and len(sequence) == 2:
            advice = ": for pairs take kft.PairBackbone(backbone)"
        if isinstance(sequence, dict):  # a row of a table, of which a model takes one column
            advice = f": give one column, as inputs={next(iter(sequence), 'sequence')!r}"
        raise TypeError(
            f"{name} must be a string of one-letter residues, received {sequence!r:.40} "
            f"({type(sequence).__name__}){advice}."
        )
    text = forms.normal(sequence)
    if not text:
        held = f" but for {sequence.strip() or sequence!r}" * bool(sequence)
        raise ValueError(f"{name} is empty{held}: it must hold at least one residue.")
    # A stand-in that is in the sequence itself is not a <mask>; it becomes an error below.
    if not text.isascii() or _MASK_STAND_IN in text:
        text = "".join(c if c.isascii() and c != _MASK_STAND_IN else "?" for c in text).upper()
        text = text.replace("<MASK>", "<mask>")
    text = text.replace("<mask>", _MASK_STAND_IN)
    tokens = _TOKEN_OF_BYTE[np.frombuffer(text.encode("ascii"), dtype="uint8")]
    if tokens.min() < 0:
        at = int(np.argmax(tokens < 0))
        at += 5 * text[:at].count(_MASK_STAND_IN)  # "<mask>" is six characters of the original
        at += len(sequence) - len(sequence.lstrip())
        raise ValueError(
            f"{name} has {sequence[at]!r} at position {at + 1}, which is not a residue. Known are "
            f"{''.join(t for t in ALPHABET if len(t) == 1)} and <mask>; write X for an unknown "
            f"residue."
        )
    return tokens


def encode(
    sequences: Sequence[str],
    max_length: int | None = None,
    pad_lengths: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Return the model's input for proteins: <cls> residues <eos>, then <pad>.

    Args:
        sequences: List of strings, see `residue_tokens`.
        max_length: Number of residues to keep from the start of each protein; a warning says how
            many were cut. None keeps all.
        pad_lengths: Ascending token counts. The batch is padded to the first that holds its
            longest protein, so that few shapes occur and little is compiled. None pads to the
            longest.
        names: Name of each sequence in errors, None for "sequences[0]" and so on.

    Returns:
        {"token_ids": int32 array (B, L)}. A warning says how many sequences had a stop at
        the end or space around them, and how many look like DNA.

    Raises:
        TypeError: None, a single string, or an element that is not a string.
        ValueError: No sequences, an empty one, a character that is not a residue, or `max_length`
            below 1.

    Example:
        >>> encode(["MKT", "A"])["token_ids"].tolist()
        [[0, 20, 15, 11, 2], [0, 5, 2, 1, 1]]
    """
    sequences = listed_inputs(sequences, "sequences")
    check_optional_integer("max_length", max_length)
    names = names or [f"sequences[{i}]" for i in range(len(sequences))]
    rows = [residue_tokens(s, name) for s, name in zip(sequences, names, strict=True)]
    if not rows:
        raise ValueError("sequences is empty: give at least one protein.")
    counts = forms.changes(sequences)
    del counts["case"]  # lower case is fine here; the readers of files report it
    forms.warn_of_changes(counts, len(rows))
    if max_length is not None:
        cut = [len(row) - max_length for row in rows if len(row) > max_length]
        if cut:
            warn(
                f"{len(cut)} of {len(rows)} sequences were longer than max_length={max_length}: "
                f"{count_of(sum(cut), 'residue')} cut from their ends."
            )
        rows = [row[:max_length] for row in rows]
    length = max(map(len, rows)) + 2
    length = next((p for p in pad_lengths or () if p >= length), length)
    token_ids = np.full((len(rows), length), PAD, dtype="int32")
    for out, row in zip(token_ids, rows, strict=True):
        out[0], out[1 : len(row) + 1], out[len(row) + 1] = CLS, row, EOS
    return {"token_ids": token_ids}


# What an encoder states about itself, see `kft.data.inputs.Encoder`.
vars(encode).update(
    input_kind=InputKind.SEQUENCE,
    specials=(1, 1),  # <cls> and <eos>
    pad={"token_ids": PAD},
    check=None,
    changes=forms.changes,
    alphabet=tuple(ALPHABET),
)
