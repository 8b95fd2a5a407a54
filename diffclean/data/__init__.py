"""Image data sets, in and out.

A data set is a list of images with identities (`keys`), read through a `Source` (`sources`, `item`), decoded whatever
their format and however hostile (`decode`), fitted into a model's square and back (`fit`), encoded (`encode`) and
written whole or not at all (`atomic`) by one writer (`lock`), with every attempt on record (`run_record`, `manifest`,
`classes`); several machines share the work (`shard`, `merge`). NumPy, Pillow and, lazily, pyarrow live here; torch
does not.
"""
