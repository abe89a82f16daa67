"""What lossreg imports from mmengine, installed by ``mmengine`` or its maintained fork ``onedl-mmengine``."""

from lossreg.errors import MissingPackageError

try:
    from mmengine.config import Config
    from mmengine.fileio import load
    from mmengine.registry import MODELS, Registry
except ModuleNotFoundError as error:
    if error.name != 'mmengine':
        raise
    raise MissingPackageError(
        'lossreg needs mmengine: pip install mmengine, or its maintained fork, pip install onedl-mmengine'
    ) from None

__all__ = ['MODELS', 'Config', 'Registry', 'load']
