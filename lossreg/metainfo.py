"""What mmpose's configs say of a data set's keypoints."""

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lossreg.engine import Config

Metainfo = str | Mapping[str, Any] | Sequence[float]
"""Where sigmas come from: the path of a data set's metainfo file, its content, or the sigmas themselves."""


def read_sigmas(metainfo: Metainfo | None) -> Tensor | None:
    """The sigmas of a data set, (K), from what a config says of it. For constructors only.

    A path is that of a config file with ``dataset_info``; one that does not exist is looked for, by its last part,
    among the data sets that an installed mmpose brings, as mmpose does.

    Raises:
        ValueError: there is no such file, or no positive sigmas in it.
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
    """The file of a data set's metainfo, or mmpose's own of that name."""
    file = Path(path)
    if file.is_file():
        return file
    mmpose = find_spec('mmpose')
    if mmpose is not None and mmpose.origin is not None:
        shipped = Path(mmpose.origin).parent / '.mim' / 'configs' / '_base_' / 'datasets' / file.name
        if shipped.is_file():
            warnings.warn(f'metainfo file {path} does not exist; {shipped} is taken for it', stacklevel=4)
            return shipped
    raise ValueError(f'metainfo file {path} does not exist; give its path, or the numbers: dict(sigmas=[...])')
