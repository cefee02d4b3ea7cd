"""What a hostile job does to use up a machine. Each is bounded, should nothing else bound it.

They are calls; the first line that each prints is the mark of its worker.
"""

import os
import threading
import time
from pathlib import Path

MIB = 1 << 20
MEMORY_MOST = 600 * MIB
DISK_MOST = 300 * MIB
FILES_MOST = 150_000
FORKS_DEEP = 9  # 512 processes
THREADS_MOST = 600
BIDE_S = 30.0  # how long it holds on to what it got


def say_mark() -> None:
    """Tell by what the processes of the job can be found."""
    print(os.environ["ALPYNE_JOB_MARK"], flush=True)


def fork_bomb() -> int:
    """Fork, in all of the forks, whatever the kernel says; return the depth that it reached."""
    say_mark()
    depth = 0
    while depth < FORKS_DEEP:
        try:
            os.fork()
        except OSError:
            break
        depth += 1
    time.sleep(BIDE_S)
    return depth


def thread_bomb() -> int:
    """Start threads that do nothing; return how many."""
    say_mark()
    started = 0
    while started < THREADS_MOST:
        try:
            threading.Thread(target=time.sleep, args=(BIDE_S,), daemon=True).start()
        except RuntimeError:
            break
        started += 1
    time.sleep(BIDE_S)
    return started


def deaf_forks() -> int:
    """Fork processes that ignore signals, until refused; return how many there were."""
    import signal

    say_mark()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    forked = 0
    while forked < 1 << FORKS_DEEP:
        if os.fork() == 0:
            os.setsid()
            time.sleep(BIDE_S)
            os._exit(0)
        forked += 1
    return forked


def memory_hog() -> int:
    """Touch memory, and hold it; return how many bytes."""
    say_mark()
    held: list[bytearray] = []
    while len(held) * 8 * MIB < MEMORY_MOST:
        held.append(bytearray(os.urandom(4096) * (8 * MIB // 4096)))
    time.sleep(BIDE_S)
    return len(held) * 8 * MIB


def memory_hogs() -> int:
    """Touch memory in many processes, of which none is large; return how many there are."""
    say_mark()
    count = MEMORY_MOST // (16 * MIB)
    for _ in range(count):
        if os.fork() == 0:
            hog = bytearray(os.urandom(4096) * (16 * MIB // 4096))
            time.sleep(BIDE_S)
            os._exit(len(hog) & 1)
    time.sleep(BIDE_S)
    return count


def shared_memory_hog() -> int:
    """Touch memory that belongs to no process, and leave it; return how many bytes."""
    import mmap

    say_mark()
    hog = mmap.mmap(-1, MEMORY_MOST)
    for at in range(0, MEMORY_MOST, 4096):
        hog[at] = 1
    time.sleep(BIDE_S)
    return len(hog)


def disk_filler() -> int:
    """Write one file as large as it gets; raises what ends that."""
    say_mark()
    return _fill("filler")


def stubborn_disk_filler() -> int:
    """Write all files that can be written, in all folders, and swallow every error."""
    say_mark()
    written = 0
    for number in range(20):
        for folder in (".", "/tmp", "/var/tmp", "/dev/shm", "/run", os.environ.get("HOME", ".")):
            name = os.path.join(folder, f"filler-{os.getpid()}-{number}")
            try:
                written += _fill(name)
            except OSError:
                written += os.path.getsize(name) if os.path.exists(name) else 0
            if written >= DISK_MOST:
                return written
    return written


def _fill(name: str) -> int:
    data = os.urandom(MIB)
    with open(name, "wb", buffering=0) as file:
        while file.tell() < DISK_MOST:
            if file.write(data) < len(data):
                file.write(data)  # raises the reason
        return file.tell()


def inode_filler() -> int:
    """Make empty files until that is refused; raises what ends that."""
    say_mark()
    os.mkdir("inodes")
    for number in range(FILES_MOST):
        Path(f"inodes/{number}").touch()
    return FILES_MOST


def descriptor_hog() -> int:
    """Open descriptors until that is refused; raises what ends that, and tells how many before."""
    import resource

    say_mark()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened = 0
    try:
        while opened <= 1 << 20:
            os.open("/dev/null", os.O_RDONLY)
            opened += 1
    finally:
        os.write(1, b"%d\n" % opened)
    return opened


def endless_output() -> None:
    """Write to both streams, for ever."""
    say_mark()
    while True:
        os.write(1, b"x" * 65_536)
        os.write(2, b"y" * 65_536)


def endless_result() -> bytes:
    """Return more than anybody wants."""
    say_mark()
    return b"r" * (64 * MIB)


def busy(seconds: float, count: int) -> float:
    """Burn processor time in ``count`` processes; return for how many seconds."""
    say_mark()
    begun = time.monotonic()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            while time.monotonic() < begun + seconds:
                pass
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    return time.monotonic() - begun


def leave_deaf_orphans(token: str) -> int:
    """Return and leave processes that double-forked, ignore signals and forgot the mark."""
    import signal

    say_mark()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for _ in range(3):
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
            os.close(reader)
            os.set_inheritable(writer, True)
            line = ["sh", "-c", f"echo up >&{writer}; exec {writer}>&-; sleep {token}; :"]
            os.execve("/bin/sh", line, {"PATH": os.environ["PATH"]})
        os.close(writer)
        os.wait()
        if os.read(reader, 10) != b"up\n":
            raise RuntimeError("an orphan did not begin")
        os.close(reader)
    return 3


def leave_deep_folders() -> int:
    """Return and leave folders so deep, and so closed, that they are hard to remove."""
    say_mark()
    home = os.getcwd()
    for _ in range(1500):
        os.mkdir("deep-folder")
        os.chdir("deep-folder")
    Path("file").write_text("left")
    os.chmod(".", 0)
    os.chdir(home)
    os.mkdir("closed")
    Path("closed/file").write_text("left")
    os.chmod("closed", 0)
    return 1500


def flood_the_channel() -> None:
    """Write what is no frame to every socket that it has."""
    say_mark()
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), b"\xff" * 65_536)
        except OSError:
            continue
    time.sleep(BIDE_S)


def kill_the_supervisor() -> int:
    """Send the worker's supervisor every signal that ends or stops a process."""
    import signal

    say_mark()
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGSTOP, signal.SIGKILL)
    for number in numbers:
        try:
            os.kill(os.getppid(), number)
        except OSError:
            continue
    time.sleep(0.5)  # what it has done shows
    return os.getppid()
