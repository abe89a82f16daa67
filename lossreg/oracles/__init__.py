"""Independent float64 references of the losses, written in NumPy only.

``lossreg.oracles.<family>.<loss>`` holds one function, named like its file::

    def giou_loss(call: str, inputs: Inputs, options: Options) -> Array: ...

* ``call`` is the name of one of the loss's calls (``LossSpec.calls``).
* ``inputs`` maps exported input names to float64 or int64 arrays. Absent optional inputs have no key.
* ``options`` holds every constructor argument of the loss class, with defaults filled in. The config of a nested loss
  is replaced by that loss's options, with its oracle as ``oracle``.
* The result is the loss in float64: 0-d, or element-wise with ``reduction='none'``; or a dict with the loss as ``loss``
  and further outputs by name. A key ``held_<name>`` marks a detached constant (such as a margin from detached
  statistics): central differences pass it back among ``inputs``, and the oracle then uses that value.

An oracle is written from the formula, never from our loss, and is meant to be checked by eye: loops over samples, for
small and legal inputs. It follows the numerical contract: an ignored or zero-weight element is skipped, so NaN in it
cannot count; 0 · log 0 is 0; a mean over nothing is 0; all other NaN and infinities propagate.
"""
