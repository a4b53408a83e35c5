"""What is said of the options of every method."""

import pytest

from finecast.solvers.option_texts import described, method_options
from finecast.solvers.registry import methods


@pytest.mark.parametrize("name", methods())
def test_every_option_of_every_method_is_explained(name: str) -> None:
    options = method_options(methods()[name])
    assert {option.name for option in options} == set(methods()[name].options())
    assert [option.name for option in options if not option.meaning] == []


def test_docstrings_are_read() -> None:
    doc = """Do it.

Parameters
----------
a, b : int
    Both
    of them.
c
    The third.

Returns
-------
x
    Not a parameter.
"""
    assert described(doc) == {"a": "Both of them.", "b": "Both of them.", "c": "The third."}
