"""Labels by DSSP itself, from all atoms, of chains that FLIP and the package cgdms both have.

Command: KFT_DATA=... python tests/dssp_labels.py
It prints how far the labels of `kft.data.load("chains")`, biotite's `annotate_sse` (if biotite is
installed) and the prediction in the package agree with them: the table in docs/structures.md.
"""

import os
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np

from kft.data.proteins.dssp import dssp


def chain_files():
    """Return {name: (sequence, prediction, (N, 12) numbers)} of the chains in the package."""
    found = {}
    for file in metadata.files("cgdms"):
        if file.parent.name == "train_val":
            sequence, prediction, *rows = file.read_text().splitlines()
            found[file.stem] = sequence, prediction, np.array([row.split() for row in rows], float)
    return found


def labelled_chains():
    """Yield (sequence, prediction, coordinates (N, 3, 3), labels) of chains that FLIP has whole."""
    path = Path(os.environ["KFT_DATA"]) / "flip/secondary_structure/splits.zip"
    with zipfile.ZipFile(path) as archive:
        headers, *rows = (
            archive.read(f"splits/{name}.fasta").decode().split("\n")[start::2]
            for name, start in (("sequences", 0), ("sequences", 1), ("sampled", 1), ("mask", 1))
        )
    names = [header[1:].upper().replace("-", "_") for header in headers if header]  # >1ctf-A
    published = dict(zip(names, zip(*rows, strict=True), strict=True))
    for name, (sequence, prediction, numbers) in chain_files().items():
        whole, labels, resolved = published.get(name.upper(), ("", "", ""))
        at = whole.find(sequence)
        part = slice(at, at + len(sequence))
        if at >= 0 and "0" not in resolved[part]:
            yield sequence, prediction, numbers[:, :9].reshape(-1, 3, 3), labels[part]


def biotite_labels(coordinates):
    """Return helix, strand or coil from CA alone, by biotite's version of P-SEA."""
    from biotite import structure

    count = len(coordinates)
    atoms = structure.AtomArray(count)
    atoms.coord, atoms.atom_name[:] = coordinates[:, 1].astype("float32"), "CA"
    atoms.res_id[:], atoms.res_name[:], atoms.chain_id[:] = range(count), "ALA", "A"
    return "".join({"a": "H", "b": "E"}.get(state, "C") for state in structure.annotate_sse(atoms))


def main():
    chains = list(labelled_chains())
    truth = "".join(labels for *_, labels in chains)
    print(f"{len(chains)} chains, {len(truth):,} residues")
    methods = {
        "rules of DSSP, oxygen placed": lambda sequence, _, atoms: dssp(atoms, sequence),
        "biotite annotate_sse": lambda sequence, _, atoms: biotite_labels(atoms),
        "PSIPRED prediction": lambda sequence, prediction, atoms: prediction,
    }
    for name, method in methods.items():
        try:
            found = "".join(method(*chain) for *chain, _ in chains)
        except ImportError as error:
            print(f"{name}: {error}")
            continue
        pairs = np.array([list(truth), list(found)])
        line = f"{name}: agree {np.mean(pairs[0] == pairs[1]):.4f}"
        for state in "HEC":
            both = (pairs == state).all(axis=0).sum()
            line += f", F1 of {state} {2 * both / (pairs == state).sum():.3f}"
        print(line)


if __name__ == "__main__":
    main()
