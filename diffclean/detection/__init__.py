"""The detectors, which find the poisoned images of a data set. Each detector is one file.

`data.suspects` writes and reads the lists that detectors make.
"""
