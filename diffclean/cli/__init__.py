"""The command line. Each verb is one file; click and rich are imported here and nowhere else."""
