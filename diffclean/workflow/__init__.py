"""The whole job, step by step, from a suspect data set to a measured student.

`steps` has a function for each step, and `chain` puts them in order. The demonstration (`demo`) draws a data set,
poisons it and runs the chain on it.
"""
