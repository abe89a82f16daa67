"""The formats a loss is exported to, and the backends that run it. Imports nothing, so the command line may use it."""

SUFFIXES = {'onnx': 'onnx', 'torchscript': 'pt', 'pt2': 'pt2'}
"""File name suffix by format."""

BACKENDS = {'eager': '', 'torchscript': 'torchscript', 'pt2': 'pt2', 'ort-cpu': 'onnx', 'ort-cuda': 'onnx'}
"""The format each backend runs; eager runs none."""

DEVICE_BACKENDS = {
    'cpu': ('eager', 'torchscript', 'pt2', 'ort-cpu'),
    'cuda': ('eager', 'torchscript', 'ort-cuda'),
}
"""The backends checked on each device unless others are asked for."""

DEFAULT_OPSET = 18

OLDEST_ONNXRUNTIME = {18: '1.16.3'}
"""The oldest onnxruntime seen to run each opset's files (`make test-onnxruntime`)."""

OLDEST_ONNXRUNTIME_EMPTY_BATCH = {18: '1.16.3'}
"""The oldest onnxruntime seen to run them on an empty batch as well (the same)."""
