"""Who does the work: this process, or several side by side, all behind the `Executor` Protocol of `base`.

A run is a `Task`, which opens a `Station` wherever the work is to be done, and a stream of jobs. An executor opens
stations, hands the jobs out, and gives what comes back to the one who records it. It knows nothing of images.
"""
