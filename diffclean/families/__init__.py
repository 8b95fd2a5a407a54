"""This room says what an image-variation model is: how it is loaded, conditioned and decoded. Each family is one file.

The seeds of the images' noise are also here, because the families and the sampler draw noise from the same seeds.
"""
