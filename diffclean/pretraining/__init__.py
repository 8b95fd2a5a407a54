"""Pretraining of a variation model on trusted images: the corruptions that it learns to undo, its batches, loop and report."""
