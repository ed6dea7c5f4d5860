"""The figure of one protein's secondary structure: colours, frames, and what the caption says."""

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from kft.plots import plot_secondary_structure, save_figure

pytestmark = pytest.mark.once

SEQUENCE = "MKTAYIAKQR" * 6  # two lines
TARGETS = np.repeat([0, 2, 1, 0], 15)


def frames(ax):
    """(residue, row) of what has a frame in one line of the figure."""
    found = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    return [(round(f.get_x() + 0.45), round(f.get_y() + 0.4)) for f in found]


def test_every_residue_is_drawn_and_errors_have_a_frame(tmp_path):
    wrong = TARGETS.copy()
    wrong[[3, 52]] = 2
    probabilities = np.eye(3)[TARGETS]
    figure, caption = plot_secondary_structure(
        SEQUENCE, TARGETS, {"probe": wrong, "other": probabilities}, name="1ABC"
    )
    first, second = figure.axes
    assert frames(first) == [(3, 1)] and frames(second) == [(22, 1)]
    assert [text.get_text() for text in first.texts] == list(SEQUENCE[:30]) * 3
    assert [text.get_text() for text in second.texts] == list(SEQUENCE[30:]) * 3
    np.testing.assert_array_equal(first.images[0].get_array()[0], TARGETS[:30])
    assert [label.get_text() for label in second.get_yticklabels()] == [
        "observed",
        "probe",
        "other",
    ]
    assert [label.get_text() for label in second.get_xticklabels()] == ["40", "50", "60"]
    assert "sequence of 1ABC, 60 residues" in caption
    assert "50% coil, 25% strand and 25% helix" in caption
    assert "probe agrees with 58 of 60 residues (97%)" in caption
    assert "other agrees with 60 of 60 residues (100%)" in caption
    assert "coil predicted as helix, 2 of 2 residues" in caption
    assert save_figure(figure, caption, tmp_path / "a.png").stat().st_size > 5000


def test_residues_without_a_known_structure_are_white_and_not_scored():
    mask = np.arange(60) > 4
    predicted = np.where(mask, TARGETS, 2)
    figure, caption = plot_secondary_structure(SEQUENCE, TARGETS, {"probe": predicted}, mask=mask)
    rows = figure.axes[0].images[0].get_array()
    assert (rows[0, :5] == -1).all() and (rows[1, :5] == 2).all() and not frames(figure.axes[0])
    assert "probe agrees with 55 of 55 residues (100%)" in caption and "White: 5 of" in caption
    assert "probe has no error" in caption


def test_classes_may_have_another_order():
    swapped = np.array([2, 1, 0])[TARGETS]
    _, caption = plot_secondary_structure(SEQUENCE, swapped, {"a": swapped}, ("H", "E", "C"))
    assert "25% helix, 25% strand and 50% coil" in caption


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="predictions is empty"):
        plot_secondary_structure(SEQUENCE, TARGETS, {})
    with pytest.raises(ValueError, match=r"predictions\['a'\].*60 residues.*\(3,\)"):
        plot_secondary_structure(SEQUENCE, TARGETS, {"a": [0, 1, 2]})
    with pytest.raises(ValueError, match=r"targets .*60 residues.*\(59,\)"):
        plot_secondary_structure(SEQUENCE, TARGETS[1:], {"a": TARGETS})
    with pytest.raises(ValueError, match="classes must be the letters C, E, H"):
        plot_secondary_structure(SEQUENCE, TARGETS, {"a": TARGETS}, ("a", "b", "c"))
    with pytest.raises(ValueError, match="mask is False for all"):
        plot_secondary_structure(SEQUENCE, TARGETS, {"a": TARGETS}, mask=np.zeros(60, bool))
