"""Short protein chains of the PDB with their coordinates, and what is computed from them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from kft.arguments import check_choice, check_integer
from kft.data.dataset import Dataset, Split
from kft.data.proteins.dssp import bonded, dssp
from kft.data.proteins.geometry import (
    BOUNDARIES,
    CONTACT,
    SEPARATION,
    contacts,
    distogram,
    torsions,
)
from kft.data.splits import cluster, kmers
from kft.data.task import Task

VERSION = "1.0"
INSTALL = f"pip install --no-deps cgdms=={VERSION}"
AGAIN = f"pip install --no-deps --force-reinstall cgdms=={VERSION}"
# Of the lines "path sha256" of all files that are read.
SHA256 = "43144949265ea155a86b1d53af0da654b5e7cc2d72431b2401f7f9638df78885"
LISTS, CHAINS = "cgdms/datasets", "cgdms/protein_data/train_val"
HOW = {
    "secondary_structure": "Labels are computed from the coordinates by the rules of DSSP, with "
    "the oxygen placed from N, CA and C; each chain is seen alone, without its partners in the "
    "crystal.",
    "torsions": "Angles are phi, psi and omega in radians, computed from the coordinates. Residues "
    "that lack one, as the first and the last of a chain do, are False in the masks.",
    "contacts": f"Two residues are in contact if their CB, placed from N, CA and C, are nearer "
    f"than {CONTACT:g} angstrom. Pairs less than {SEPARATION} residues apart, or with a break "
    f"between them, are False in the masks.",
    "distogram": "Classes are bins of the distance of two CB, placed from N, CA and C, named by "
    "their lower edges in angstrom. Pairs less than 2 residues apart, or with a break between "
    "them, are False in the masks.",
}
Chain = tuple[str, str, np.ndarray]  # sequence, prediction, coordinates
CLASSES = ("C", "E", "H")
BINS = tuple(f"{edge:.1f}" for edge in (0.0, *BOUNDARIES))  # by their lower edge in angstrom
TARGETS: dict[str, tuple[Task, tuple[str, ...] | None]] = {  # name: task, names of classes
    "secondary_structure": (Task.RESIDUE_CLASSIFICATION, CLASSES),
    "torsions": (Task.TORSIONS, None),
    "contacts": (Task.CONTACTS, ("apart", "contact")),
    "distogram": (Task.DISTOGRAM, BINS),
}
KMER = 8  # two chains that share a word of so many residues belong to one cluster
VALID = 0.1  # fraction of the training chains
PREDICTION = "PSIPRED prediction"
CITATION = (
    "Greener and Jones 2021, Differentiable molecular simulation can learn all the parameters in "
    "a coarse-grained force field for proteins, PLoS ONE 16:e0256990, "
    "doi 10.1371/journal.pone.0256990; secondary structure by the rules of Kabsch and Sander "
    "1983, Biopolymers 22:2577, doi 10.1002/bip.360221211; prediction by Jones 1999, PSIPRED, "
    "J. Mol. Biol. 292:195, doi 10.1006/jmbi.1999.3091"
)


def load_chains(seed: int = 0, target: str = "secondary_structure") -> Dataset:
    """Load 2,151 protein chains of 20 to 100 residues with coordinates and a target of them.

    The files come with the package cgdms, so no network is needed. They are read, and the package
    is never imported. The secondary structure is computed from the coordinates, see
    `kft.data.proteins.dssp`. `parameters` of each split has the fields

    - "name": PDB entry and chain, such as "1CTF_A";
    - "coordinates": float32 array (residues, 3, 3), N, CA and C in angstrom;
    - "PSIPRED prediction": the prediction that comes with the package, one letter per residue. It
      is a baseline of this data set, see `kft.baselines`, and no observation.

    Args:
        seed: Seed that draws the validation chains; test does not change.
        target: What is predicted:

            - "secondary_structure": C (coil), E (strand) or H (helix) of each residue;
            - "torsions": phi, psi and omega of each residue in radians; residues that lack one of
              them, as the first and the last do, are False in `masks`;
            - "contacts": whether the CB of two residues, at least 6 apart in the sequence, are
              nearer than 8 angstrom;
            - "distogram": which of 64 bins the distance of their CB is in, of residues at least 2
              apart, see `kft.structure.distogram`.

    Returns:
        Dataset: The groups are clusters of chains that share a word of 8 residues. `masks` is False
        next to a break of the backbone, and for pairs with a break between them.

    Raises:
        FileNotFoundError: If the package is not installed.
        ValueError: If a file of the package is missing or damaged, or of another version, or
            `target` is none of these.

    Source: see `CITATION`.

    Example:
        >>> data = load_chains()  # doctest: +SKIP
        >>> data.test.parameters["coordinates"][0].shape  # doctest: +SKIP
        (28, 3, 3)
    """
    check_choice("target", target, TARGETS)
    task, classes = TARGETS[target]
    files = _read_package()
    training, test = (files[f"{LISTS}/{part}.txt"].decode().split() for part in ("train", "val"))
    parsed = {name: _parse(files[f"{CHAINS}/{name}.txt"]) for name in (*training, *test)}
    sequences = {name: sequence for name, (sequence, _, _) in parsed.items()}
    removed = _near_test(training, test, sequences)
    training = [name for name in training if name not in set(removed)]
    chains = {name: parsed[name] for name in (*training, *test)}
    clusters = cluster([sequences[name] for name in chains], KMER, threshold=1e-9)
    everything = _as_split(chains, clusters, target)
    valid = _choose_valid(clusters[: len(training)], seed)
    return Dataset(
        name="chains",
        task=task,
        train=everything.take(np.setdiff1d(np.arange(len(training)), valid)),
        valid=everything.take(valid),
        test=everything.take(np.arange(len(training), len(chains))),
        source=f"cgdms {VERSION}, a package of the Python package index: chains of the PDB",
        licence="MIT (cgdms); structures CC0 (PDB)",
        citation=CITATION,
        checksum=SHA256,
        classes=classes,
        notes=_notes(removed, chains, everything, clusters, seed, len(test), target),
    )


def _read_package() -> dict[str, bytes]:
    """Return {path: bytes} of the lists and chains in the installed package, all checked."""
    try:
        package = metadata.distribution("cgdms")
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(
            "the data set 'chains' is in files of the package cgdms, which is not installed; run "
            f"`{INSTALL}`."
        ) from None
    files, lines = {}, []
    for file in sorted(package.files or ()):
        if str(file.parent) in (LISTS, CHAINS):
            files[file.as_posix()] = content = _read_checked(file)
            lines.append(f"{file.as_posix()} {hashlib.sha256(content).hexdigest()}\n")
    received = hashlib.sha256("".join(lines).encode()).hexdigest()
    if received != SHA256:
        raise ValueError(
            f"the files of cgdms {package.version} are not those of version {VERSION}: the sha256 "
            f"of their list is {received}, expected {SHA256}; run `{AGAIN}`."
        )
    return files


def _read_checked(file: metadata.PackagePath) -> bytes:
    """Return the bytes of a file, whose hash must be the one in the package's list of files."""
    path = file.locate()
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); run `{AGAIN}`.") from None
    # In that list, the hash is in base64 for addresses, without padding.
    received = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    if file.hash is not None and file.hash.value != received:
        raise ValueError(
            f"{path} is damaged: its sha256 is {received}, expected {file.hash.value} (in base64); "
            f"run `{AGAIN}`."
        )
    return content


def _parse(content: bytes) -> Chain:
    """Return sequence, prediction, and coordinates (residues, 3, 3) of N, CA and C, of a file."""
    sequence, prediction, *rows = content.decode("ascii").splitlines()
    numbers = np.array(" ".join(rows).split(), dtype="float32")
    atoms = numbers.reshape(len(sequence), 4, 3)  # N, CA, C, centroid of the side chain
    return sequence, prediction, atoms[:, :3].copy()


def _near_test(
    training: Sequence[str], test: Sequence[str], sequences: Mapping[str, str]
) -> list[str]:
    """Return the training chains that share a word with a test chain."""
    words = set().union(*(kmers(sequences[name], KMER) for name in test))
    return [name for name in training if words & kmers(sequences[name], KMER)]


def _as_split(chains: Mapping[str, Chain], clusters: np.ndarray, target: str) -> Split:
    """Return all chains as one split, with targets from their coordinates."""
    inputs, targets, masks, rows = [], [], [], []
    for name, (sequence, prediction, coordinates) in chains.items():
        inputs.append(sequence)
        values, mask = _target(target, sequence, coordinates)
        targets.append(values)
        masks.append(mask)
        rows.append((name, prediction, coordinates))
    longest = max(map(len, inputs))
    fields = [("name", "U8"), (PREDICTION, f"U{longest}"), ("coordinates", "O")]
    return Split(inputs, targets, clusters, masks, np.array(rows, dtype=fields))


def _target(target: str, sequence: str, coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets of one chain, of each residue or pair, and which of them are used."""
    if target == "torsions":
        angles = torsions(coordinates)
        known = np.isfinite(angles).all(axis=1)
        return np.where(known[:, None], angles, 0.0).astype("float32"), known
    if target == "contacts":
        found, known = contacts(coordinates, CONTACT, SEPARATION)
        return found.astype("int32"), known
    if target == "distogram":
        bins, known = distogram(coordinates)
        number = np.arange(len(bins))
        return bins, known & (abs(number[:, None] - number) > 1)
    states = dssp(coordinates, sequence)
    whole = np.concatenate([[True], bonded(coordinates), [True]])
    used = whole[:-1] & whole[1:]  # bonded to the residue before and to the next
    return np.array([CLASSES.index(state) for state in states], dtype="int32"), used


def _choose_valid(clusters: np.ndarray, seed: int) -> np.ndarray:
    """Return positions of a tenth of the chains, whole clusters drawn at random."""
    check_integer("seed", seed, 0)
    wanted = round(VALID * len(clusters))
    chosen = np.empty(0, dtype=int)
    for number in np.random.default_rng(seed).permutation(np.unique(clusters)):
        members = np.flatnonzero(clusters == number)
        if len(chosen) + len(members) <= wanted:
            chosen = np.concatenate([chosen, members])
    return np.sort(chosen)


def _notes(
    removed: Sequence[str],
    parsed: Mapping[str, Chain],
    chains: Split,
    clusters: np.ndarray,
    seed: int,
    tests: int,
    target: str,
) -> tuple[str, ...]:
    repeats = len(chains) - len(set(chains.inputs))
    whole = {name: bonded(coordinates) for name, (_, _, coordinates) in parsed.items()}
    broken = [name for name, bonds in whole.items() if not bonds.all()]
    masked = int(sum((~(np.r_[True, x] & np.r_[x, True])).sum() for x in whole.values()))
    return (
        HOW[target],
        f"Test is the validation list of the package, {tests} chains. {len(removed)} training "
        f"chains share a word of {KMER} residues with a test chain and were removed: "
        f"{', '.join(removed)}.",
        f"Valid is {VALID:.0%} of the training chains, drawn by cluster, seed {seed}. Chains that "
        f"share a word of {KMER} residues are in one cluster: {clusters.max() + 1:,} clusters of "
        f"{len(clusters):,} chains, the largest of {np.bincount(clusters).max()}. {repeats} chains "
        "have the sequence of an earlier one, and coordinates of their own.",
        f"{len(broken)} chains have breaks of the backbone: {', '.join(broken)}. The {masked} "
        "residues next to a break are False in the masks; most are at the start of a chain where "
        "the package has the residues in reverse order.",
        f"{PREDICTION!r} in the parameters is a prediction from sequence that comes with the "
        "package, not an observation.",
    )
