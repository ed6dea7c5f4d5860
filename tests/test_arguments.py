"""Arguments of the wrong type or out of range: an error that names them, in every function."""

import inspect

import pytest
from hostile_cases import FINE, judged
from wrong_arguments import ELSEWHERE, arguments

import kft
from kft.arguments import check_choice, check_fraction, check_integer, check_number_above

pytestmark = pytest.mark.once


def test_each_wrong_argument_is_named():
    failed = {}
    for case in arguments():
        outcome, detail = judged(case)
        if outcome not in FINE:
            failed[case.name] = f"{outcome}: {detail}"
    assert failed == {}


def test_the_table_has_every_argument_of_every_public_function():
    given = {case.name.partition("=")[0] for case in arguments()}
    functions = [name for name in kft._HOME if callable(getattr(kft, name))]
    missing = [
        f"{name}({option})"
        for name in functions
        for option in inspect.signature(getattr(kft, name)).parameters
        if option != "kwargs"
        and f"{name}({option}" not in given
        and (name, option) not in ELSEWHERE
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (check_integer, "1"),
        (check_number_above, 10**400),
        (check_fraction, True),
    ],
)
def test_what_no_float_holds_is_refused(check, value):
    with pytest.raises(ValueError, match="^x must be .* received"):
        check("x", value)


def test_true_is_not_one():
    with pytest.raises(ValueError, match="x must be one of 1, 2; received True"):
        check_choice("x", True, (1, 2))
    with pytest.raises(ValueError, match="received"):
        check_choice("x", [1], (1, 2))
