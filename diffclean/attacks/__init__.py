"""Backdoor poisoning for red-team tests, one file an attack."""
