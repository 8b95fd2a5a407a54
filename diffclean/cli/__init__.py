"""The command line: one file a verb. click and rich live here and nowhere else."""
