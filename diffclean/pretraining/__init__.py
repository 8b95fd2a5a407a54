"""This room pretrains a variation model on trusted images.

It holds the corruptions that the model learns to undo, the batches, the training loop and the report.
"""
