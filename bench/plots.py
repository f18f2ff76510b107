"""Draws the lines of a run: plots.py LINES FOLDER writes FOLDER/<name>.svg.

A line is `kind key=value key=value ...`; what is not in the lines is not drawn.
"""

import pathlib
import sys

import matplotlib

matplotlib.use("svg")
# The same lines give the same files.
matplotlib.rcParams["svg.hashsalt"] = "batcher"
matplotlib.rcParams.update({"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "figure.figsize": (7.5, 4.2)})

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter  # noqa: E402

PEERS = {
    "batcher": ("batcher", "#d62728", "o"),
    "auto": ("batcher, auto", "#e377c2", "*"),
    "genserver": ("GenServer batcher", "#1f77b4", "s"),
    "gbs": ("gen_batch_server", "#2ca02c", "^"),
    "floor": ("floor", "#7f7f7f", "x"),
    "direct": ("direct", "#9467bd", "d"),
}
# The columns of the open loop: the batcher once for each window.
COLUMNS = {
    "auto": PEERS["auto"],
    "direct": PEERS["direct"],
    "batcher_0ms": ("batcher, no window", "#ff9896", "v"),
    "batcher_1ms": ("batcher, window of 1 ms", "#d62728", "o"),
    "batcher_5ms": ("batcher, window of 5 ms", "#8c564b", "s"),
}
LOGS = {"log_200us": "commits of 0.2 ms", "log_1ms": "commits of 1 ms", "log_5ms": "commits of 5 ms"}
BACKENDS = {"null": "no-op backend", "slow": "commit of 1 ms", "ra": "Ra on disk"}


def read(path):
    lines = []
    for text in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        kind, *parts = text.split(" ")
        lines.append((kind, dict(part.split("=", 1) for part in parts)))
    return lines


def pick(lines, kind, **params):
    return [values for k, values in lines if k == kind and all(values.get(p) == v for p, v in params.items())]


def plain(axis):
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", " ")))


def save(figure, folder, name):
    figure.tight_layout()
    figure.savefig(pathlib.Path(folder) / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def over_callers(lines, folder, name, title, label, peers, **params):
    rows = sorted(pick(lines, **params), key=lambda row: int(row["callers"]))
    if not rows:
        return
    figure, axes = plt.subplots()
    for peer in peers:
        points = [(int(row["callers"]), float(row[peer])) for row in rows if peer in row]
        if points:
            text, color, marker = PEERS[peer]
            axes.plot(*zip(*points), label=text, color=color, marker=marker)
    axes.set(xscale="log", yscale="log", xlabel="callers", ylabel=label, title=title)
    ticks = [int(row["callers"]) for row in rows]
    axes.set_xticks(ticks)
    axes.minorticks_off()
    plain(axes.xaxis)
    plain(axes.yaxis)
    axes.legend()
    save(figure, folder, name)


def throughput(lines, folder):
    for backend, text in BACKENDS.items():
        # A direct commit to a backend that does nothing is a function call.
        peers = [peer for peer in PEERS if (backend, peer) != ("null", "direct")]
        name, title = f"throughput-{backend}", f"Writes per second, {text}"
        over_callers(lines, folder, name, title, "writes/s", peers, kind="throughput", backend=backend)
    peers = ["batcher", "genserver", "gbs", "floor"]
    title = "Processor time of the VM per write, no-op backend"
    params = {"kind": "cpu", "of": "throughput", "backend": "null"}
    over_callers(lines, folder, "cpu-null", title, "ns per write", peers, **params)


def latency(lines, folder):
    for callers in ["1", "256", "10000"]:
        rows = pick(lines, "distribution", backend="null", callers=callers)
        if not rows:
            continue
        figure, axes = plt.subplots()
        for row in rows:
            text, color, _ = PEERS[row["peer"]]
            points = [tuple(map(float, point.split(":"))) for point in row["points"].split(",")]
            # Each nine takes as much room as the one before.
            shares = [100 / (100 - percent) for percent, _ in points]
            axes.plot(shares, [us for _, us in points], label=text, color=color)
        ticks = [2, 10, 100, 1_000, 10_000]
        axes.set(xscale="log", yscale="log", xlabel="share of the calls", ylabel="latency in us")
        axes.set_title(f"Latency, closed loop, callers: {callers}, no-op backend")
        axes.set_xticks(ticks, ["50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
        axes.minorticks_off()
        plain(axes.yaxis)
        axes.legend()
        save(figure, folder, f"latency-{callers}")


def open_loop(lines, folder):
    for backend, text in {"ra": BACKENDS["ra"], **LOGS}.items():
        rows = sorted(pick(lines, "open", backend=backend), key=lambda row: int(row["load"]))
        if not rows:
            continue
        figure, panels = plt.subplots(1, 3, figsize=(13, 4.6), sharey=True)
        for axes, (key, share) in zip(panels, [("p50_us", "50 %"), ("p99_us", "99 %"), ("p999_us", "99.9 %")]):
            for peer, (name, color, marker) in COLUMNS.items():
                points = [(int(row["load"]), float(row[key])) for row in rows if row["peer"] == peer and key in row]
                if points:
                    axes.plot(*zip(*points), label=name, color=color, marker=marker)
            axes.set(yscale="log", xlabel="rate in percent of what saturates direct", title=f"{share} of the writes")
            axes.minorticks_off()
            plain(axes.yaxis)
        panels[0].set_ylabel("latency in us")
        panels[0].legend()
        figure.suptitle(f"Latency in an open loop, Poisson arrivals, {text}")
        save(figure, folder, f"open-{backend}")


def mix(lines, folder):
    rows = pick(lines, "mix", figure="writes")
    if not rows:
        return
    cells = sorted({(int(row["shards"]), int(row["namespaces"])) for row in rows})
    figure, axes = plt.subplots()
    for shards, namespaces in cells:
        own = [row for row in rows if (row["shards"], row["namespaces"]) == (str(shards), str(namespaces))]
        points = sorted((int(row["callers"]), float(row["ratio_direct"])) for row in own if "ratio_direct" in row)
        if points:
            axes.plot(*zip(*points), marker="o", label=f"shards: {shards}, namespaces in each: {namespaces}")
    axes.axhline(1, color=PEERS["direct"][1], label="direct")
    axes.set(xscale="log", yscale="log", xlabel="callers", ylabel="writes/s against direct commits")
    axes.set_title("auto against direct commits, Ra on disk")
    axes.set_xticks(sorted({int(row["callers"]) for row in rows}))
    axes.set_yticks([0.5, 1, 2, 3, 5, 10])
    axes.minorticks_off()
    plain(axes.xaxis)
    plain(axes.yaxis)
    axes.legend()
    save(figure, folder, "mix")


def depth(lines, folder):
    if not pick(lines, "depth"):
        return
    figure, axes = plt.subplots()
    for peer, key, text, color in [
        ("batcher", "ns_per_write", "queue, commit, answer", PEERS["batcher"][1]),
        ("batcher", "queue_ns", "queue alone", "#ff9896"),
        ("floor", "ns_per_write", *PEERS["floor"][:2]),
    ]:
        rows = sorted(pick(lines, "depth", peer=peer), key=lambda row: int(row["queued"]))
        figures = [float(row[key]) for row in rows]
        axes.plot([int(row["queued"]) for row in rows], figures, marker="o", label=text, color=color)
    axes.set(xscale="log", xlabel="writes queued", ylabel="ns per write", title="Time of a write over depth of the queue")
    axes.set_ylim(bottom=0)
    plain(axes.xaxis)
    axes.legend()
    save(figure, folder, "depth")


def main():
    lines_path, folder = sys.argv[1:]
    lines = read(lines_path)
    throughput(lines, folder)
    latency(lines, folder)
    open_loop(lines, folder)
    mix(lines, folder)
    depth(lines, folder)


if __name__ == "__main__":
    main()
