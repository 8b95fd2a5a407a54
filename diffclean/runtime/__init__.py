"""This room runs an engine that is ready. Each runtime (onnxruntime, openvino, tensorrt, torch) is one file.

Nothing is compiled here by diffclean; `export.opening` does that first where a runtime wants it.
"""
