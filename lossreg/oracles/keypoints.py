"""Helper of the oracles of keypoint losses: the sigmas of a data set."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lossreg.oracles.reference import Array


def sigmas_of(metainfo: Any) -> Array | None:
    """The sigmas of a config, given as a file path, a dict or a list. Rounded to float32.

    A file that does not exist means mmpose's own file of that name.
    """
    if metainfo is None:
        return None
    if isinstance(metainfo, Mapping):
        return sigmas_of(metainfo.get('from_file', metainfo.get('sigmas')))
    if isinstance(metainfo, str):
        return sigmas_of(_dataset_info(Path(metainfo)))
    return np.array(metainfo, np.float32).astype(np.float64)


def _dataset_info(path: Path) -> Any:
    if not path.is_file():
        mmpose: Any = importlib.util.find_spec('mmpose')
        path = Path(mmpose.origin).parent / '.mim' / 'configs' / '_base_' / 'datasets' / path.name
    if path.suffix != '.py':
        return yaml.safe_load(path.read_text())['dataset_info']  # JSON is also YAML
    spec: Any = importlib.util.spec_from_file_location('metainfo', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dataset_info
