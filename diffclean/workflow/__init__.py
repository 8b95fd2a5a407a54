"""The whole job, step by step, from a suspect data set to a clean student and a report.

`steps` has a function for each step, `chain` puts them in order, and `runner` does those that are not done yet, by what
`ledger` knows. `prepare` looks at the data and decides what nobody decided, and `clean` does all of it in one folder.
The demonstration (`demo`) draws a data set, poisons it, and cleans it.
"""
