"""Modules that tests export or trace."""

from torch import nn


class Function(nn.Module):
    """A function as a module, because exporters take only modules."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)
