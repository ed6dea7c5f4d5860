"""`kft assignment`: list, start, check, grade."""

import json
from pathlib import Path
from typing import Annotated

import typer

from kft.cli.options import Json
from kft.cli.output import FAILED, say, short_errors, show
from kft.cli.spelling import Verb

assignment = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Assignments of a course: start, check and grade them.",
)
Seconds = Annotated[float, typer.Option(help="Seconds that a program may run.")]
Memory = Annotated[float, typer.Option(help="GiB of memory that it may take.")]


@assignment.command("list", cls=Verb)
def list_assignments(as_json: Json = False) -> None:
    """List the assignments.

    Example: kft assignment list
    """
    with short_errors():
        from kft import course
        from kft.messages import count_of

        known = course.assignments.assignments()
        text = "\n".join(
            f"{x.number:>2}  {x.title} (lecture {x.lecture}; {count_of(x.minutes, 'minute')}, "
            f"{x.points:g} points)"
            for x in known
        )
        show([{"number": x.number, "name": x.name, "title": x.title} for x in known], as_json, text)


@assignment.command(cls=Verb)
def start(
    name: Annotated[str, typer.Argument(metavar="NUMBER", help="Number or name.")],
    student_id: Annotated[str, typer.Option(help="Your name or number: your data follow from it.")],
    course: Annotated[str, typer.Option(help="Name of the course.")] = "kft",
    out: Annotated[Path | None, typer.Option(help="Folder to write. [03_freeze_ID]")] = None,
) -> None:
    """Write a folder with the task, for a student.

    Example: kft assignment start 3 --student-id ada
    """
    with short_errors():
        from kft import course as courses

        folder = courses.start(name, student_id, course, out)
        show(
            None, False,
            f"Written: {folder}. Fill the gaps in assignment.ipynb or assignment.py, then run "
            f"`kft assignment check` there.",
        )  # fmt: skip


@assignment.command(cls=Verb)
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of `start`.")] = Path(),
    seconds: Seconds = 600,
    memory: Memory = 4,
) -> None:
    """Run a folder's program, and say which lines of the rubric hold.

    Exit code 1 if one does not hold.

    Example: kft assignment check
    """
    with short_errors():
        from kft import course
        from kft.course.grading import report_of_check

        found = course.check(folder.resolve(), seconds, memory)
        show(None, False, report_of_check(found))
        if found.verdict is None or found.verdict.points < found.verdict.of:
            raise typer.Exit(FAILED)


@assignment.command(cls=Verb)
def grade(
    folder: Annotated[Path, typer.Argument(help="Folder with a folder for each student.")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    seconds: Seconds = 600,
    memory: Memory = 4,
    only: Annotated[
        list[str] | None, typer.Option(help="Grade this student again; repeat it for more.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Grade submissions, each in a process of its own; feedback is written next to OUT.

    Example: kft assignment grade submissions --out grades.csv
    """
    with short_errors(f"Rows of earlier runs are as they were in {out}."):
        from kft import course

        table = course.grade(folder.resolve(), out, seconds, memory, only or None, progress=say)
        show(
            json.loads(table.to_json(orient="records")), as_json,
            f"Written: {out} and feedback/ next to it ({len(table)} rows).",
        )  # fmt: skip
