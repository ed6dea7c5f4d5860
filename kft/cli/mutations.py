"""`kft mutations`."""

from pathlib import Path
from typing import Annotated

import typer

from kft.cli.options import Json, Out, Revision, one_of
from kft.cli.output import check_table, short_errors, write_table


def mutations(
    wild_type: Annotated[str, typer.Argument(help="The protein, as a string of residues.")],
    out: Annotated[
        str | None, typer.Argument(metavar="OUT", help="File to write: .csv or .tsv.")
    ] = None,
    *,
    out_option: Out = None,
    table: Annotated[
        Path | None, typer.Option(help="Table of mutants; without it all single ones are scored.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Published name, folder or file.")],
    method: Annotated[
        str, typer.Option(help="Name of the score, see docs/zero_shot.md.")
    ] = "masked_marginal",
    offset: Annotated[int, typer.Option(help="Number of the first residue, minus 1.")] = 0,
    column: Annotated[
        str | None, typer.Option(help="Column of the mutations [default: mutant].")
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Go on without invalid mutants.")
    ] = False,
    revision: Revision = None,
    as_json: Json = False,
) -> None:
    """Score mutants of a protein without any measurements.

    Example: kft mutations MKTAYIAKQR scores.csv --table mine.csv --backbone esm2_t6_8M_UR50D
    """
    written = one_of(out, out_option, "OUT")
    check_table(written)
    with short_errors():
        import kft

        model = kft.load(backbone, revision=revision)
        if table is None:
            found = kft.scan(model, wild_type, method, offset=offset)
        else:
            found = kft.score_mutations(
                model,
                wild_type,
                table,
                method,
                offset=offset,
                column=column,
                skip_invalid=skip_invalid,
            )
        write_table(found, written, as_json)
