"""SVHN: 99,289 street view house numbers, 32x32, cut to one digit (Netzer et al. 2011)."""

from batchlab.data.images.loader import loader
from batchlab.data.images.svhn_files import SvhnFiles

load = loader("svhn", "SVHN", SvhnFiles())
