"""run_python_tests.py RESULTS FOLDER...: every test_*.py below the folders; counts go to RESULTS/*.count."""
import pathlib
import sys
import time
import unittest

results = pathlib.Path(sys.argv[1])


class Lines(unittest.TextTestResult):
    """One line a test, with its time; the outcome of each is kept."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.outcomes = []

    def startTest(self, test):
        super().startTest(test)
        self.started = time.time()

    def stopTest(self, test):
        super().stopTest(test)
        failed = any(t is test for t, _ in self.failures + self.errors) or any(
            getattr(t, "test_case", None) is test for t, _ in self.failures + self.errors)
        skipped = any(t is test for t, _ in self.skipped)
        outcome = "failed" if failed else "skipped" if skipped else "passed"
        self.outcomes.append(outcome)
        print(f"{outcome:>8} {time.time() - self.started:6.1f} s  {test.id()}", flush=True)


for folder in sys.argv[2:]:
    if not pathlib.Path(folder).is_dir():
        continue
    suite = unittest.defaultTestLoader.discover(folder, pattern="test_*.py", top_level_dir=folder)
    outcome = unittest.TextTestRunner(resultclass=Lines, verbosity=0, stream=sys.stdout).run(suite)
    counts = outcome.outcomes
    # A file that cannot be imported, or a set-up that fails, is an error without a finished test.
    counts += ["failed"] * max(0, len(outcome.failures) + len(outcome.errors) - counts.count("failed"))
    name = folder.strip("/").replace("/", "_")
    (results / f"python_{name}.count").write_text("\n".join(counts) + "\n" if counts else "")
