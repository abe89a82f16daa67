"""Independent float64 references of the losses, in NumPy alone.

``lossreg.oracles.<family>.<loss>`` holds one function, named like its file::

    def giou_loss(call: str, inputs: Inputs, options: Options) -> Array: ...

* ``call`` is the name of one of the loss's calls (``LossSpec.calls``).
* ``inputs`` maps exported input names to float64 or int64 arrays. An optional input that is absent has no key.
* ``options`` holds every constructor argument of the loss class, defaults filled in. In place of the config of a nested
  loss stand that one's options, with its oracle as ``oracle``.
* The result is the loss in float64: 0-d, or element-wise with ``reduction='none'``; or a dict of it, as ``loss``, and
  of further outputs by name. ``held_<name>`` in it is a quantity without gradient (a margin from detached statistics):
  central differences give it back among ``inputs``, and the oracle then takes it from there.

An oracle is written from the formula, never from our loss, and is meant to be checked by eye: loops over samples, for
small and legal inputs. It follows the numerical contract. An ignored or zero-weight element is skipped, so NaN in it
cannot count; 0 · log 0 is 0; a mean over nothing is 0; all other NaN and infinities take their course.
"""
