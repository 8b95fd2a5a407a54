"""Reading and writing image data sets.

A data set is a stream of images with identities (`keys`, `item`). It is read through a `Source` (`sources`) and written
through a `Sink` (`sinks`). `registry` opens both; there is one module per format (`folder`, which uses `listing` to
walk a folder). `decode` turns the bytes of an image of any format into pixels, and is safe with hostile files. `fit`
fits an image into a model's square and back, `encode` encodes it, and `atomic` writes files whole or not at all. `lock`
ensures that there is only one writer. The `records` of a run are stored beside the images: `run_record`, `journal` and
`manifest`. When a run is resumed, `survey` first compares the records with the source and the output. `shard` and
`merge` divide the work among several machines. This package uses NumPy, Pillow and (imported only when needed) pyarrow,
but not torch.
"""
