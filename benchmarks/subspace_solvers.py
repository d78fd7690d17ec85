"""One module's subspace: this program's eigensolver beside what a user would otherwise call.

    python benchmarks/subspace_solvers.py [--sizes 576 1536 2048] [--threads 2] [--ranks 1] [--rounds 3]

Run it with the tests' virtual environment. The matrices are second moments of 2n tokens with a slowly decaying
spectrum, the same for all. `svd` is AlphaEdit's way, torch.linalg.svd of the fp32 matrix; `eigh` is torch.linalg.eigh
in fp64. efface gives what a hard projector at energy .95 keeps, the thinner side; its seconds hold its own proof,
residual and orthogonality, which the others do not give. `all` are all eigenvectors, `ridge` is the ridge projector's
factor by Cholesky, tau the mean eigenvalue (one rank). Sides take turns; the table gives medians, and the median of
the ratios to efface's seconds pair by pair.
"""
import argparse
import os
import pathlib
import statistics
import tempfile
import time

import torch
from safetensors.torch import save_file

from worker import Worker

root = pathlib.Path(__file__).resolve().parent.parent
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--program", default=str(root / "build/benchmarks/benchmarks/eigen_worker"))
parser.add_argument("--sizes", type=int, nargs="+", default=[576, 1536, 2048])
parser.add_argument("--threads", type=int, default=2, help="threads in all; efface divides them over its ranks")
parser.add_argument("--ranks", type=int, default=1)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--skip-svd", action="store_true")
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.manual_seed(0)


def second_moment(n):
    scales = torch.arange(1, n + 1, dtype=torch.float64).pow(-0.5)
    rotation = torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q
    tokens = torch.randn(2 * n, n, dtype=torch.float64) * scales @ rotation
    return tokens.T @ tokens / (2 * n)


matrices = {str(n): second_moment(n) for n in arguments.sizes}
with tempfile.TemporaryDirectory() as folder:
    file = os.path.join(folder, "matrices.safetensors")
    save_file(matrices, file)
    worker = Worker([arguments.program, file], max(1, arguments.threads // arguments.ranks), arguments.ranks,
                    passive=False)

    def timed(call):
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin

    ways = {"eigh": lambda name: timed(lambda: torch.linalg.eigh(matrices[name]))}
    if not arguments.skip_svd:
        ways["svd"] = lambda name: timed(lambda: torch.linalg.svd(matrices[name].float()))
    ways["all"] = lambda name: worker.ask(f"all {name}")["seconds"]
    if arguments.ranks == 1:
        ways["ridge"] = lambda name: worker.ask(f"ridge {name}")["seconds"]
    print(f"{arguments.threads} threads, efface on {arguments.ranks} ranks, {arguments.rounds} rounds")
    print("| n | efface s | residual | orthogonality | " + " | ".join(f"{way} s | ratio" for way in ways) + " |")
    print("|---" * (4 + 2 * len(ways)) + "|")
    for name in matrices:
        worker.ask(name)  # to warm it
        own, proof, others, ratios = [], None, {w: [] for w in ways}, {w: [] for w in ways}
        for _ in range(arguments.rounds):
            proof = worker.ask(name)
            own.append(proof["seconds"])
            for way, seconds in ways.items():
                others[way].append(seconds(name))
                ratios[way].append(others[way][-1] / own[-1])
        print(f"| {name} | {statistics.median(own):.3f} | {proof['residual']:.1e} | {proof['orthogonality']:.1e} | "
              + " | ".join(f"{statistics.median(others[w]):.3f} | {statistics.median(ratios[w]):.2f}" for w in ways)
              + " |", flush=True)
    worker.close()
