"""This room distributes work to this process or to several processes, all behind the `Executor` Protocol.

A run is a `Task`, which opens a `Station` wherever the work is done, and a stream of jobs. An executor opens stations,
gives them jobs, and passes the outcomes to the function that records them. It knows nothing about images.
"""
