from __future__ import annotations

from hypothesis import settings

# The same examples every time, and no time limit: CI machines are busy, and a test must not pass by luck.
settings.register_profile("diffclean", deadline=None, derandomize=True)
settings.load_profile("diffclean")
