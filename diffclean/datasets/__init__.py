"""Decoded images with their labels, for training and evaluation: held in memory or streamed, variations beside their originals."""
