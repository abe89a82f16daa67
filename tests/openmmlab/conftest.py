"""Installs the shim before any test module here imports an OpenMMLab package."""

import shim

shim.install()
