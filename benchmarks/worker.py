"""A benchmark's worker as a process: commands on its standard input, a line of JSON each on its standard output."""
import json
import os
import subprocess
import sys


class Worker:
    """Started at once; `ranks` ranks with `threads` threads each. Ready when the constructor returns. `passive`: threads
    sleep at once when they have nothing to do, so that two workers can take turns; it slows short parallel regions."""

    def __init__(self, command, threads, ranks=1, passive=True):
        environment = dict(os.environ, OMPI_MCA_mpi_yield_when_idle="1",
                           OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
                           OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        if passive:
            environment["OMP_WAIT_POLICY"] = "passive"
        launcher = ["mpirun", "-n", str(ranks), "--bind-to", "none"] if ranks > 1 else []
        self.process = subprocess.Popen([*launcher, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, env=environment)
        self.reply()

    def reply(self):
        while True:
            line = self.process.stdout.readline()
            if not line:
                sys.exit("a worker ended early")
            if line.startswith("{"):
                return json.loads(line)

    def ask(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self.reply()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
