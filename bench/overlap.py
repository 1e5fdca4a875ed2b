"""Eight videos over one open bundle, each while others are decoded and written, beside one after the other.

`python bench/overlap.py [BUNDLE]`; the bundle is tiny-wan's, built if need be, unless one is given. In both ways the
denoiser has one core, and all other stages have another one: what is gained is what they do at the same time, and not
that there is more to work with. The number of steps is chosen so that what is behind the denoiser takes somewhat less
than half of all. Rounds alternate; the first warms up. Then ten tenants ask for two videos each, and once more while
the tenth asks for many. Writes into bench/results, and takes five minutes where nothing else runs; where something
does, it tells nothing: two threads have no more of a busy machine than one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import wanc
from wanc.bench.contest import machine
from wanc.bench.report import WHAT
from wanc.runtime.cores import all_cores
from wanc.runtime.crew import Quota
from wanc.runtime.events import POOL_TAKEN, recording
from wanc.runtime.made_video import MadeVideo
from wanc.runtime.service import DENOISE, STAGES, Service
from wanc.runtime.ticket import Ticket
from wanc.runtime.whole_file import require_writable, write_whole

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "bench" / "results" / "overlap-tiny-wan.json"
COUNT, ROUNDS = 8, 7
SHAPE = {"shape": "96p-wide", "frames": 17}
SHARE = 0.48
"""Of the time of one video, what is behind the denoiser: decoding, and writing."""
PROMPTS = [f"A red circle moves {way}, {number}." for number in range(COUNT // 2) for way in ("left", "up")]
TENANTS, GREEDY, TENANT_ROUNDS = 10, 30, 3
"""Who asks at the same time, and the videos that the last of them asks for where it is greedy."""
WAITING = ("A green square moves right.", "A blue square moves down.")


class Bench:
    """An open service, and a folder that its videos go into."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self.folder, self.steps = service, folder, 1

    def seconds(self, prompts: list[str] | tuple[str, ...], *, together: bool) -> float:
        """How long it takes until all of these are in files, all asked for at once, or each when the last is there."""
        started = time.perf_counter()
        tickets = []
        for number, prompt in enumerate(prompts):
            tickets.append(self.service.write(self.folder / f"{number}.mp4", prompt, steps=self.steps, **SHAPE))
            if not together:
                tickets[-1].result()
        for ticket in tickets:
            ticket.result()
        self.service.wait()
        return time.perf_counter() - started

    def others(self, of_the_last: int) -> float:
        """Mean seconds until nine tenants have each of their two videos, beside a tenth that has asked for so many."""
        started, seconds = time.perf_counter(), list[float]()

        def ask(tenant: int, number: int) -> Ticket[MadeVideo]:
            path = self.folder / f"{tenant}-{number}.mp4"
            return self.service.write(path, PROMPTS[0], tenant=str(tenant), steps=self.steps, **SHAPE)

        greedy = [ask(TENANTS, number) for number in range(of_the_last)]
        others = [ask(tenant, number) for number in range(2) for tenant in range(1, TENANTS)]
        for ticket in others:
            ticket.add_done_callback(lambda _: seconds.append(time.perf_counter() - started))
        for ticket in others:
            ticket.result()
        for ticket in greedy:
            ticket.cancel()
        self.service.wait()
        return sum(seconds) / len(seconds)

    def phases(self) -> Mapping[str, float]:
        """Of one video by itself: seconds in each phase, and of what comes before and behind them."""
        started = time.perf_counter()
        made = self.service.write(self.folder / "one.mp4", PROMPTS[0], steps=self.steps, **SHAPE).result()
        return {**made.seconds, "all": time.perf_counter() - started}

    def taken_by_a_warm_request(self) -> int:
        """Bytes that the pool of arrays takes from the system for one more video of the same size."""
        with recording() as recorder:
            self.phases()
        return round(recorder.values.get((POOL_TAKEN, ()), 0))

    def share(self) -> float:
        """What is neither text nor the denoiser, of one video, which does it in turn but for what is written."""
        found = [self.phases() for _ in range(5)]
        return median((entry["all"] - entry["text"] - entry["denoise"]) / entry["all"] for entry in found)


def main(bundle: Path) -> None:
    """Measure both ways in turn, and write what was measured."""
    require_writable(RESULT, WHAT)
    one, other = sorted(all_cores())[:2]
    quotas = {stage: Quota(cores=(one if stage == DENOISE else other,)) for stage in STAGES}
    with TemporaryDirectory() as name, wanc.open_service(bundle, quotas=quotas) as service:
        bench = Bench(service, Path(name))
        bench.seconds(PROMPTS, together=True)
        while bench.share() > SHARE:
            bench.steps += 1
        phases = bench.phases()
        rounds: list[dict[str, float]] = []
        for number in range(ROUNDS + 1):
            entry = {
                "in_turn": bench.seconds(PROMPTS, together=False),
                "together": bench.seconds(PROMPTS, together=True),
                "behind_another_in_turn": bench.seconds(WAITING, together=False),
                "behind_another": bench.seconds(WAITING, together=True),
                "share_behind_the_denoiser": bench.share(),
            }
            entry["throughput"] = entry["in_turn"] / entry["together"]
            entry["latency"] = entry["behind_another"] / entry["behind_another_in_turn"]
            print({name: round(value, 3) for name, value in entry.items()}, file=sys.stderr)
            if number:
                rounds.append(entry)
        tenants = [{"fair": bench.others(2), "beside_greedy": bench.others(GREEDY)} for _ in range(TENANT_ROUNDS)]
        pool = bench.taken_by_a_warm_request()
    report = {
        "bundle": bundle.name,
        "videos": COUNT,
        "steps": bench.steps,
        **SHAPE,
        "cores": {stage: list(quota.cores or ()) for stage, quota in quotas.items()},
        "machine": machine(("onnxruntime", "numpy", "av", "tokenizers")),
        "seconds_of_one": phases,
        "rounds": rounds,
        **{name: median(entry[name] for entry in rounds) for name in rounds[0]},
        "tenants": tenants,
        "others_beside_greedy": median(entry["beside_greedy"] / entry["fair"] for entry in tenants),
        "bytes_taken_by_a_warm_request": pool,
        "best_throughput": min(e["in_turn"] for e in rounds) / min(e["together"] for e in rounds),
        "spread": {name: [min(e[name] for e in rounds), max(e[name] for e in rounds)] for name in rounds[0]},
    }
    write_whole(RESULT, f"{json.dumps(report, indent=1)}\n".encode(), WHAT)
    print(
        f"{report['throughput']:.2f} times the throughput, {1 - report['latency']:.0%} less latency behind another; "
        f"{report['share_behind_the_denoiser']:.0%} of a video is behind the denoiser, at {bench.steps} steps; "
        f"{report['others_beside_greedy']:.2f} times the latency beside a greedy tenant; "
        f"a warm request takes {pool} bytes"
    )


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:2]]
    main(given[0] if given else wanc.build(ROOT / "recipes" / "tiny-wan.yaml", output=ROOT / "artifacts").bundle)
