"""Heads that check the class or type of a loss and behave differently for ours."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import product


@dataclass(frozen=True)
class ClassCheck:
    """What a host's heads do differently for a loss that is not the host's own.

    Attributes:
        heads: the types of the heads; a type stands for a registered class and all its registered subclasses.
        losses: the host's losses that they check for.
        effect: what they do with any other loss.
    """

    heads: tuple[str, ...]
    losses: tuple[str, ...]
    effect: str


CHECKS = (
    ClassCheck(
        (
            'DETRHead', 'ConditionalDETRHead', 'DABDETRHead', 'DDQDETRHead', 'DINOHead', 'DeformableDETRHead',
            'GroundingDINOHead',
        ),
        ('mmdet.QualityFocalLoss',),
        "gives IoUs as targets to mmdet's own class only, and plain labels to any other",
    ),
    ClassCheck(('DynamicRoIHead',), ('mmdet.SmoothL1Loss',), "asserts that its loss is of mmdet's own class"),
    ClassCheck(
        ('OFDDistiller',),
        ('mmrazor.OFDLoss',),
        "sets the margins of its connectors only for mmrazor's own class",
    ),
    ClassCheck(
        ('Anchor3DHead', 'FreeAnchor3DHead', 'PartA2RPNHead', 'ShapeAwareHead'),
        ('mmdet.FocalLoss', 'mmdet.GHMC'),
        "samples anchors where the type is neither 'mmdet.FocalLoss' nor 'mmdet.GHMC'",
    ),
)  # fmt: skip


def why_kept(hosts: Collection[str], owners: Iterable[str]) -> str:
    """Why the host's class must stay at a place in a config; empty if ours can replace it.

    Args:
        hosts: the host's class, or the classes that ours stands in for, such as ``mmdet.FocalLoss``.
        owners: the types of the enclosing dicts.
    """
    plain = {owner.rpartition('.')[2] for owner in owners}
    for check in CHECKS:
        for head, loss in product(check.heads, check.losses):
            if head in plain and loss in hosts:
                return f'{head} {check.effect}; {loss} must stay here'
    return ''
