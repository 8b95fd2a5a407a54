"""What an image-variation model is: load it, condition it, decode it. One file a family."""
