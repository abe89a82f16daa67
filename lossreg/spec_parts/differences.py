"""Differences that apply to any host."""

from lossreg.spec import Difference


def no_broadcast(host: str, test: str) -> Difference:
    """The difference from hosts that broadcast inputs of different shapes."""
    return Difference(
        host,
        'inputs of different shapes are an error; the host broadcasts them, some with a warning',
        'contract 5: a forgotten dimension would train on the wrong pairs',
        test,
    )


def nan_under_zero(host: str, what: str, test: str) -> Difference:
    """The difference from hosts that multiply by a weight or mask of 0."""
    return Difference(
        host,
        f'NaN under a {what} of 0 contributes 0; {host.partition(".")[0]} returns NaN',
        'contract 3: an element that is switched off contributes nothing to value or gradient',
        test,
    )


def nan_without_weight(host: str, test: str) -> Difference:
    """The difference from hosts that multiply the finished loss by a target weight of 0."""
    return nan_under_zero(host, 'target weight', test)
