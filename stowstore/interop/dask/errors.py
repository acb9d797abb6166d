"""What goes wrong between a client, a scheduler and its workers."""

from __future__ import annotations

from datastore.errors import TransientError

__all__ = ["ClusterFailed"]


class ClusterFailed(TransientError):
    """The cluster cannot be reached, was lost, or has no worker that could do the work; run the job again."""
