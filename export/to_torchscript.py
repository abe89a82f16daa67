"""``lossreg export`` to TorchScript: ``python export/to_torchscript.py TARGET... [--grad] [--out FOLDER]``."""

import sys

from lossreg.__main__ import main

sys.exit(main(['export', '--format', 'torchscript', *sys.argv[1:]]))
