# %% [markdown]
# # 9. Co-evolution, contacts and torsions
#
# Two residues that touch each other constrain each other: if one grows, the other has to shrink. So in
# a family of proteins the two columns change *together*, and a contact can be read from sequences
# alone. AlphaFold began there. You measure co-evolution, compare two methods with the contacts that
# are known here, learn torsions from sequence, and fold a chain from its distances.
#
# **You learn**: why sequences need weights; what mutual information cannot tell apart; angles on a
# circle; why a chain and its mirror image have the same distances. **kft helps**: `kft.structure` has
# all of it; you write the core once by hand, and the checks compare.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.

# %%
import numpy as np

import kft
from kft import course, structure

data = course.data()
family, contacts = data["family"], data["contacts"]
letters = family.letters  # int8 (M, N): 0 to 19 for residues, 20 for a gap
print(family)
print("pairs in contact:", contacts.sum() // 2)

# %% [markdown]
# ## Weights of sequences
#
# Some proteins were sequenced a hundred times. Copies are no new evidence: a sequence that is similar
# to 99 others (and to itself) counts 1/100. Two are similar if at least `identity` of their columns
# are equal. The sum of the weights is the *effective* number of sequences.


# %%
def weights(letters, identity=0.8):
    """Return a weight for each row of `letters` (M, N), floats (M,)."""
    # TODO: one over the number of rows that are similar to a row
    equal = (letters[:, None] == letters[None]).sum(axis=-1)
    return 1 / (equal >= identity * letters.shape[1]).sum(axis=1)


print(f"{len(letters)} sequences, {np.sum(weights(letters)):.0f} effective ones")

# %% [markdown]
# ## Mutual information
#
# How much does one column tell about another? With the weighted frequencies $f_i(a)$ of letter $a$
# in column $i$ and $f_{ij}(a, b)$ of the pair,
#
# $$I_{ij} = \sum_{a, b} f_{ij}(a, b) \, \ln \frac{f_{ij}(a, b)}{f_i(a) f_j(b)} .$$
#
# Pairs of letters that never occur add nothing. Set the diagonal to 0. Hint: the one-hot letters
# `np.eye(21)[letters]` make all $f_{ij}$ by one product of matrices, or `np.einsum`.


# %%
def mutual_information(letters, weight):
    """Return floats (N, N), in nats, of the columns of `letters` (M, N) with weights (M,)."""
    # TODO: frequencies of letters and of pairs, then the sum
    one_hot, share = np.eye(21)[letters], weight / weight.sum()
    single = np.einsum("m,mia->ia", share, one_hot)
    flat = one_hot.reshape(len(letters), -1)
    pairs = (flat * share[:, None]).T @ flat
    expected = np.outer(single, single)
    terms = np.zeros_like(pairs)
    there = pairs > 0
    terms[there] = pairs[there] * np.log(pairs[there] / expected[there])
    columns = letters.shape[1]
    values = terms.reshape(columns, 21, columns, 21).sum(axis=(1, 3))
    np.fill_diagonal(values, 0)
    return values


# %% [markdown]
# ## The average product correction
#
# A column that changes much has a high information with every other: noise and ancestry do that.
# Dunn et al. (2008) subtract what a pair owes to its two columns:
#
# $$I'_{ij} = I_{ij} - \frac{\bar I_i \, \bar I_j}{\bar I},$$
#
# where $\bar I_i$ is the mean over the *other* columns, and $\bar I$ the mean of all pairs. The
# diagonal stays 0.


# %%
def corrected(values):
    """Return floats (N, N) of a symmetric array (N, N) whose diagonal is 0."""
    # TODO: subtract the product of the means over the mean of all
    means = values.sum(axis=1) / (len(values) - 1)
    result = values - np.outer(means, means) / means.mean()
    np.fill_diagonal(result, 0)
    return result


# %% [markdown]
# ## Who finds the contacts?
#
# Rank the pairs by their value, and look at as many as there are contacts: which share are contacts?
# Count each pair once ($i < j$).


# %%
def precision(values, contacts, most):
    """Return the share of contacts among the `most` pairs of the highest values."""
    # TODO: a number from 0 to 1
    first, second = np.triu_indices(len(values), 1)
    best = np.argsort(-values[first, second], kind="stable")[:most]
    return float(contacts[first, second][best].mean())


# %% [markdown]
# Mutual information cannot tell a contact from a chain of contacts: if A touches B and B touches C, then A
# and C change together, too. `structure.direct_couplings(family)` inverts the covariance of all
# columns, which leaves the direct part. Score the three, and a guess.

# %%
most = int(contacts.sum() // 2)
# TODO: precision by mutual information, by the corrected one, by direct couplings, and by chance
scores = {
    "information": precision(mutual_information(letters, weights(letters)), contacts, most),
    "corrected": precision(
        corrected(mutual_information(letters, weights(letters))), contacts, most
    ),
    "direct": precision(structure.direct_couplings(family), contacts, most),
    "chance": most / (len(contacts) * (len(contacts) - 1) / 2),
}
print(scores)

# %% [markdown]
# One family is an anecdote. Write the comparison for a family of any seed; the list below has five.


# %%
def difference(seed):
    """Return the precision of direct couplings minus that of mutual information, not corrected."""
    family, contacts = structure.simulate_family(400, 24, 32, sweeps=12, seed=seed)
    # TODO: the difference of two precisions
    most = contacts.sum() // 2
    information = mutual_information(family.letters, weights(family.letters))
    direct = precision(structure.direct_couplings(family), contacts, most)
    return direct - precision(information, contacts, most)


direct_minus_information = [difference(seed) for seed in range(5)]
print(direct_minus_information)

# %% [markdown]
# ## Torsions
#
# The backbone of a protein turns about two bonds for each residue, by phi and psi; omega is nearly
# always 180°. The dihedral angle of four points $a, b, c, d$ is the angle between the planes $abc$
# and $bcd$. With the bonds $u = b - a$, $v = c - b$, $w = d - c$:
#
# $$\varphi = \operatorname{atan2}\big(|v| \, u \cdot (v \times w), \; (u \times v) \cdot (v \times w)\big)$$
#
# `arccos` alone would lose the sign, and with it left and right.


# %%
def dihedral(a, b, c, d):
    """Return the dihedral angle of points (..., 3), from -pi to pi, floats (...)."""
    # TODO: by atan2
    u, v, w = b - a, c - b, d - c
    left, right = np.cross(u, v), np.cross(v, w)
    sine = np.linalg.norm(v, axis=-1) * (u * right).sum(axis=-1)
    return np.arctan2(sine, (left * right).sum(axis=-1))


coordinates = data["coordinates"]  # (L, 3, 3): N, CA and C of each residue
n, ca, c = coordinates.transpose(1, 0, 2)
print("psi in degrees:", np.rad2deg(dihedral(n[:-1], ca[:-1], c[:-1], n[1:])).round())

# %% [markdown]
# ## A contact map
#
# Two residues are in contact if their points are nearer than `cutoff` (angstrom) and they are at least
# `apart` residues from each other: neighbours in the sequence are always near, which says nothing.


# %%
def contact_map(points, cutoff=8.0, apart=6):
    """Return bool (L, L), True for contacts, of points (L, 3)."""
    # TODO: near in space, and apart in the sequence
    near = np.linalg.norm(points[:, None] - points[None], axis=-1) < cutoff
    number = np.arange(len(points))
    return near & (abs(number[:, None] - number[None]) >= apart)


# %% [markdown]
# ## Learn torsions from the sequence
#
# Between 179° and -179° lie 2°, not 358°. Write the error of an angle, and then a baseline: psi is
# always the *circular* mean of the training chains, `atan2(mean sin, mean cos)`.


# %%
def angle_error(one, other):
    """Return the shortest way from one angle to another, both in radians, in degrees (0 to 180)."""
    # TODO: for numbers and arrays
    return np.rad2deg(abs((one - other + np.pi) % (2 * np.pi) - np.pi))


chains = data["chains"]
train_psi = np.concatenate(
    [t[m, 1] for t, m in zip(chains.train.targets, chains.train.masks, strict=True)]
)
# TODO: the circular mean of train_psi, in radians
baseline = float(np.arctan2(np.sin(train_psi).mean(), np.cos(train_psi).mean()))
print(f"baseline: psi = {np.rad2deg(baseline):.0f}°")

# %% [markdown]
# Put `kft.heads.for_data(chains)` on the small ESM-2 that comes with kft, `kft.load("kft_esm2_tiny")`,
# and train the head alone, by the strategy "head_only" (the third argument of `kft.fit`), for a dozen epochs with
# a learning rate of 1e-2. `kft.fit` returns what was done; `model` of that is the trained model. The head
# predicts a vector for each angle; its direction is the angle, so no angle is torn at 180°.

# %%
# TODO: a kft.Model whose head has been trained, its backbone frozen
model = kft.fit(
    kft.Model(kft.load("kft_esm2_tiny"), kft.heads.for_data(chains)),
    chains, "head_only", epochs=12, learning_rate=1e-2, batch_size=16, verbose=0,
).model  # fmt: skip

# %%
print(kft.evaluate(model, chains, resamples=100))
own = [
    angle_error(baseline, t[m, 1]).mean()
    for t, m in zip(chains.test.targets, chains.test.masks, strict=True)
    if m.any()
]
print(f"baseline: psi is off by {np.mean(own):.0f}° on average")

# %% [markdown]
# ## Fold a chain from its distances
#
# `structure.distogram(coordinates)` are the distances between residues in bins, what a network would
# predict; `structure.smoothed_distogram(bins, known)` makes probabilities of them.
# `structure.fold_chain(sequence, probabilities, starts=2)` looks for the chain that suits them.
# `structure.rmsd(one, other)` compares CA atoms (L, 3) after the best superposition.

# %%
# TODO: the fold of data["sequence"], from the distances of data["coordinates"]
fold = structure.fold_chain(
    data["sequence"], structure.smoothed_distogram(*structure.distogram(coordinates)), starts=2
)
# TODO: its RMSD to data["coordinates"], in angstrom
deviation = structure.rmsd(fold.chain.coordinates[:, 1], coordinates[:, 1])
print(fold, f"RMSD {deviation:.2f} angstrom")

# %% [markdown]
# Now make the mirror image of your chain: turn the sign of one axis. By how much does a distance between two CA
# change at most (angstrom)? And by how much a psi, by `angle_error` (degrees)?

# %%
mirrored = coordinates * [1.0, 1.0, -1.0]
mirror_psi = dihedral(*mirrored[:-1].transpose(1, 0, 2), mirrored[1:, 0])
own_psi = dihedral(n[:-1], ca[:-1], c[:-1], n[1:])


def between(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


# TODO: {"distances": largest change in angstrom, "psi": largest change in degrees}
mirror = {
    "distances": float(abs(between(mirrored[:, 1]) - between(coordinates[:, 1])).max()),
    "psi": float(angle_error(mirror_psi, own_psi).max()),
}
print(mirror)

# %% [markdown]
# ## A caption
#
# The figure shows the pairs that direct couplings find. Write its caption: **what** is shown, **how** it
# was made (number of sequences, effective number), and what stands out (**wow**), with the precision of
# direct couplings. Compute the numbers; do not type them.

# %%
figure, _ = kft.plots.plot_contacts(
    structure.direct_couplings(family), contacts, nearest=1, per_length=most / len(contacts),
    name="the family", other="contacts",
)  # fmt: skip
# TODO: a text in three parts, `What: ... How: ... Wow: ...`
caption = (
    f"What: pairs of columns that change together, below the diagonal, and the {most} contacts above. "
    f"How: direct couplings of {len(letters)} sequences, which count as {weights(letters).sum():.1f} "
    f"because near copies share a weight. Wow: {scores['direct']:.1%} of the {most} likeliest pairs are "
    f"contacts, of random pairs {scores['chance']:.1%}."
)
