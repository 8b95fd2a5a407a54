"""Classifiers as files and networks: our architectures, checkpoints, foreign state dicts and teachers, and classifiers in ONNX.

Nothing here trains one; `training` does.
"""
