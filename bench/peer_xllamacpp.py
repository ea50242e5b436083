"""Serves one model with llama.cpp's own server as packed in xllamacpp: a peer that needs no compiling.

usage: peer_xllamacpp.py MODEL PORT THREADS CONTEXT PARALLEL
"""

import signal
import sys

import xllamacpp


def main() -> None:
    model, *numbers = sys.argv[1:]
    port, num_threads, context, num_parallel = map(int, numbers)
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = num_threads
    params.n_ctx = context
    params.n_parallel = num_parallel
    # SIGTERM keeps its default effect, so it ends a load that hangs as well.
    server = xllamacpp.Server(params)
    print(f"serving {model} at {server.listening_address}", file=sys.stderr)
    signal.pause()


if __name__ == "__main__":
    main()
