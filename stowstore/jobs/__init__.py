"""Jobs: commands that see the host's programs, the named volumes they ask for, and nothing else.

`run_job` runs one; `stowstore run` is the same on the command line.
"""

from stowstore.jobs.errors import InvalidJob, JobError, JobNotStarted, NoSandbox
from stowstore.jobs.process import JobInterrupted, Output, SignalsPassedOn
from stowstore.jobs.request import Job, VolumeRequest, WhenOrphaned, parse_variable, parse_volume
from stowstore.jobs.settings import Settings
from stowstore.jobs.supervisor import JobResult, JobVolume, run_job

__all__ = [
    "InvalidJob",
    "Job",
    "JobError",
    "JobInterrupted",
    "JobNotStarted",
    "JobResult",
    "JobVolume",
    "NoSandbox",
    "Output",
    "Settings",
    "SignalsPassedOn",
    "VolumeRequest",
    "WhenOrphaned",
    "parse_variable",
    "parse_volume",
    "run_job",
]
