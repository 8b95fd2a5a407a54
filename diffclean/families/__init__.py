"""This room says what an image-variation model is: how it is loaded, conditioned and decoded. Each family is one file.

The seeds of an image's noise are here too, since families and the sampler draw noise from the same ones.
"""
