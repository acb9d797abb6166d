"""Bulk jobs on a Dask cluster: `connect` to one, and give it to the verbs that divide their work."""

from stowstore.interop.dask.cluster import DaskCluster, connect
from stowstore.interop.dask.errors import ClusterFailed

__all__ = ["ClusterFailed", "DaskCluster", "connect"]
