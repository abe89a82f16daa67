"""``lossreg check``: ``python export/check.py TARGET...``."""

import sys

from lossreg.__main__ import main

sys.exit(main(['check', *sys.argv[1:]]))
