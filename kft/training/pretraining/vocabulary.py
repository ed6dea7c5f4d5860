"""The tokens that masked language modelling hides and predicts, as an encoder states them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kft.data.inputs import encoder_info

RESIDUES = "LAGVSERTIDPKQNFYMHWC"  # the 20 standard ones
MASK = "<mask>"
MOST = 127  # tokens, since a corpus is kept in one byte for each


class Vocabulary(NamedTuple):
    """Tokens of a language model, and the ids of those that have a role.

    Attributes:
        tokens: Tokens in the order of their ids.
        mask: Id of "<mask>".
        pad: Id at padded positions.
        standard: int32 array (20,), ids of the standard residues.
    """

    tokens: tuple[str, ...]
    mask: int
    pad: int
    standard: np.ndarray


def vocabulary_of(encode: Callable[..., dict[str, Any]]) -> Vocabulary:
    """Return the tokens of an encoder of proteins.

    Args:
        encode: A backbone's `encode`, which states `alphabet` and `pad`, see
            `kft.data.inputs.Encoder`.

    Raises:
        ValueError: It states no padding or no alphabet, or the alphabet is too large, or lacks
            "<mask>" or a standard residue.

    Example:
        >>> import kft
        >>> found = vocabulary_of(kft.backbones.esm2.encode)
        >>> found.tokens[found.mask], found.pad, len(found.standard)
        ('<mask>', 1, 20)
    """
    info = encoder_info(encode)
    tokens, pad = info.alphabet or (), (info.pad or {}).get("token_ids")
    missing = [token for token in (MASK, *RESIDUES) if token not in tokens]
    if missing or pad is None or len(tokens) > MOST:
        received = f"{len(tokens)} tokens, pad={info.pad!r}"
        raise ValueError(
            f"encode must state its alphabet of at most {MOST} tokens, with {MASK} and the 20 "
            f'standard residues, and pad={{"token_ids": an id}}; received {received}'
            f"{f', without {missing[0]}' if missing else ''}."
        )
    standard = np.array([tokens.index(letter) for letter in RESIDUES], dtype="int32")
    return Vocabulary(tokens, tokens.index(MASK), int(pad), standard)
