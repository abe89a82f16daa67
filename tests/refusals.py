"""Losses that refuse what means nothing, with a message."""

import re

import pytest
import torch

from lossreg.registry import build_loss


def assert_refused(message, name, options, *arguments):
    """A loss is not built, or, where there are arguments, does not take them: a shape, and what the target holds."""
    if not arguments:
        with pytest.raises(Exception, match=re.escape(message)) as raised:
            build_loss({'type': name, **options})
        assert isinstance(raised.value.__cause__ or raised.value, ValueError)
        return
    shape, target = arguments
    loss = build_loss({'type': name, **options})
    with pytest.raises(ValueError, match=re.escape(message)):
        loss(torch.rand(shape), torch.tensor(target))
