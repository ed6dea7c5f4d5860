"""`kft fold`."""

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kft.cli.options import Json, Out, Seed, one_of
from kft.cli.output import say, short_errors, show

WRITTEN = ("written", "report")


def fold(
    sequence: Annotated[str, typer.Argument(help="String of residues, or FASTA file.")],
    out: Annotated[
        str | None,
        typer.Argument(metavar="OUT", help="File: .pdb or .cif; or folder, for several chains."),
    ] = None,
    *,
    out_option: Out = None,
    models: Annotated[
        list[Path],
        typer.Option(
            help="Run of kft finetune, .keras file or adapter, with a distogram or torsions; may "
            "be repeated."
        ),
    ],
    starts: Annotated[int, typer.Option(help="Starts of the descent.")] = 8,
    iterations: Annotated[int, typer.Option(help="Most steps of the best starts.")] = 1000,
    seed: Seed = 0,
    report: Annotated[
        bool, typer.Option("--report", help="Write a page with the chain next to it, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Fold a chain from the distances and torsions that models predict.

    Example: kft fold MKTAYIAKQR out.pdb --models distances --models angles
    """
    written = Path(one_of(out, out_option, "OUT"))
    with short_errors():
        import kft

        chains = _chains(sequence, written)
        kft.structure.files.biotite()  # an error now if it is not installed, not after the work
        loaded = [kft.finetuning.trained_model(path) for path in models]
        results = []
        for path, residues in chains.items():
            folded = kft.fold(loaded, residues, starts, iterations, seed, path.stem)
            path.parent.mkdir(parents=True, exist_ok=True)
            kft.structure.write_structure(path, folded.chain)
            say(f"{path.stem}: {folded}")
            lddt = folded.expected_lddt.mean()
            result: dict[str, Any] = {"written": str(path), "energy": float(folded.energies[0])}
            result["expected_lddt"] = None if lddt != lddt else float(lddt)
            if report:
                result["report"] = str(path.with_suffix(".html"))
                command = shlex.join(["kft", *sys.argv[1:]])
                kft.report(folded, result["report"], command=command)
            results.append(result)
        paths = [x[key] for x in results for key in WRITTEN if key in x]
        show(results, as_json, "\n".join(f"Written: {path}" for path in paths))


def _chains(sequence: str, out: Path) -> dict[Path, str]:
    """Return the sequence of each file to write."""
    from kft.data import read_fasta
    from kft.structure.files import SUFFIXES

    one = out.suffix.lower() in SUFFIXES
    if not os.path.isfile(sequence):  # which a long sequence is not, though no path is as long
        if not sequence.isalpha():
            raise FileNotFoundError(
                f"SEQUENCE must be a string of residues or a FASTA file, received "
                f"{sequence!r:.60}, which is neither (from {Path.cwd()})."
            )
        return {out if one else out / "model.pdb": sequence}
    records = list(read_fasta(sequence))
    if one and len(records) != 1:
        raise ValueError(
            f"OUT must be a folder, since {sequence} has {len(records)} records; received {out}."
        )
    if one:
        return {out: records[0].sequence}
    names = [re.sub(r"[^\w.-]", "_", record.id) for record in records]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{sequence} has two records of the name {twice}: rename one.")
    return {out / f"{x}.pdb": record.sequence for x, record in zip(names, records, strict=True)}
