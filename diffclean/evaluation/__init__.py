"""Measure: clean accuracy, attack success rate, robust accuracy, trigger survival, label preservation."""
