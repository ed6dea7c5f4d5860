"""Fit the contact head of ESM-2, a logistic regression on its attention maps, on a few chains.

Reference: Rao et al. 2020, "Transformer protein language models are unsupervised structure
learners", doi 10.1101/2020.12.15.422761, sections 3.4 and A.7: L1 penalty with C = 0.15, 20 chains.
No difference.

Shapes: `B` = 1 chain, `H` attention maps of all blocks, `L` tokens, `N` residues, `R` pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
from keras import ops
from sklearn.linear_model import LogisticRegression

from kft.arguments import check_instance, check_number_above
from kft.data.dataset import Split
from kft.params.paths import check_model


def fit_contacts(backbone: keras.Model, chains: Split, C: float = 0.15) -> int:
    """Fit the contact head of a backbone on chains whose contacts are known; nothing else changes.

    `backbone.contacts` then predicts with it. Few chains suffice, since the head has one weight for
    each attention map; Rao et al. take 20.

    Args:
        backbone: An ESM-2.
        chains: Chains with targets and masks (residues, residues), such as
            `kft.data.load("chains", target="contacts").train.take(range(20))`.
        C: Inverse strength of the L1 penalty, as scikit-learn has it.

    Returns:
        Number of attention maps that have a weight other than 0.

    Raises:
        TypeError: `backbone` is no model, or `chains` is no `kft.data.Split`.
        ValueError: The backbone has no contact head, or the chains have no contacts, or no masks of
            pairs.

    Source: Rao et al. 2020.

    Example:
        >>> import kft
        >>> backbone = kft.load("esm2_t6_8M_UR50D", weights=False)
        >>> near = abs(np.subtract.outer(range(9), range(9))) == 7
        >>> far = abs(np.subtract.outer(range(9), range(9))) > 5
        >>> fit_contacts(backbone, Split(["MKTAYIAKQ"], [near.astype(int)], masks=[far])) <= 120
        True
    """
    check_model(backbone, "backbone")
    check_instance("chains", chains, Split, "a kft.data.Split")
    check_number_above("C", C, 0)
    contacts: Any = getattr(backbone, "contacts", None)
    if contacts is None:
        raise ValueError(
            f"backbone must have a contact head, as ESM-2 has, received {backbone.name!r}: train "
            f"the head kft.heads.Contacts on it instead."
        )
    if not len(chains) or chains.masks is None or any(np.ndim(mask) != 2 for mask in chains.masks):
        raise ValueError(
            "chains must have targets and masks (residues, residues), as those of "
            'kft.data.load("chains", target="contacts").train have.'
        )
    rows, truth = _pairs(backbone, contacts, chains)
    if len(np.unique(truth)) < 2:
        raise ValueError(
            f"chains must have pairs in contact and pairs apart, received {len(truth):,} pairs of "
            f"one kind."
        )
    fitted = LogisticRegression(
        l1_ratio=1.0, C=C, solver="liblinear", max_iter=1000, random_state=0
    )
    fitted.fit(rows, truth)
    head = contacts.get_layer("contact_head")
    head.kernel.assign(fitted.coef_.T.astype("float32"))  # (H, 1)
    head.bias.assign(fitted.intercept_.astype("float32"))
    report = getattr(backbone, "load_report", None)
    if report is not None:  # so that the head is saved, where the file of the backbone held none
        missing = tuple(path for path in report.missing if not path.startswith("contact_head/"))
        backbone.load_report = replace(report, missing=missing)
    return int(np.count_nonzero(fitted.coef_))


def _pairs(backbone: Any, contacts: keras.Model, chains: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the maps (R, H) of all pairs that count, and whether each is in contact (R,)."""
    head = contacts.get_layer("contact_head")
    attend = keras.Model(contacts.input, head.input)  # attention of each block, and the tokens
    rows, truth = [], []
    for sequence, targets, mask in zip(
        chains.inputs, chains.targets, chains.masks or (), strict=True
    ):
        *attentions, tokens = attend.predict_on_batch(backbone.encode([sequence]))
        maps = ops.convert_to_numpy(head.maps(attentions, tokens))[0]  # (H, N, N)
        first, second = np.nonzero(np.triu(mask))
        rows.append(maps[:, first, second].T)
        truth.append(np.asarray(targets)[first, second])
    return np.concatenate(rows), np.concatenate(truth)
