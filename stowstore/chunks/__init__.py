"""Chunks: bytes to blocks to pack objects and back; knows nothing of files.

`stowstore.chunks.store.ChunkStore` is where to begin: its writers take bytes and give references, its readers take
references and give bytes.
"""
