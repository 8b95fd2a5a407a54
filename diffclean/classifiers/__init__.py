"""Classifiers as networks and as files: architectures, checkpoints, teachers from elsewhere, and ONNX classifiers.

This room does not train classifiers; `training` does.
"""
