"""Directories and tar streams into volumes and out of them."""

from stowstore.transfer.exporting import export_directory, export_tar
from stowstore.transfer.exporting_spread import export_spread
from stowstore.transfer.importing import import_directory
from stowstore.transfer.importing_spread import import_spread
from stowstore.transfer.importing_tar import import_tar
from stowstore.transfer.progress import Progress, TransferReport

__all__ = [
    "Progress",
    "TransferReport",
    "export_directory",
    "export_spread",
    "export_tar",
    "import_directory",
    "import_spread",
    "import_tar",
]
