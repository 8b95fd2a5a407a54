"""This room says what an engine directory is: its manifest, its precision, and the keys of what was compiled from it.

`export` writes engines and `runtime` runs them; both read here what they must agree on.
"""
