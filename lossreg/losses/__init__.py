"""All losses, one a file. Importing this package imports, and so registers, every one of them."""

from lossreg.walk import import_submodules

import_submodules(__name__, __path__)
