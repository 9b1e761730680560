"""Measures engines side by side: `run --rm … true`, `exec … true`, pull, memory.

Every engine gets a data root of its own under one scratch directory, all take the same images from
the same loopback registry, and rounds are interleaved, so that a busy moment of the machine
hits all of them alike. Medians are printed, and each engine's ratio to ctl.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}


def call(args, **more):
    """Runs a command; its output goes into the error where it fails."""
    env = {**ENV, **more.pop("env", {})}
    done = subprocess.run([str(a) for a in args], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, **more)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, args))}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def timed(args, **more):
    start = time.perf_counter()
    call(args, **more)
    return time.perf_counter() - start


def until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"never happened: {what}")
        time.sleep(0.02)


def listens(path):
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(str(path)) == 0


def children(pid):
    found = {pid}
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):
            rest = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(rest[1])
    grown = True
    while grown:
        more = {p for p, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def pss_mib(pids):
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in open(f"/proc/{pid}/smaps_rollup"):
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


def named(*names):
    """Processes by the name of their program (the shims of the engines)."""
    found = set()
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().strip() in names:
                found.add(int(comm.parent.name))
    return found


class Engine:
    name = ""
    helpers = ()
    daemon = None

    def __init__(self, root, options):
        self.root = root / self.name
        self.root.mkdir()
        self.bin = options.bin

    def start(self):
        pass

    def cli(self, *args):
        raise NotImplementedError

    def spawn(self, args, **more):
        log = open(self.root / "log", "wb")
        env = {**ENV, **more.pop("env", {})}
        self.daemon = subprocess.Popen([str(a) for a in args], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def pull(self, image):
        return timed(self.cli("pull", image), timeout=600)

    def forget(self, image):
        call(self.cli("rmi", "-f", image))

    def run(self, image):
        return timed(self.cli("run", "--rm", "--network", "none", image, "true"))

    def detached(self, image, name):
        call(self.cli("run", "-d", "--network", "none", "--name", name, image, "sleep", "100000"))

    def exec(self, name):
        return timed(self.cli("exec", name, "true"))

    def remove(self, name):
        call(self.cli("rm", "-f", name))

    def pids(self):
        """All processes of the engine, without those of the containers."""
        return (children(self.daemon.pid) if self.daemon else set()) | named(*self.helpers)

    def stop(self):
        if self.daemon:
            self.daemon.send_signal(signal.SIGTERM)
            try:
                self.daemon.wait(30)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                self.daemon.wait()


class Ctl(Engine):
    name = "ctl"
    helpers = ("ctld-shim",)

    def start(self):
        sock = self.root / "s"
        self.spawn([self.bin / "ctld", "--data-root", self.root / "data", "--run-root", self.root / "run", "-H", f"unix://{sock}"])
        until("ctld listens", lambda: listens(sock))

    def cli(self, *args):
        return [self.bin / "ctl", "-H", f"unix://{self.root}/s", *args]

    def pids(self):
        return {self.daemon.pid} | named(*self.helpers)


class Docker(Engine):
    name = "docker"
    helpers = ("containerd-shim", "containerd-shim-runc-v2")

    def start(self):
        sock = self.root / "s"
        (self.root / "daemon.json").write_text("{}")
        self.spawn(
            ["dockerd", "--data-root", self.root / "data", "--exec-root", self.root / "exec", "--pidfile", self.root / "pid",
             "-H", f"unix://{sock}", "--bridge", "none", "--iptables=false", "--ip6tables=false", "--storage-driver", "overlay2",
             "--config-file", self.root / "daemon.json", "--exec-opt", "native.cgroupdriver=cgroupfs"])
        until("dockerd listens", lambda: listens(sock))
        until("dockerd answers", lambda: subprocess.run(self.cli("version"), env=ENV, capture_output=True).returncode == 0)

    def cli(self, *args):
        return ["docker", "-H", f"unix://{self.root}/s", *args]


class Podman(Engine):
    name = "podman"
    helpers = ("conmon",)

    def start(self):
        (self.root / "containers.conf").write_text(
            "[containers]\ndefault_ulimits = []\n[engine]\nruntime = \"crun\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n")
        (self.root / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        os.makedirs("/etc/containers", exist_ok=True)
        if not os.path.exists("/etc/containers/policy.json"):
            shutil.copy(self.root / "policy.json", "/etc/containers/policy.json")

    def cli(self, *args):
        args = list(args)
        if args[0] == "pull":
            args.insert(1, "--tls-verify=false")
        # crun refuses the hybrid cgroup mount as it stands: hide the empty v2 tree from it.
        inner = ["podman", "--root", self.root / "data", "--runroot", self.root / "run", *args]
        hide = 'if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi; exec "$@"'
        return ["env", f"CONTAINERS_CONF={self.root}/containers.conf", "unshare", "-m", "sh", "-c", hide, "sh", *inner]

    def pids(self):
        return named(*self.helpers)


class Crun(Engine):
    """A prepared bundle; no images, no daemon: the bare runtime."""

    name = "crun"

    def start(self):
        root = self.root / "bundle" / "rootfs"
        for directory in ("bin", "proc", "dev", "sys", "etc"):
            (root / directory).mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin" / "busybox")
        os.link(root / "bin" / "busybox", root / "bin" / "true")
        os.link(root / "bin" / "busybox", root / "bin" / "sleep")
        call(["crun", "spec"], cwd=root.parent)
        config = root.parent / "config.json"
        spec = json.loads(config.read_text())
        spec["process"]["terminal"] = False
        spec["process"]["args"] = ["/bin/true"]
        spec["process"].pop("rlimits", None)
        config.write_text(json.dumps(spec))

    def wrap(self, *args):
        hide = 'if mountpoint -q /sys/fs/cgroup/unified; then umount -l /sys/fs/cgroup/unified; fi; exec "$@"'
        return ["unshare", "-m", "sh", "-c", hide, "sh", "crun", "--root", self.root / "run", *args]

    def run(self, image):
        # The wrapper is not crun's: its own time is taken off.
        whole = timed(self.wrap("run", "--bundle", self.root / "bundle", f"b{time.monotonic_ns()}"))
        bare = timed(["unshare", "-m", "sh", "-c", "true"])
        return whole - bare


ENGINES = {engine.name: engine for engine in (Ctl, Docker, Podman, Crun)}


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def registry(root, cache):
    port = free_port()
    config = root / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {cache}/registry}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    process = subprocess.Popen(["docker-registry", "serve", config], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def up():
        with contextlib.closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    until("the registry listens", up)
    return process, f"127.0.0.1:{port}"


def interleaved(engines, rounds, measure, what):
    """Rounds over all engines in turn; a warm-up round is thrown away."""
    seconds = {engine.name: [] for engine in engines}
    for number in range(rounds + 1):
        for engine in engines:
            taken = measure(engine)
            if number:
                seconds[engine.name].append(taken)
        print(f"  {what}: round {number} of {rounds}", end="\r", file=sys.stderr, flush=True)
    print(" " * 60, end="\r", file=sys.stderr)
    return {name: statistics.median(values) for name, values in seconds.items() if values}


def table(title, values, unit):
    print(f"\n{title}")
    base = values.get("ctl")
    for name, value in values.items():
        ratio = f"{value / base:6.1f}x" if base and name != "ctl" else ""
        print(f"  {name:8} {value:10.2f} {unit} {ratio}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=pathlib.Path, required=True)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pull-rounds", type=int, default=3)
    parser.add_argument("--containers", type=int, default=10)
    parser.add_argument("--engines", default=",".join(ENGINES))
    parser.add_argument("--directory", type=pathlib.Path, default="/var/lib")
    parser.add_argument("--only", default="run,exec,pull,idle,memory")
    options = parser.parse_args()
    wanted = options.only.split(",")
    # Where data roots usually are; /tmp may be another kind of file system.
    root = pathlib.Path(tempfile.mkdtemp(prefix="ctl-bench-", dir=options.directory))
    server, host = registry(root, options.cache)
    engines = [ENGINES[name](root, options) for name in options.engines.split(",")]
    started = []
    try:
        for engine in engines:
            engine.start()
            started.append(engine)
        full = [engine for engine in engines if engine.name != "crun"]
        small, big = f"{host}/busybox:latest", f"{host}/big:latest"
        print(f"load average at the start: {os.getloadavg()[0]:.1f}")
        if "idle" in wanted:
            time.sleep(12)
            table("idle: PSS of the daemon", {e.name: pss_mib(e.pids()) for e in full if e.daemon}, "MiB")
        for engine in full:
            engine.pull(small)
        if "run" in wanted:
            values = interleaved(engines, options.rounds, lambda e: e.run(small) * 1000, "run")
            table("run --rm busybox true (crun: a prepared bundle)", values, "ms")
        if "exec" in wanted:
            for engine in full:
                engine.detached(small, "bench-exec")
            values = interleaved(full, options.rounds, lambda e: e.exec("bench-exec") * 1000, "exec")
            for engine in full:
                engine.remove("bench-exec")
            table("exec true", values, "ms")
        if "memory" in wanted:
            values = {}
            for engine in full:
                before = pss_mib(engine.pids())
                for number in range(options.containers):
                    engine.detached(small, f"bench-{number}")
                time.sleep(1)
                values[engine.name] = (pss_mib(engine.pids()) - before) / options.containers
                for number in range(options.containers):
                    engine.remove(f"bench-{number}")
            table("memory for each running container", values, "MiB")
        if "pull" in wanted:
            def pull(engine):
                call(["sync"])
                taken = engine.pull(big)
                engine.forget(big)
                return taken

            values = interleaved(full, options.pull_rounds, pull, "pull")
            table("pull of the image of 12 layers, 1 GB unpacked", values, "s")
    finally:
        for engine in started:
            engine.stop()
        server.terminate()
        server.wait()
        mounts = [line.split()[1] for line in open("/proc/mounts") if line.split()[1].startswith(str(root))]
        for mount in sorted(mounts, reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(root, ignore_errors=True)


main()
