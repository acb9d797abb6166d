"""The kernel's file system protocol, spoken on ``/dev/fuse``; everything about volumes and stores lies above."""
