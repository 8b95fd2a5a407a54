"""Decoded images with their labels, in memory or streamed, and variations beside their originals.

`training`, `evaluation` and `detection` all read their images through this room.
"""
