"""This room trains teacher and student.

It holds their configurations, objectives and optimisers, the loop in one or several processes, its resume and its log.
"""
