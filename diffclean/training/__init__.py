"""This room trains teacher and student.

It holds their configurations, objectives and optimisers, the training loop in one or several processes, and how a run
is resumed and logged.
"""
