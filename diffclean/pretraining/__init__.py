"""Pretraining of a variation model on trusted images.

Here are the corruptions that it learns to undo, its batches, its training loop and its report.
"""
