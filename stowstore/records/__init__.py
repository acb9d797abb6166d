"""Records: durable homes for the directories of runs, over any store."""

from stowstore.records.directory import RecordDirectory, RunState, run_state
from stowstore.records.identity import canonical_json, identity_key, predicate_key
from stowstore.records.index import Comparison, Filter, IndexEntry, RecordIndex
from stowstore.records.model import Deletion, Manifest, Match, Placement, Related
from stowstore.records.parallel import Progress, TransferState
from stowstore.records.scanning import DigestCache
from stowstore.records.store import Receipt, RecordStore, fetch
from stowstore.records.verifying import Verification

__all__ = [
    "Comparison",
    "Deletion",
    "DigestCache",
    "Filter",
    "IndexEntry",
    "Manifest",
    "Match",
    "Placement",
    "Progress",
    "Receipt",
    "RecordDirectory",
    "RecordIndex",
    "RecordStore",
    "Related",
    "RunState",
    "TransferState",
    "Verification",
    "canonical_json",
    "fetch",
    "identity_key",
    "predicate_key",
    "run_state",
]
