"""Run an engine that is ready: one file a runtime (onnxruntime, openvino, tensorrt, torch).

Nothing is compiled here; `export.opening` compiles first where a runtime wants it.
"""
