"""The loops that train teacher and student.

Here are their configurations, the objectives, optimisers, work in several processes, resume and the log.
"""
