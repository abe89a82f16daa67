"""Reads the sigmas of a data set's keypoints from mmpose's metainfo."""

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossreg.engine import Config

Metainfo = str | Mapping[str, Any] | Sequence[float]
"""The source of sigmas: the path of a data set's metainfo file, its content, or the sigmas themselves."""


def read_sigmas(metainfo: Metainfo | None) -> Tensor | None:
    """The sigmas of a data set, (K), from its metainfo in a config. For constructors only.

    A path leads to a config file with ``dataset_info``. As in mmpose, a file that does not exist is looked up by name
    among the data sets of an installed mmpose.

    Raises:
        ValueError: the file does not exist, or a sigma is missing or not positive.
    """
    if metainfo is None:
        return None
    found: Any = metainfo
    if isinstance(found, Mapping) and 'from_file' in found:
        found = found['from_file']
    if isinstance(found, str):
        found = Config.fromfile(_metainfo_file(found)).get('dataset_info', {})
    if isinstance(found, Mapping):
        found = found.get('sigmas', [])
    sigmas = [float(sigma) for sigma in found]
    if not sigmas or min(sigmas) <= 0:
        raise ValueError(f'metainfo must hold one sigma above 0 for each keypoint, got {sigmas}')
    return torch.tensor(sigmas)


def _metainfo_file(path: str) -> Path:
    """The metainfo file of a data set, or mmpose's own file of that name."""
    file = Path(path)
    if file.is_file():
        return file
    mmpose = find_spec('mmpose')
    if mmpose is not None and mmpose.origin is not None:
        shipped = Path(mmpose.origin).parent / '.mim' / 'configs' / '_base_' / 'datasets' / file.name
        if shipped.is_file():
            warnings.warn(f'metainfo file {path} does not exist; using {shipped} instead', stacklevel=4)
            return shipped
    raise ValueError(f'metainfo file {path} does not exist; give its path, or the numbers: dict(sigmas=[...])')
