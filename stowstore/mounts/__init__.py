"""Mounts from the side of whoever wants one: starting a daemon, talking to it, and knowing what is mounted here."""
