"""The list of lab tests. A test is a function with @case; it fails by LabError or assert, and may return
a line (or several) of figures for the report."""

import dataclasses
import typing


@dataclasses.dataclass
class Case:
    name: str
    function: typing.Callable
    quick: bool        # in the set that CI runs
    quick_only: bool   # a shorter form of a long test, not run beside it
    what: str


_cases = []


def case(quick=False, quick_only=False):
    def register(function):
        what = (function.__doc__ or "").strip().splitlines()[0] if function.__doc__ else ""
        _cases.append(Case(function.__name__, function, quick or quick_only, quick_only, what))
        return function
    return register


def all_cases():
    return list(_cases)
