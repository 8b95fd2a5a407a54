"""The training loops of teacher and student: configuration, objective, optimisers, several processes, resume and log."""
