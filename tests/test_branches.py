"""Samples reach both sides of every choice in the formulas, or ``branches.UNREACHABLE`` says why they cannot.

By default for one loss of each family, with ``-m exhaustive`` for all.
"""

import pytest
import torch
from branches import UNREACHABLE, Watch, reason_of, unreached

from lossreg.registry import load_losses
from lossreg.spec import family_of

LOSSES = load_losses()
ONE_OF_EACH = {family_of(cls): name for name, cls in sorted(LOSSES.items(), reverse=True)}


def reasons(names):
    """Why sides of these losses cannot be reached; fails where nothing says so."""
    found = [(name, line) for name in names for line in unreached(name)]
    unexplained = [f'{name}: {line}' for name, line in found if not reason_of(line)]
    assert not unexplained, '\n'.join(unexplained)
    return {reason_of(line) for _, line in found}


def test_samples_reach_every_branch():
    reasons(ONE_OF_EACH.values())


@pytest.mark.exhaustive
def test_samples_reach_every_branch_of_all_losses():
    assert reasons(LOSSES) == set(UNREACHABLE), 'a reason explains nothing any more'


def test_a_side_is_reached_by_a_gradient_that_is_not_0():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    seen = Watch()
    for slope in (0.0, 1.0):
        with seen:
            (slope * torch.where(x > 0, x, -x)).sum().backward()
        expected = ['false', 'true'] if slope == 0.0 else ['false']
        assert [side for _, side in seen.missing()] == expected
    with seen:
        torch.where(x > 1.5, x, -x).sum().backward()
    assert not list(seen.missing())
