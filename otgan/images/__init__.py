"""Images on disk, and in memory as uint8 tensors (n, c, h, w)."""

from otgan.images.arrays import ArrayDataset
from otgan.images.base import ImageDataset, Images
from otgan.images.folder import FolderDataset
from otgan.images.idx import IDXDataset, read_idx
from otgan.images.reading import fashion_mnist, mnist, open_images, read

__all__ = [
    "ArrayDataset",
    "FolderDataset",
    "IDXDataset",
    "ImageDataset",
    "Images",
    "fashion_mnist",
    "mnist",
    "open_images",
    "read",
    "read_idx",
]
