"""Checks of assignment 9."""

import numpy as np

import kft
from kft import structure
from kft.course import Wrong, caption_is_complete, equal_numbers, frozen_unmoved, hidden
from kft.evaluation.structures import directions

IDENTITY = 0.8


# What is right ------------------------------------------------------------------------------------


def right_weights(letters, identity=IDENTITY):
    equal = (letters[:, None] == letters[None]).sum(axis=-1)
    return 1 / (equal >= identity * letters.shape[1]).sum(axis=1)


def right_precision(values, contacts, most):
    return structure.contact_precision(
        values, contacts, np.ones(contacts.shape, bool), 1, None, most / len(contacts)
    )


def count_of_contacts(contacts):
    return int(contacts.sum()) // 2


# On any data --------------------------------------------------------------------------------------


def weights_hold(work, letters, identity=IDENTITY):
    line, found = work.line_of("weights"), work.weights(letters, identity)
    if np.shape(found) == (len(letters),) and np.allclose(found, 1):
        raise Wrong("`weights` gives each sequence the weight 1: near copies must share one.", line)
    equal_numbers(
        "`weights(letters)`", found, right_weights(letters, identity), line=line,
        why="one over the number of similar sequences",
    )  # fmt: skip


def information_holds(work, family):
    weight = structure.sequence_weights(family, IDENTITY)
    line = work.line_of("mutual_information")
    found = work.mutual_information(family.letters, weight.copy())
    right = structure.mutual_information(family, IDENTITY, corrected=False)
    if np.allclose(found, work.mutual_information(family.letters, weight**2)):  # other weights
        raise Wrong("`mutual_information` does not use the weights that it is given.", line)
    if np.shape(found) == right.shape and np.allclose(found, right / np.log(2), atol=1e-6):
        raise Wrong("`mutual_information` is in bits: take the natural logarithm.", line)
    equal_numbers(
        "`mutual_information`", found, right, line=line, why="that of the weighted frequencies"
    )


def correction_holds(work, rng):
    values = rng.gamma(2, 1, (9, 9))
    values = values + values.T
    np.fill_diagonal(values, 0)
    kept = values.copy()
    found = work.corrected(values)
    line = work.line_of("corrected")
    if not np.array_equal(values, kept):
        raise Wrong("`corrected` changes the array that it is given: work on a copy.", line)
    equal_numbers(
        "`corrected`", found, structure.average_product_correction(kept), line=line,
        why="the average product correction (the means are over the other columns)",
    )  # fmt: skip


def precision_holds(work, contacts, rng):
    line, most = work.line_of("precision"), count_of_contacts(contacts)
    for count in (1, most // 2, most, 2 * most):
        values = rng.normal(size=contacts.shape) + 0.8 * contacts
        values = values + values.T
        np.fill_diagonal(values, values.max() + 1)  # which is no pair
        equal_numbers(
            f"`precision` of the {count} highest pairs", work.precision(values, contacts, count),
            right_precision(values, contacts, count), line=line,
            why="the share of contacts among the pairs i < j of the highest values",
        )  # fmt: skip


def dihedral_holds(work, rng):
    line = work.line_of("dihedral")
    points = rng.normal(size=(4, 50, 3))
    right = structure.dihedral(*points)
    found = np.asarray(work.dihedral(*points), "float64")
    if found.shape == right.shape and np.allclose(abs(found), abs(right)):
        if (found >= 0).all():
            raise Wrong("`dihedral` has lost the sign, as `arccos` does: use `arctan2`.", line)
        if np.allclose(found, -right):
            raise Wrong("`dihedral` has the wrong sign: it is that of the mirror image.", line)
    equal_numbers("`dihedral`", found, right, line=line, why="the angle of the two planes")


def contact_map_holds(work, rng):
    line = work.line_of("contact_map")
    points = np.cumsum(rng.normal(0, 2.2, (30, 3)), axis=0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    number = np.arange(len(points))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    for cutoff, apart in ((8.0, 6), (5.0, 3)):
        right = (distance < cutoff) & (abs(number[:, None] - number[None]) >= apart)
        for moved in (points, points @ turn + rng.normal(0, 9, 3)):
            found = np.asarray(work.contact_map(moved, cutoff, apart))
            if found.shape == right.shape and np.array_equal(found, distance < cutoff):
                raise Wrong("`contact_map` counts neighbours in the sequence: use `apart`.", line)
            equal_numbers(
                f"`contact_map` with cutoff {cutoff:g} and apart {apart}", found, right, line=line,
                why=f"the pairs nearer than {cutoff:g} angstrom and {apart} or more residues apart",
            )  # fmt: skip


def angle_error_holds(work, rng):
    line = work.line_of("angle_error")
    one, other = rng.uniform(-np.pi, np.pi, (2, 200))
    right = np.rad2deg(np.abs(np.angle(np.exp(1j * (one - other)))))
    found = np.asarray(work.angle_error(one, other), "float64")
    if found.shape == right.shape and found.max() > 180 + 1e-6:
        raise Wrong(
            f"`angle_error` gives up to {found.max():.0f}°: from -179° to 179° it is 2° and not "
            f"358°.",
            line,
        )
    equal_numbers("`angle_error`", found, right, line=line, why="the shortest way in degrees")


# Of the student's own data ------------------------------------------------------------------------


def check_weights(work, data):
    weights_hold(work, data["family"].letters)


def check_information(work, data):
    information_holds(work, data["family"])


def check_correction(work, data, rng):
    correction_holds(work, rng)


def check_precision(work, data, rng):
    precision_holds(work, data["contacts"], rng)


def check_dihedral(work, data, rng):
    dihedral_holds(work, rng)


def check_contact_map(work, data, rng):
    contact_map_holds(work, rng)


def check_angle_error(work, data, rng):
    angle_error_holds(work, rng)


def check_scores(work, data):
    family, contacts, line = data["family"], data["contacts"], work.line_of("scores")
    most, columns = count_of_contacts(contacts), family.columns
    information = structure.mutual_information(family, corrected=False)
    right = {
        "information": right_precision(information, contacts, most),
        "corrected": right_precision(structure.mutual_information(family), contacts, most),
        "direct": right_precision(structure.direct_couplings(family), contacts, most),
        "chance": 2 * most / (columns * (columns - 1)),
    }
    if not isinstance(work.scores, dict) or set(work.scores) != set(right):
        raise Wrong(f"`scores` must be a dict with {', '.join(right)}.", line)
    for name, value in right.items():
        equal_numbers(
            f"scores[{name!r}]", work.scores[name], value, 1e-3, line, "that of your family"
        )


def check_direct(work, data, rng):
    line = work.line_of("difference")
    for seed in rng.integers(1000, size=2):
        family, contacts = structure.simulate_family(400, 24, 32, sweeps=12, seed=int(seed))
        most = count_of_contacts(contacts)
        information = structure.mutual_information(family, corrected=False)
        direct = right_precision(structure.direct_couplings(family), contacts, most)
        right = direct - right_precision(information, contacts, most)
        found = work.difference(int(seed))
        if right and np.isclose(float(found), -right):
            raise Wrong("`difference` subtracts in the wrong order.", line)
        equal_numbers(
            f"`difference({seed})`", found, right, 1e-6, line,
            "the precision of direct couplings minus that of mutual information",
        )  # fmt: skip


def check_torsions(work, data):
    chains = data["chains"]
    line = work.line_of("baseline")
    psi = np.concatenate(
        [t[m, 1] for t, m in zip(chains.train.targets, chains.train.masks, strict=True)]
    )
    right = np.angle(np.exp(1j * psi).mean())
    if np.isclose(float(work.baseline), psi.mean(), atol=1e-6) and abs(right - psi.mean()) > 1e-4:
        raise Wrong("`baseline` is the mean of numbers: angles need the circular mean.", line)
    apart = np.abs(np.angle(np.exp(1j * (float(work.baseline) - right))))
    if not apart < 1e-4:
        raise Wrong("`baseline` is not the circular mean of psi in training, in radians.", line)
    line, model = work.line_of("model"), work.model
    if not isinstance(model, kft.Model):
        raise Wrong(f"`model` must be a kft.Model, received a {type(model).__name__}.", line)
    frozen_unmoved(model.backbone, kft.load("kft_esm2_tiny"), line)
    predicted = kft.predict(model, chains.test.inputs)
    gains = []
    for angles, mask, vectors in zip(
        chains.test.targets, chains.test.masks, predicted, strict=True
    ):
        if mask.any():
            said = directions(np.asarray(vectors))[:, 1]
            errors = [np.abs(np.angle(np.exp(1j * (x - angles[:, 1])))) for x in (right, said)]
            gains.append(np.rad2deg((errors[0] - errors[1])[mask].mean()))
    gain, error = np.mean(gains), np.std(gains, ddof=1) / np.sqrt(len(gains))
    if not gain > 3 * error:
        raise Wrong(
            f"`model` predicts psi of the test chains {gain:.1f}° better than the baseline, which "
            f"is not above three standard errors ({3 * error:.1f}°): train its head longer.",
            line,
        )


def check_fold(work, data):
    line, coordinates = work.line_of("fold"), data["coordinates"]
    fold = work.fold
    chain = getattr(fold, "chain", None)
    if getattr(chain, "sequence", None) != data["sequence"]:
        raise Wrong(
            "`fold` must be what `structure.fold_chain` returns for data['sequence'].", line
        )
    true = structure.rmsd(chain.coordinates[:, 1], coordinates[:, 1])
    equal_numbers(
        "`deviation`", work.deviation, true, 1e-4, work.line_of("deviation"), "the RMSD of `fold`"
    )
    extended = structure.rebuild(np.full((len(coordinates), 3), np.pi))
    worst = structure.rmsd(extended[:, 1], coordinates[:, 1])
    if not true < worst / 2:
        raise Wrong(
            f"`fold` is {true:.1f} angstrom from your chain, and a stretched chain {worst:.1f}: fold "
            f"it from the distances.",
            line,
        )
    line, mirror = work.line_of("mirror"), work.mirror
    if not isinstance(mirror, dict) or set(mirror) != {"distances", "psi"}:
        raise Wrong("`mirror` must be a dict with distances and psi.", line)
    psi = structure.torsions(coordinates)[:-1, 1]
    turned = np.rad2deg(np.abs(np.angle(np.exp(2j * psi)))).max()
    if not abs(float(mirror["distances"])) < 1e-6:
        raise Wrong("mirror['distances'] is wrong: compare the distances of CA and CA.", line)
    equal_numbers(
        "mirror['psi']", mirror["psi"], turned, 1e-4, line, "the largest change from psi to -psi"
    )


@hidden
def check_others(work, data, rng):
    other = work.draw(rng)
    tests = [
        lambda: weights_hold(work, other["family"].letters, 0.7),
        lambda: information_holds(work, other["family"]),
        lambda: correction_holds(work, rng),
        lambda: precision_holds(work, other["contacts"], rng),
        lambda: dihedral_holds(work, rng),
        lambda: contact_map_holds(work, rng),
        lambda: angle_error_holds(work, rng),
    ]
    for test in tests:
        try:
            test()
        except Wrong as wrong:
            raise Wrong(f"with the data of another student: {wrong}", wrong.line) from None


def check_caption(work, data):
    family, contacts = data["family"], data["contacts"]
    direct = structure.direct_couplings(family)
    numbers = {
        "the number of sequences": len(family),
        "the effective number of sequences": right_weights(family.letters).sum(),
        "the precision of direct couplings": right_precision(
            direct, contacts, count_of_contacts(contacts)
        ),
    }
    caption_is_complete(work.caption, numbers, work.line_of("caption"))
