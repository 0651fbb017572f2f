#!/usr/bin/env python3
"""Three nodes on loopback with many idle partitions: what they cost, and how fast they fail over.

    tests/faults/idle.py target/release/duramen --partitions 1000 --dir /tmp/idle --port 9700

Prints a table a node: resident memory, CPU, threads and open files, of the empty cluster and of the
full one; how long it took to create the topic, and until each partition had a leader again after one node was
killed.
"""
import argparse, json, os, shutil, signal, subprocess, sys, time

CLOCK_HZ = os.sysconf("SC_CLK_TCK")


class Node:
    def __init__(self, args, number, join):
        base = args.port
        self.number, self.rpc = number, f"127.0.0.1:{base + number}"
        log = open(f"{args.dir}/n{number}.log", "ab")
        command = [args.duramen, "serve", "--data-dir", f"{args.dir}/n{number}", "--node-name", f"n{number}",
                   "--rpc-addr", self.rpc, "--http-addr", f"127.0.0.1:{base + 80 + number}",
                   "--gossip-addr", f"127.0.0.1:{base + 90 + number}"]
        if join:
            command += ["--join", f"127.0.0.1:{base + 91}"]
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def read(self):
        pid = self.process.pid
        status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
        stat = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
        kib = lambda key: int(status[key].split()[0])
        return {"rss_kib": kib("VmRSS"), "anon_kib": kib("RssAnon"), "file_kib": kib("RssFile"),
                "threads": int(status["Threads"]), "fds": len(os.listdir(f"/proc/{pid}/fd")),
                "cpu_s": (int(stat[11]) + int(stat[12])) / CLOCK_HZ}


def ask(args, *words, addr=None, check=True):
    command = [args.duramen, *words, "--json", "--addr", addr or f"127.0.0.1:{args.port + 1}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done


def until(what, seconds, condition, every=0.1):
    begun = time.monotonic()
    while True:
        if condition():
            return time.monotonic() - begun
        if time.monotonic() - begun > seconds:
            sys.exit(f"not within {seconds} s: {what}")
        time.sleep(every)


def partitions(args, addr, topic):
    done = ask(args, "topic", "describe", topic, addr=addr, check=False)
    if done.returncode != 0:
        return []
    return json.loads(done.stdout)["partitions"]


def measure(name, nodes, seconds):
    first = [node.read() for node in nodes]
    time.sleep(seconds)
    rows = []
    for node, before in zip(nodes, first):
        now = node.read()
        now["cpu_percent"] = 100 * (now.pop("cpu_s") - before["cpu_s"]) / seconds
        rows.append(now)
        print(f"{name:6} node {node.number}: rss {now['rss_kib'] / 1024:7.1f} MiB (anonymous {now['anon_kib'] / 1024:7.1f}, "
              f"file {now['file_kib'] / 1024:5.1f}), cpu {now['cpu_percent']:5.2f} %, threads {now['threads']}, "
              f"open files {now['fds']}", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("duramen")
    parser.add_argument("--partitions", type=int, default=1000)
    parser.add_argument("--dir", default="/tmp/idle")
    parser.add_argument("--port", type=int, default=9700)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--settle", type=float, default=20)
    parser.add_argument("--keep", action="store_true", help="leave the nodes running")
    args = parser.parse_args()
    shutil.rmtree(args.dir, ignore_errors=True)
    os.makedirs(args.dir)
    nodes = [Node(args, 1, False)]
    try:
        until("the first node answers", 30,
              lambda: ask(args, "cluster", "status", check=False).returncode == 0)
        nodes += [Node(args, 2, True), Node(args, 3, True)]
        until("three nodes", 60, lambda: len(
            json.loads(ask(args, "cluster", "status", check=False).stdout or "{}").get("nodes", [])) == 3)
        time.sleep(args.settle)
        measure("empty", nodes, args.seconds)

        begun = time.monotonic()
        ask(args, "topic", "create", "many", "--partitions", str(args.partitions))

        def is_whole():
            rows = partitions(args, nodes[0].rpc, "many")
            whole = sum(1 for p in rows if has_leader(p) and voters(p) == 3)
            print(f"  {time.monotonic() - begun:6.1f} s: {whole} of {len(rows)} whole", flush=True)
            return whole == args.partitions
        until("all partitions whole", 600, is_whole, every=1)
        print(f"created: {time.monotonic() - begun:.1f} s until each had a leader and 3 voters", flush=True)
        time.sleep(args.settle)
        measure("full", nodes, args.seconds)

        def led_by_others(addr, dead):
            rows = partitions(args, addr, "many")
            led = [p for p in rows if has_leader(p) and p["leader"] != dead]
            return len(led) == args.partitions
        leads = {}
        for p in partitions(args, nodes[0].rpc, "many"):
            leads[p.get("leader")] = leads.get(p.get("leader"), 0) + 1
        print(f"leaders: {leads}")
        victim = nodes[2]
        members = json.loads(ask(args, "cluster", "status").stdout)["nodes"]
        number = next(node["id"] for node in members if node["name"] == f"n{victim.number}")
        victim.process.send_signal(signal.SIGKILL)
        victim.process.wait()
        took = until("all fail over", 120, lambda: led_by_others(nodes[0].rpc, number), every=0.1)
        print(f"failed over: {took:.2f} s until each partition had a living leader", flush=True)
        time.sleep(args.settle)
        measure("two", nodes[:2], args.seconds)
        if args.keep:
            print("pids:", [node.process.pid for node in nodes])
            return
        for node in nodes[:2]:
            node.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        for node in nodes[:2]:
            node.process.wait(120)
        print(f"stopped: {time.monotonic() - begun:.2f} s")
    finally:
        if not args.keep:
            for node in nodes:
                if node.process.poll() is None:
                    node.process.kill()


def has_leader(partition):
    return partition.get("leader") not in (None, 0, "")


def voters(partition):
    return sum(1 for replica in partition["replicas"] if replica["state"] == "member")


if __name__ == "__main__":
    main()
