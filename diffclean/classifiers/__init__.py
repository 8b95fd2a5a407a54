"""Classifiers as networks and as files: architectures, checkpoints, state dicts and ONNX of other programs.

Nothing here trains one; `training` does.
"""
