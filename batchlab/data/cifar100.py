"""CIFAR-100: 60,000 colour pictures of 100 classes, 32x32 (Krizhevsky 2009)."""

from batchlab.data.images.cifar_files import CifarFiles
from batchlab.data.images.loader import loader

# The label of one of 20 coarse classes precedes the fine label.
FILES = CifarFiles("cifar-100-binary", ["train.bin"], ["test.bin"], label_bytes=2)

load = loader("cifar100", "CIFAR100", FILES, classes=100)
