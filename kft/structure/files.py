"""Read and write structures of protein chains: PDB and mmCIF, by biotite.

Shapes: `N` residues; the three atoms of a residue are N, CA and C. Angstrom.
"""

from __future__ import annotations

import importlib
import io
import os
import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from kft.arguments import check_instance, check_integer, check_path
from kft.data.proteins.alignments import RESIDUES
from kft.data.proteins.dssp import CARBONYL, bonded
from kft.data.proteins.fasta import checked_path, open_text
from kft.data.proteins.geometry import pieces
from kft.files import write_text
from kft.messages import count_of, listed, shown, warn

ATOMS = ("N", "CA", "C")
SUFFIXES = {".pdb": "pdb", ".ent": "pdb", ".cif": "mmcif", ".mmcif": "mmcif", ".pdbx": "mmcif"}


@dataclass(frozen=True, eq=False)
class ProteinChain:
    """One chain of a protein with the atoms of its backbone.

    Attributes:
        name: Name, for example "1CTF_A".
        sequence: String of N residues; X for one that is no amino acid of the genetic code.
        coordinates: float64 array (N, 3, 3), N, CA and C in angstrom; NaN where an atom is missing.
        numbers: Numbers of the residues in the file, with insertion codes, such as "52" and "52A".
        confidence: float64 array (N,), what the column of B factors holds.

    Raises:
        ValueError: The parts do not have the same number of residues.

    Example:
        >>> from kft.data.proteins.geometry import rebuild
        >>> ProteinChain("model", "MKT", rebuild(np.full((3, 3), np.pi)))
        ProteinChain 'model' of 3 residues
    """

    name: str
    sequence: str
    coordinates: np.ndarray
    numbers: tuple[str, ...] = ()
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        count = len(self.sequence)
        coordinates = np.asarray(self.coordinates, dtype="float64")
        if coordinates.shape != (count, 3, 3) or not count:
            raise ValueError(
                f"coordinates must have the shape ({count}, 3, 3) for "
                f"{count_of(count, 'residue')} of sequence, at least one; received "
                f"{coordinates.shape}."
            )
        numbers = tuple(self.numbers) or tuple(str(i + 1) for i in range(count))
        confidence = np.asarray(self.confidence, dtype="float64")
        confidence = confidence if confidence.size else np.zeros(count)
        for name, values in (("numbers", numbers), ("confidence", confidence)):
            if len(values) != count:
                raise ValueError(f"{name} must be one for each of {count_of(count, 'residue')}.")
        for name, value in (
            ("coordinates", coordinates), ("numbers", numbers), ("confidence", confidence),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.sequence)

    def __repr__(self) -> str:
        breaks = f", breaks after {listed(self.breaks)}" if self.breaks else ""
        return f"ProteinChain {self.name!r} of {count_of(len(self), 'residue')}{breaks}"

    @property
    def breaks(self) -> tuple[str, ...]:
        """Numbers of the residues after which the backbone is broken."""
        return tuple(self.numbers[i] for i in np.flatnonzero(np.diff(pieces(self.coordinates))))


def biotite(module: str = "structure") -> Any:
    """Import a module of biotite.

    Raises:
        ImportError: biotite is not installed; the message has the command.
    """
    try:
        return importlib.import_module(f"biotite.{module}")
    except ImportError as error:
        raise ImportError(
            "structures are read, written and scored by biotite, which is not installed; run "
            '`pip install "kft[structure]"`.'
        ) from error


def read_structure(
    path: str | os.PathLike[str], chain: str | None = None, model: int = 1
) -> ProteinChain:
    """Read one chain of a PDB or mmCIF file, plain or gzipped.

    Of alternative locations, those of the highest occupancy are taken. Waters and ligands are left
    out; modified residues keep the letter of the residue they come from (selenomethionine is M).

    Args:
        path: Path of the file; .pdb, .ent, .cif, .mmcif or .pdbx, and .gz behind it.
        chain: Identifier of the chain, the author's; None if the file has one chain of a protein.
        model: Number of the model, from 1.

    Returns:
        ProteinChain: Residues in the order of the file. A warning names breaks of the backbone and
        residues that are no amino acid of the genetic code.

    Raises:
        FileNotFoundError: The file does not exist.
        ImportError: biotite is not installed.
        ValueError: The file cannot be read, has no protein, several chains and `chain` is None, or
            no such chain or model.

    Example:
        >>> read_structure("1ctf.cif", chain="A")  # doctest: +SKIP
        ProteinChain '1ctf_A' of 68 residues
    """
    path = checked_path(path)
    check_integer("model", model, 1)
    atoms = _read_atoms(path, model)
    structure = biotite("structure")
    atoms = atoms[structure.filter_amino_acids(atoms)]
    there = list(dict.fromkeys(map(str, atoms.chain_id)))
    if not there:
        raise ValueError(f"{path} has no residue of a protein; is it the right file?")
    if chain is None and len(there) > 1:
        raise ValueError(
            f"{path} has {len(there)} chains of proteins: {listed(there)}; give one of them as "
            f"chain={there[0]!r}."
        )
    chosen = there[0] if chain is None else chain
    if chosen not in there:
        raise ValueError(f"{path} has no chain {shown(chain)}; it has {listed(there)}.")
    stem = path.name.removesuffix(".gz").rpartition(".")[0]
    return _as_chain(f"{stem}_{chosen.strip() or 'A'}", atoms[atoms.chain_id == chosen])


def write_structure(path: str | os.PathLike[str], chain: ProteinChain) -> Path:
    """Write a chain to a PDB or mmCIF file.

    The oxygen of each residue but the last is placed from N, CA and C, since viewers need it to
    draw a ribbon. The column of B factors has `chain.confidence`.

    Args:
        path: Path of the file; .pdb, .ent, .cif, .mmcif or .pdbx.
        chain: Chain to write; missing atoms are left out.

    Returns:
        The path.

    Raises:
        ImportError: biotite is not installed.
        TypeError: `chain` is not a `ProteinChain`.
        ValueError: The ending of the path is another one, or a PDB file cannot hold the chain
            (more than 9,999 residues, coordinates of 10,000 angstrom and more).

    Example:
        >>> write_structure("model.pdb", chain)  # doctest: +SKIP
    """
    path = check_path("`path`", path)
    check_instance("chain", chain, ProteinChain, "a kft.structure.ProteinChain")
    kind = _kind(path)
    atoms = _as_atoms(chain)
    if kind == "pdb":
        if len(chain) > 9999 or np.abs(atoms.coord).max(initial=0) >= 10_000:
            raise ValueError(
                f"a PDB file holds at most 9,999 residues and coordinates below 10,000 angstrom; "
                f"write {path.with_suffix('.cif')} instead."
            )
        file = biotite("structure.io.pdb").PDBFile()
        file.set_structure(atoms)
    else:
        pdbx = biotite("structure.io.pdbx")
        file = pdbx.CIFFile()
        pdbx.set_structure(file, atoms, data_block="kft")
    text = io.StringIO()
    file.write(text)
    write_text(path, text.getvalue())
    return path


def place_oxygen(coordinates: np.ndarray) -> np.ndarray:
    """Place the oxygen of each peptide bond, in its plane.

    Args:
        coordinates: Floats (N, 3, 3), N, CA and C in angstrom.

    Returns:
        float64 array (N, 3); NaN for the last residue of a chain or of a piece of it.

    Example:
        >>> place_oxygen(np.zeros((1, 3, 3))).tolist()
        [[nan, nan, nan]]
    """
    oxygen = np.full((len(coordinates), 3), np.nan)
    carbon = coordinates[:-1, 2]
    outwards = -(_unit(coordinates[:-1, 1] - carbon) + _unit(coordinates[1:, 0] - carbon))
    placed = carbon + CARBONYL * _unit(outwards)
    oxygen[:-1] = np.where(bonded(coordinates)[:, None], placed, np.nan)
    return oxygen


def _kind(path: Path) -> str:
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"the path of a structure must end in one of {', '.join(SUFFIXES)}, received "
            f"{shown(path.name)}."
        )
    return SUFFIXES[suffix]


def _read_atoms(path: Path, model: int) -> Any:
    """Return the atoms of one model as an array of biotite."""
    kind = _kind(path)
    options = {"model": model, "altloc": "occupancy", "extra_fields": ["b_factor"]}
    with open_text(path) as stream:
        text = io.StringIO(stream.read())
    try:
        if kind == "pdb":
            return biotite("structure.io.pdb").PDBFile.read(text).get_structure(**options)
        pdbx = biotite("structure.io.pdbx")
        return pdbx.get_structure(pdbx.CIFFile.read(text), **options)
    except ImportError:
        raise
    except Exception as error:  # biotite raises whatever a broken line leads to
        raise ValueError(
            f"{path} cannot be read as {kind} ({type(error).__name__}: {error}); is it complete, "
            f"and does it have a model {model}?"
        ) from None


def _as_chain(name: str, atoms: Any) -> ProteinChain:
    starts = [*biotite("structure").get_residue_starts(atoms), len(atoms)]
    info = biotite("structure.info")
    letters, numbers, unknown = [], [], []
    coordinates = np.full((len(starts) - 1, len(ATOMS), 3), np.nan)
    confidence = np.zeros(len(starts) - 1)
    for i, (start, end) in enumerate(pairwise(starts)):
        residue = atoms[start:end]
        kind = str(residue.res_name[0])
        letter = info.one_letter_code(kind) or "X"
        if letter not in RESIDUES:
            unknown.append(f"{kind} {residue.res_id[0]}")
            letter = "X"
        letters.append(letter)
        numbers.append(f"{residue.res_id[0]}{str(residue.ins_code[0]).strip()}")
        confidence[i] = residue.b_factor.mean()
        for j, atom in enumerate(ATOMS):
            there = np.flatnonzero(residue.atom_name == atom)
            if len(there):
                coordinates[i, j] = residue.coord[there[0]]
    if unknown:
        warn(f"{name}: {count_of(len(unknown), 'residue')} read as X: {listed(unknown)}.")
    chain = ProteinChain(name, "".join(letters), coordinates, tuple(numbers), confidence)
    if not np.isfinite(coordinates).all(axis=(1, 2)).any():
        raise ValueError(f"{name}: no residue has all of N, CA and C; a trace of CA is not enough.")
    if chain.breaks:
        warn(
            f"{name}: the backbone is broken after {listed(chain.breaks)}; nothing is "
            "computed across a break."
        )
    return chain


def _as_atoms(chain: ProteinChain) -> Any:
    """Return an array of biotite with N, CA, C and O."""
    structure, info = biotite("structure"), biotite("sequence")
    coordinates = np.concatenate(
        [chain.coordinates, place_oxygen(chain.coordinates)[:, None]], axis=1
    )  # (N, 4, 3)
    residue, kind = np.nonzero(np.isfinite(coordinates).all(axis=-1))
    atoms = structure.AtomArray(len(residue))
    atoms.coord = coordinates[residue, kind].astype("float32")
    names = [
        "UNK" if letter == "X" else info.ProteinSequence.convert_letter_1to3(letter)
        for letter in chain.sequence
    ]
    parts = [re.fullmatch(r"(-?\d+)(\D?)", number) for number in chain.numbers]
    plain = all(parts)
    numbers = [int(p[1]) if plain and p else i + 1 for i, p in enumerate(parts)]
    codes = [p[2] if plain and p else "" for p in parts]
    atoms.chain_id[:] = "A"
    atoms.atom_name = np.array([*ATOMS, "O"])[kind]
    atoms.element = np.array(["N", "C", "C", "O"])[kind]
    atoms.res_name = np.array(names)[residue]
    atoms.res_id = np.array(numbers)[residue]
    atoms.ins_code = np.array(codes)[residue]
    atoms.set_annotation("b_factor", chain.confidence[residue])
    return atoms


def _unit(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
