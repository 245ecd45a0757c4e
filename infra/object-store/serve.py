"""A local S3 for development: one process on loopback, objects in memory and gone when it ends.

Create-only writes are enforced as a real store does; who asks is not: it takes any key.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

import boto3
from moto.server import ThreadedMotoServer

KEY = "local-development"


def environment(endpoint: str) -> dict[str, str]:
    """Return what a client needs in its environment to use the store."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def serve(port: int, buckets: list[str]) -> None:
    """Serve until SIGINT or SIGTERM, after printing the environment as lines for a shell."""
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # before the server's thread exists, or it would take them
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = environment(f"http://{host}:{port}")
    os.environ.update(variables)
    client = boto3.client("s3")
    for bucket in buckets:
        client.create_bucket(Bucket=bucket)
    for name, value in variables.items():
        print(f"export {name}={value}")
    print(f"# buckets: {' '.join(f's3://{bucket}/' for bucket in buckets)}; Ctrl-C ends it", flush=True)
    signal.sigwait(ending)
    server.stop()


def main() -> None:
    """Parse the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9000, help="0 takes any free port")
    parser.add_argument("buckets", nargs="*", default=["corpora", "embeddings"])
    options = parser.parse_args()
    try:
        serve(options.port, options.buckets)
    except OSError as error:
        sys.exit(f"cannot serve on port {options.port}: {error}")


if __name__ == "__main__":
    main()
