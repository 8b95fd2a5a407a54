"""What an engine directory is: its manifest, the precision of its graphs, and the keys of what was compiled from them.

`export` writes engines and `runtime` runs them; both read here what they must agree on.
"""
