"""The Python door: what `import diffclean as dc` offers. See docs/python.md.

Each function takes what the verb of the same name takes on the command line, with the same defaults: the command line
reads its defaults from the signatures here.
"""
