"""Short protein chains of the PDB with their coordinates, and the secondary structure in them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from kft.arguments import check_integer
from kft.data.dataset import Dataset, Split
from kft.data.proteins.dssp import bonded, dssp
from kft.data.splits import cluster, kmers
from kft.data.task import Task

VERSION = "1.0"
INSTALL = f"pip install --no-deps cgdms=={VERSION}"
AGAIN = f"pip install --no-deps --force-reinstall cgdms=={VERSION}"
# Of the lines "path sha256" of all files that are read.
SHA256 = "43144949265ea155a86b1d53af0da654b5e7cc2d72431b2401f7f9638df78885"
LISTS, CHAINS = "cgdms/datasets", "cgdms/protein_data/train_val"
Chain = tuple[str, str, np.ndarray]  # sequence, prediction, coordinates
CLASSES = ("C", "E", "H")
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


def load_chains(seed: int = 0) -> Dataset:
    """Load 2,151 protein chains of 20 to 100 residues with coordinates and secondary structure.

    The files come with the package cgdms, so no network is needed. They are read, and the package
    is never imported. The secondary structure is computed from the coordinates, see
    `kft.data.proteins.dssp`. `parameters` of each split has the fields

    - "name": PDB entry and chain, such as "1CTF_A";
    - "coordinates": float32 array (residues, 3, 3), N, CA and C in angstrom;
    - "PSIPRED prediction": the prediction that comes with the package, one letter per residue. It
      is a baseline of this data set, see `kft.baselines`, and no observation.

    Args:
        seed: Seed that draws the validation chains; test does not change.

    Returns:
        Dataset: A residue classification into C (coil), E (strand) and H (helix). The groups are
        clusters of chains that share a word of 8 residues; `masks` is False next to a break of
        the backbone.

    Raises:
        FileNotFoundError: If the package is not installed.
        ValueError: If a file of the package is missing or damaged, or of another version.

    Source: see `CITATION`.

    Example:
        >>> data = load_chains()  # doctest: +SKIP
        >>> data.test.parameters["coordinates"][0].shape  # doctest: +SKIP
        (28, 3, 3)
    """
    files = _read_package()
    training, test = (files[f"{LISTS}/{part}.txt"].decode().split() for part in ("train", "val"))
    parsed = {name: _parse(files[f"{CHAINS}/{name}.txt"]) for name in (*training, *test)}
    sequences = {name: sequence for name, (sequence, _, _) in parsed.items()}
    removed = _near_test(training, test, sequences)
    training = [name for name in training if name not in set(removed)]
    chains = {name: parsed[name] for name in (*training, *test)}
    clusters = cluster([sequences[name] for name in chains], KMER, threshold=1e-9)
    everything = _as_split(chains, clusters)
    valid = _choose_valid(clusters[: len(training)], seed)
    return Dataset(
        name="chains",
        task=Task.RESIDUE_CLASSIFICATION,
        train=everything.take(np.setdiff1d(np.arange(len(training)), valid)),
        valid=everything.take(valid),
        test=everything.take(np.arange(len(training), len(chains))),
        source=f"cgdms {VERSION}, a package of the Python package index: chains of the PDB",
        licence="MIT (cgdms); structures CC0 (PDB)",
        citation=CITATION,
        checksum=SHA256,
        classes=CLASSES,
        notes=_notes(removed, list(chains), everything, clusters, seed, len(test)),
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


def _as_split(chains: Mapping[str, Chain], clusters: np.ndarray) -> Split:
    """Return all chains as one split, labelled from their coordinates."""
    position = {letter: i for i, letter in enumerate(CLASSES)}
    inputs, targets, masks, rows = [], [], [], []
    for name, (sequence, prediction, coordinates) in chains.items():
        inputs.append(sequence)
        states = dssp(coordinates, sequence)
        targets.append(np.array([position[state] for state in states], dtype="int32"))
        whole = np.concatenate([[True], bonded(coordinates), [True]])
        masks.append(whole[:-1] & whole[1:])  # bonded to the residue before and to the next
        rows.append((name, prediction, coordinates))
    longest = max(map(len, inputs))
    fields = [("name", "U8"), (PREDICTION, f"U{longest}"), ("coordinates", "O")]
    return Split(inputs, targets, clusters, masks, np.array(rows, dtype=fields))


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
    names: Sequence[str],
    chains: Split,
    clusters: np.ndarray,
    seed: int,
    tests: int,
) -> tuple[str, ...]:
    repeats = len(chains) - len(set(chains.inputs))
    masks = chains.masks or []
    broken = [name for name, mask in zip(names, masks, strict=True) if not mask.all()]
    masked = int(sum((~mask).sum() for mask in masks))
    return (
        "Labels are computed from the coordinates by the rules of DSSP, with the oxygen placed "
        "from N, CA and C; each chain is seen alone, without its partners in the crystal.",
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
