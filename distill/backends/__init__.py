"""What `distill` works with: the disk under the log, and the daemons that do recorded tasks again."""

from distill.backends.disk import Disk, FakeDisk, OsDisk
from distill.backends.peers import FakePeers, HttpPeers, Peers

__all__ = ["Disk", "FakeDisk", "FakePeers", "HttpPeers", "OsDisk", "Peers"]
