"""Training loops: classifiers (the teacher), checkpoints, and pretraining of a variation model."""
