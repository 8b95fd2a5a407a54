"""This room runs finished engines. Each runtime (onnxruntime, openvino, tensorrt, torch) is one file.

diffclean compiles nothing in this room; `export.opening` does that first if a runtime needs it.
"""
