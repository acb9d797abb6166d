"""Dispatches some studies and a report about them, and mirrors all of it: ``python run.py s3://bucket/runs?endpoint=...``"""

import sys

from machinable import Execution, Project, Storage, get

from stowstore.records.machinable import Stow

with Project("."), Stow(sys.argv[1]) as mirror, Storage("./storage"):
    studies = [get("study", {"rate": rate}) for rate in (0.05, 0.1, 0.4)]
    for study in studies:
        with Execution():
            study.launch()
    report = get("report", uses=studies)
    report.launch()

    # What is saved later arrives as well: soon, and at the latest when the storage is left.
    studies[2].save_file("notes.txt", "looks best")
    studies[2].set_label("best")
    sys.stdout.write(f"{report.load_file('report.txt')}; {mirror.pending} records to be mirrored again\n")
