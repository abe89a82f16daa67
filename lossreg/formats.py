"""The export formats of a loss, and the backends that run it. It imports nothing, to keep the command line fast."""

SUFFIXES = {'onnx': 'onnx', 'torchscript': 'pt', 'pt2': 'pt2'}
"""File name suffix by format."""

COMPILERS = {'compile': 'aot_eager', 'compile-inductor': 'inductor'}
"""The backends that run the loss under torch.compile, with torch's own name for each."""

BACKENDS = {
    'eager': '',
    **dict.fromkeys(COMPILERS, ''),
    'torchscript': 'torchscript',
    'pt2': 'pt2',
    'ort-cpu': 'onnx',
    'ort-cuda': 'onnx',
}
"""The format that each backend runs; eager and torch.compile run none."""

DEVICE_BACKENDS = {
    'cpu': ('eager', 'torchscript', 'pt2', 'ort-cpu'),
    'cuda': ('eager', 'torchscript', 'ort-cuda'),
}
"""The backends checked on each device unless others are asked for."""

DEFAULT_OPSET = 18

OLDEST_ONNXRUNTIME = {18: '1.16.3'}
"""The oldest onnxruntime known to run each opset's files (`make test-onnxruntime`)."""

OLDEST_ONNXRUNTIME_EMPTY_BATCH = {18: '1.16.3'}
"""The oldest onnxruntime known to run them on an empty batch too (same test)."""
