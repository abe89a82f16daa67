"""No type in the configs shipped with the packages is reported as a misspelt or unknown loss."""

import pytest

pytestmark = pytest.mark.openmmlab

pytest.importorskip('mmdet', reason='needs the real OpenMMLab packages: tests/openmmlab/install.sh VENV')

from census import config_files  # noqa: E402
from mmengine.config import Config  # noqa: E402
from packages import HOSTS  # noqa: E402

from lossreg.config import _unknown  # noqa: E402
from lossreg.misnamed import KnownNames  # noqa: E402


@pytest.mark.parametrize('package', HOSTS)
def test_shipped_configs_have_no_fault(package):
    names, read, faults = KnownNames(), 0, []
    for path in [path for owner, path in config_files() if owner == package]:
        try:
            config = Config.fromfile(path, import_custom_modules=False)
        except Exception:  # some name files that are not in their wheel
            continue
        read += 1
        scope = config.get('default_scope') or package
        unknown = _unknown(config.to_dict(), '', scope, names)
        faults += [f'{path}:{place}: {item.fault}' for place, item in unknown if item.fault]
    assert read > 10
    assert faults == []
