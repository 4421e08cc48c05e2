"""`data.download=true`: torchvision downloads the files, here from this machine, and later calls read them."""

import functools
import hashlib
import http.server
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from image_files import some_images, vouch_for, write_cifar, write_mnist, write_svhn

from batchlab import BadRequest
from batchlab.data import cifar10, cifar100, fashion_mnist, mnist, svhn


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Does not log requests."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL at which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_all_five_are_fetched_once_and_read(served, tmp_path, monkeypatch):
    from torchvision import datasets

    folder, address = served
    colour = some_images(30, (3, 32, 32)), some_images(10, (3, 32, 32), seed=1)
    grey = some_images(30, (1, 28, 28)), some_images(10, (1, 28, 28), seed=1)
    for name, known in (("MNIST", datasets.MNIST), ("FashionMNIST", datasets.FashionMNIST)):
        raw = write_mnist(folder, *grey, name=name, zipped=True)
        monkeypatch.setattr(known, "mirrors", [f"{address}{name}/raw/"])
        monkeypatch.setattr(known, "resources", [(path.name, md5(path)) for path in sorted(raw.iterdir())])
    for fine, known in ((False, datasets.CIFAR10), (True, datasets.CIFAR100)):
        home = write_cifar(folder, *colour, fine=fine)
        vouch_for(home, monkeypatch)
        with tarfile.open(folder / known.filename, "w:gz") as archive:
            archive.add(home, home.name)
        monkeypatch.setattr(known, "url", address + known.filename)
        monkeypatch.setattr(known, "tgz_md5", md5(folder / known.filename))
    write_svhn(folder, *colour)
    files = [folder / f"{split}_32x32.mat" for split in ("train", "test")]
    split_list = {path.name[:-10]: [address + path.name, path.name, md5(path)] for path in files}
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    to = str(tmp_path / "data")

    first = [module.load(folder=to, download=True) for module in (mnist, fashion_mnist, cifar10, cifar100, svhn)]
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        path.unlink()  # nothing is downloaded again
    again = [module.load(folder=to, download=True) for module in (mnist, fashion_mnist, cifar10, cifar100, svhn)]
    alone = [module.load(folder=to) for module in (mnist, fashion_mnist, cifar10, cifar100, svhn)]

    for task, *others in zip(first, again, alone, strict=True):
        assert len(task.train[0]) == 30
        assert all(torch.equal(task.train[0], other.train[0]) for other in others)


def test_a_file_that_is_not_what_was_published_or_not_there_is_one_line(served, tmp_path, monkeypatch):
    from torchvision import datasets

    folder, address = served
    monkeypatch.setattr(datasets.CIFAR10, "url", address + datasets.CIFAR10.filename)
    for content in (None, b"<html>"):
        if content is not None:
            (folder / datasets.CIFAR10.filename).write_bytes(content)
        with pytest.raises(BadRequest, match=r"^data\.download=true could not download cifar10: ") as caught:
            cifar10.load(folder=str(tmp_path / "data"), download=True)
        assert str(caught.value).isprintable()
