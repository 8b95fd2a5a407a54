"""This room makes engines: it turns torch modules into ONNX graphs and compiled forms.

An engine directory is built, checked against torch, compiled for a runtime and kept in the cache. `opening` opens an
engine, and compiles it first if that is needed.
"""
