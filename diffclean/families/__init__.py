"""What an image-variation model is: load it, condition it, decode it. One file a family.

The seeds of an image's noise are here too, since every family draws its noise from them.
"""
