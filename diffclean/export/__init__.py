"""From torch modules to ONNX and compiled engines.

An engine directory is built, checked against torch, compiled for a runtime and kept in the cache. `opening` opens one
and compiles it first where that is needed.
"""
