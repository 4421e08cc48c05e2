"""CIFAR-10: 60,000 colour pictures of 10 classes, 32x32 (Krizhevsky 2009)."""

from batchlab.data.images.cifar_files import CifarFiles
from batchlab.data.images.loader import loader

TRAIN = [f"data_batch_{n}.bin" for n in range(1, 6)]

load = loader("cifar10", "CIFAR10", CifarFiles("cifar-10-batches-bin", TRAIN, ["test_batch.bin"], label_bytes=1))
