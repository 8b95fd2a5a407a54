"""diffclean: train on image data you cannot trust.

Regenerate every image with an image-variation diffusion model, then distil a student from the suspect teacher on the
variations alone (Struppek et al., arXiv 2310.06372). Nothing heavy is imported here: `diffclean --help` stays fast.
"""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels report to their maker unless this is set before they are imported, and Hugging Face's library
# adds what runs to its requests. Who works on data that others must not see wants neither.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
