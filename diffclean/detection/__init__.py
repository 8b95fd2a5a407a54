"""This room says which images of a data set are poisoned. Each detector is one file.

What a detector finds is written and read by `data.suspects`.
"""
