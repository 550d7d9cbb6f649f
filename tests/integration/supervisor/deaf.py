"""A process that does not stop when asked to, has a child of its own, and never becomes ready."""

import os
import signal
import subprocess
import sys
import time

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(f"deaf with {child.pid}", flush=True)
    while os.getppid() != 1:
        time.sleep(0.1)
