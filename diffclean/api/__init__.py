"""The Python functions that `import diffclean as dc` offers. See docs/python.md.

Each function takes the same arguments as the verb of that name, with the same defaults: the command line reads its
defaults from the signatures here.
"""
