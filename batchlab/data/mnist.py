"""MNIST: 70,000 handwritten digits, 28x28 (LeCun, Bottou, Bengio and Haffner 1998)."""

from batchlab.data.images.idx_files import IdxFiles
from batchlab.data.images.loader import loader

# Of the unzipped files, as they have been distributed since.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

load = loader("mnist", "MNIST", IdxFiles(MD5))
