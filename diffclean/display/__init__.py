"""What people see while work runs: the progress bar, in a terminal and in a notebook."""
