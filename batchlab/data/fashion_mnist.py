"""Fashion-MNIST: 70,000 pictures of clothes in MNIST's format (Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747)."""

from batchlab.data.images.idx_files import IdxFiles
from batchlab.data.images.loader import loader

# Of the unzipped files.
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}

load = loader("fashion_mnist", "FashionMNIST", IdxFiles(MD5))
