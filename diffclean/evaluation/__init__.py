"""This room measures clean accuracy, attack success rate, robust accuracy, trigger survival and label preservation."""
