"""This room makes engines: torch modules become ONNX graphs and compiled forms.

An engine directory is built, checked against torch, compiled for a runtime and kept in the cache. `opening` opens one
and compiles it first where that is needed.
"""
