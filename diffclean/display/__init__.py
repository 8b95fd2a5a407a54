"""The display of progress while work runs: the bar, in a terminal and in a notebook."""
