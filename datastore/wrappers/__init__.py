"""Wrappers: stores over any other store, each of which changes one thing."""
