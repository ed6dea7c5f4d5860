"""Course assignments: written for a student, checked by the student, graded by the teacher.

In a notebook of an assignment:

    from kft import course

    data = course.data()

In the checks of one: `Wrong`, `hidden` and the helpers of `kft.course.checks`. The folders of the
assignments are in docs/assignments, whose README.md says how to write another.
"""

from kft.course.checks import (
    below_baseline,
    caption_is_complete,
    equal_numbers,
    follows_differences,
    frozen_unmoved,
    has_learned,
    has_numbers,
    no_overlap,
    no_value,
    scaler_saw_only,
)
from kft.course.grading import check, grade
from kft.course.students import data, start
from kft.course.work import Work
from kft.course.wrong import Wrong, hidden

__all__ = [
    "Work",
    "Wrong",
    "below_baseline",
    "caption_is_complete",
    "check",
    "data",
    "equal_numbers",
    "follows_differences",
    "frozen_unmoved",
    "grade",
    "has_learned",
    "has_numbers",
    "hidden",
    "no_overlap",
    "no_value",
    "scaler_saw_only",
    "start",
]
