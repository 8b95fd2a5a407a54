"""The whole story on one machine: a data set of drawn road signs, an attack on it, and what diffclean does about it."""
