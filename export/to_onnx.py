"""``lossreg export`` to ONNX: ``python export/to_onnx.py TARGET... [--grad] [--out FOLDER]``."""

import sys

from lossreg.__main__ import main

sys.exit(main(['export', '--format', 'onnx', *sys.argv[1:]]))
