"""Checks losses on every backend: ``python export/check.py TARGET...``, as ``lossreg check`` does."""

import sys

from lossreg.__main__ import main

sys.exit(main(['check', *sys.argv[1:]]))
