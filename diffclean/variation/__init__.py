"""From images to variations: sampler, per-image seeds, colour transfer, the streaming pipeline, resume."""
