"""The whole job, step by step, from a suspect data set to a clean student and a report.

`steps` has a function for each step, `chain` puts the steps in order, and `runner` does those that are not done yet
according to `ledger`. `prepare` looks at the data and makes every decision that the user left open. `clean` does the
whole job in one folder. The demonstration (`demo`) draws a data set, poisons it, and cleans it.
"""
