"""Whether a registry gets the same verdicts through a proxy: oci-verdict.py DIRECT THROUGH"""

import collections
import re
import sys
import xml.etree.ElementTree as xml


def verdicts(path):
    """The tests of a report and their verdicts, in order."""
    cases = xml.parse(path).iter("testcase")
    # Some are named by a session or a digest that differs from run to run.
    return [(case.get("name"), case.get("status"), case) for case in cases]


direct, through = (verdicts(path) for path in sys.argv[1:3])
print(f"{'OCI distribution conformance':34} direct through")
for verdict in sorted({status for _, status, _ in direct + through}):
    count = [sum(status == verdict for _, status, _ in run) for run in (direct, through)]
    print(f"{verdict:34} {count[0]:6} {count[1]:7}")

tally = [collections.Counter((name, status) for name, status, _ in run) for run in (direct, through)]
other = tally[1] - tally[0]
for name, status in sorted(other):
    print(f"{status} through dfdaemon, and not without it: {name}")
    for case in (case for n, s, case in through if (n, s) == (name, status)):
        text = re.sub(r"\s+", " ", " ".join(case.itertext()))
        print(f"    {text[-400:]}")
# What fails without us may pass with us: docker-registry cuts its own 416 short.
worse = [name for name, status in other if status != "passed"]
sys.exit(bool(worse))
