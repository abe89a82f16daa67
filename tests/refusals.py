"""Losses that refuse meaningless options or inputs with a message."""

import re

import pytest
import torch

from lossreg.registry import build_loss


def assert_refused(message, name, options, *arguments):
    """Asserts that a loss cannot be built or, if there are arguments (a shape, the target's value), refuses them."""
    if not arguments:
        with pytest.raises(Exception, match=re.escape(message)) as raised:
            build_loss({'type': name, **options})
        assert isinstance(raised.value.__cause__ or raised.value, ValueError)
        return
    shape, target = arguments
    loss = build_loss({'type': name, **options})
    with pytest.raises(ValueError, match=re.escape(message)):
        loss(torch.rand(shape), torch.tensor(target))
