"""Read and write image data sets: listing, decoding, fitting, encoding, the journal and the manifest."""
