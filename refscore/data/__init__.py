"""Data: sets by name, points and images of a file, in units that a network likes; numbers in and out of files.

`sets.load_data(name or file)` is the door. Behind it: `points` (tables, any number of columns), `images` (IDX, .npy,
.npz, masks, the handwritten digits), `labels`, `idx`, `scaling` (to the network's units and back), and `files`, which
writes whole or not at all and reads only what a header promised. Sets of points that have a name are in
`laws.examples` and `laws.plane`. Nothing is downloaded, and nothing in a file is executed.
"""
