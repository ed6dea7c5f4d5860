"""How near float32 must come to the truth: the bounds of all parity tests (DESIGN.md, rule 6)."""

import numpy as np

EPSILON = np.finfo("float32").eps  # 1.2e-7
FEWEST = 64  # numbers without which a root mean square says little


def errors(found, truth):
    """Root mean square and largest absolute difference, in float64."""
    difference = np.asarray(found, "float64") - np.asarray(truth, "float64")
    return np.sqrt(np.mean(difference**2)), np.abs(difference).max()


def assert_parity(found, reference, truth, what="output"):
    """Checks that our float32 error is that of the reference's own float32.

    How large one rounding error out of thousands becomes depends on the processor; their root mean
    square does not. So it is held to 1.5 times the reference's own, and the largest error only to
    four times the reference's largest plus 16 epsilons of the largest value.

    Args:
        found: float32 values of ours, at least 64, where the output means something: no padding.
        reference: the same of the reference run in float32.
        truth: the same of the reference run in float64.
        what: how to call them in the message.

    Returns:
        (ours, theirs): each a root mean square and a largest error.
    """
    found, reference, truth = (np.asarray(x) for x in (found, reference, truth))
    assert found.shape == reference.shape == truth.shape, what
    assert truth.dtype == np.float64, f"{what}: the truth is {truth.dtype}"
    assert truth.size >= FEWEST, f"{what}: {truth.size} values are too few to compare"
    assert np.isfinite(found).all(), f"{what} is not finite"
    largest_value = np.abs(truth).max()
    assert largest_value > 0.1, f"{what}: the comparison is of numbers near zero"
    ours, theirs = errors(found, truth), errors(reference, truth)
    said = "{}: rms {:.2e}, largest {:.2e}; the reference's {:.2e}, {:.2e}"
    said = said.format(what, *ours, *theirs)
    assert ours[0] <= 1.5 * theirs[0], said
    assert ours[1] <= 4 * theirs[1] + 16 * EPSILON * largest_value, said
    return ours, theirs


def assert_rounds_alike(found, expected, roundings=64, what="output"):
    """Checks that two ways of computing the same float32 numbers differ by rounding alone.

    Args:
        found, expected: arrays of one shape, of the same computation in another order.
        roundings: epsilons of the largest value that the difference may reach: of a few layers of
            width below 100 it is up to 10 (measured), and a mistake is thousands.
        what: how to call them in the message.
    """
    found, expected = (np.asarray(x, "float64") for x in (found, expected))
    assert found.shape == expected.shape, f"{what}: {found.shape}, {expected.shape}"
    allowed = roundings * EPSILON * max(np.abs(expected).max(initial=0), 1e-3)
    worst = np.abs(found - expected).max(initial=0)
    assert worst <= allowed, f"{what}: differ by {worst:.2e}, more than {allowed:.2e}"
