"""A pipe on the workers of a dask cluster of this machine; prints what it found."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import workers_pipe
from distributed import Client, LocalCluster

from ataraxis.cluster import Cluster
from ataraxis.pipeline import Pipe, Processor

COUNT = 1500


def main() -> None:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None,
            resources={"fast": 1}, host="127.0.0.1",
        ) as local,
        Client(local) as client,
    ):  # fmt: skip
        client.wait_for_workers(2)
        pids = list(client.run(os.getpid).values())
        nannies = [nanny.pid for nanny in local.workers.values()]
        with Cluster.from_dask(client) as cluster:
            found: list[int] = []
            pipe = Pipe("dask")
            pipe.add(
                Processor(
                    "far",
                    func=workers_pipe.takes_a_while,
                    workers=2,
                    tag="fast",
                    ordered=True,
                )
            ).add(Processor("own", func=lambda value: value + 1, host="dask-0"))
            with pipe.run(range(COUNT), found, engine=cluster) as run:
                while len(found) < 50:
                    time.sleep(0.01)
                for pid in {*pids, *nannies}:  # dask is gone, agents are not
                    os.kill(pid, signal.SIGKILL)
                run.wait(120)
                where = sorted(set(run.where.values()))
                events = [event.what for event in run.history]
            agents = sorted(cluster._own_lab.pids.values())
            result = {
                "agents": agents,
                "exact": found == [k + 1 for k in range(COUNT)],
                "count": len(found), "where": where,
                "restarts": events.count("restarted"),
                "hosts": [[h.name, list(h.tags)] for h in cluster.hosts()],
            }  # fmt: skip
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
