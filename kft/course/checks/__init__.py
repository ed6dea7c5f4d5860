"""Checks that several assignments share: each raises `Wrong` with its reason, or returns None."""

from kft.course.checks.captions import caption_is_complete, has_numbers
from kft.course.checks.numbers import below_baseline, equal_numbers, follows_differences
from kft.course.checks.records import no_overlap, no_value, scaler_saw_only
from kft.course.checks.weights import frozen_unmoved, has_learned

__all__ = [
    "below_baseline",
    "caption_is_complete",
    "equal_numbers",
    "follows_differences",
    "frozen_unmoved",
    "has_learned",
    "has_numbers",
    "no_overlap",
    "no_value",
    "scaler_saw_only",
]
