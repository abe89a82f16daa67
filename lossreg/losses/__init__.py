"""All losses, one a file. Importing this package imports, and so registers, every one of them.

The plain name belongs to the first package that defines it; the same name elsewhere has a prefix, such as ``Seg`` or
``Torch``. ``Seed`` is the prefix of losses as the tutorials have them that this collection began with.
"""

from lossreg.walk import import_submodules

import_submodules(__name__, __path__)
