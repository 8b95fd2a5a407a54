"""Image data sets, in and out.

A data set is a stream of images with identities (`keys`, `item`), read through a `Source` (`sources`) and written
through a `Sink` (`sinks`). `registry` opens either, one module a format (`folder`, which walks by `listing`). Images
are decoded whatever their format and however hostile (`decode`), fitted into a model's square and back (`fit`), encoded
(`encode`) and written whole or not at all (`atomic`) by one writer (`lock`). Beside them lie the `records` of a run:
`run_record`, `journal`, `manifest`. A resumed run compares all of these first (`survey`); several machines share the
work (`shard`, `merge`). NumPy, Pillow and, lazily, pyarrow live here; torch does not.
"""
