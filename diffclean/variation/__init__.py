"""This room turns images into variations: the sampler, colour transfer, and the resumable streaming pipeline."""
