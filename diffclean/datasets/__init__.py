"""This room holds decoded images with their labels, in memory or streamed, and pairs variations with their originals.

`training`, `evaluation` and `detection` read their images through it.
"""
