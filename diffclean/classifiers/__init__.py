"""Classifiers as networks and as files: architectures, checkpoints, foreign teachers and state dicts, ONNX classifiers.

Nothing here trains one; `training` does.
"""
