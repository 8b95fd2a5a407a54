"""This room says what an engine directory is: its manifest, its precision, and the keys of its compiled forms.

`export` writes engines and `runtime` runs them; both use this room for what they must agree on.
"""
