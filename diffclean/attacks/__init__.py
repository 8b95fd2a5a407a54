"""This room poisons data sets for red-team tests. Each attack is one file."""
