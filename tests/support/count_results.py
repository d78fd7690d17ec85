"""count_results.py BUILD RESULTS [REGEX]: adds up GoogleTest's XML files and the *.count files.

A test program that ended without its XML (a crash, a time-out) counts as one failure. Prints the closing line
"N passed, N failed, N skipped" and exits with 1 when anything failed or nothing ran.
"""
import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

build, results = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
pattern = sys.argv[3] if len(sys.argv) > 3 else "."
total = {"passed": 0, "failed": 0, "skipped": 0}
why_skipped = {}

listing = json.loads(subprocess.run(["ctest", "--test-dir", build, "--show-only=json-v1"],
                                    capture_output=True, text=True, check=True).stdout)
failed_log = build / "Testing/Temporary/LastTestsFailed.log"
ended_badly = {line.split(":", 1)[1] for line in failed_log.read_text().split()} if failed_log.exists() else set()
for name in (test["name"] for test in listing["tests"]):
    if not re.search(pattern, name):
        continue
    file = results / f"{name}.xml"
    try:
        cases = list(ElementTree.parse(file).iter("testcase"))
    except (OSError, ElementTree.ParseError):
        print(f"FAILED: {name} ended without a result (a crash or a time-out; see {build}/ctest.log)")
        total["failed"] += 1
        continue
    if name in ended_badly and not any(case.find("failure") is not None for case in cases):
        print(f"FAILED: {name} ended with an error after its tests")
        total["failed"] += 1
    for case in cases:
        if case.find("failure") is not None:
            total["failed"] += 1
            print(f"FAILED: {name}: {case.get('classname')}.{case.get('name')}")
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            total["skipped"] += 1
            reason = case.find("skipped")
            text = (reason.get("message") or "").splitlines()[-1:] if reason is not None else []
            why_skipped.setdefault(text[0] if text else "", []).append(f"{name}: {case.get('name')}")
        else:
            total["passed"] += 1

for file in sorted(results.glob("*.count")):
    for outcome in file.read_text().split():
        total[outcome] += 1
        if outcome == "failed":
            print(f"FAILED: in {file.stem}")

for reason, names in sorted(why_skipped.items()):
    print(f"skipped ({len(names)}): {reason or 'no reason given'}")
print("{passed} passed, {failed} failed, {skipped} skipped".format(**total))
sys.exit(1 if total["failed"] or not total["passed"] else 0)
