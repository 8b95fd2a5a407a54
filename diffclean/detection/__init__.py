"""Which images of a data set are poisoned: one file a detector. What they find is written as `data.suspects` says."""
