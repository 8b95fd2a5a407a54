"""diffclean: train on image data you cannot trust.

Regenerate every image with an image-variation diffusion model, then distil a student from the suspect teacher on the
variations alone (Struppek et al., arXiv 2310.06372). Nothing heavy is imported here: `diffclean --help` stays fast.
"""

__version__ = "0.1.0"
