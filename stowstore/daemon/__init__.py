"""The process behind a mount: it opens the volume, serves the kernel, and does what it is told over its socket."""
