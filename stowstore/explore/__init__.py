"""A volume in a terminal: `ExplorerApp` shows the tree of a version, its history, and what changed.

Everything is read in the background, from the index only; data are fetched when a preview is asked for.  What a store
says is hostile: it is escaped, and never read as markup.
"""
