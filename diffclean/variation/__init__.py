"""This room turns images into variations: the sampler, colour transfer, and the streaming pipeline with its resume."""
