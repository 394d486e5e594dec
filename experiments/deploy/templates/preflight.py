"""Says in one line why this device can't take part, before Flower would say it in many or not.

Waits for the server; ends with status 1 where waiting does not help. Plain Python: no packages.
"""

import shutil
import ssl
import sys
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPSConnection
from importlib import metadata
from pathlib import Path
from typing import NoReturn

HERE = Path(__file__).parent
AHEAD, BEHIND = 5, 300  # seconds by which Flower lets a device's clock be wrong
NEEDED = 200_000_000  # bytes on the disk, for the code and the messages of a run


def say(text: str) -> None:
    """Write a line where Flower writes its own."""
    sys.stderr.write(f"fednf device: {text}\n")


def stop(reason: str) -> NoReturn:
    """End with one line."""
    say(reason)
    sys.exit(1)


def check_here() -> None:
    """Look at what this device has."""
    data = HERE / "data"
    if not (data.is_dir() and any(data.iterdir())):
        stop(f"{data} holds nothing to train on; @fill")
    if (free := shutil.disk_usage(HERE).free) < NEEDED:
        stop(f"{free / 1e6:.0f} MB are free on the disk, {NEEDED / 1e6:.0f} MB are needed")
    for line in (HERE / "requirements.txt").read_text().split():
        name, _, version = line.partition("==")
        try:
            found = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            stop(f"{name} is not installed; pip install -r {HERE / 'requirements.txt'}")
        if found != version:
            say(f"{name} is {found} here and {version} at the server")


def asked(server: str) -> float:
    """Return the server's time in seconds, once it answers."""
    trust = ssl.create_default_context(cafile=HERE / "ca.pem")
    waiting = False
    while True:
        connection = HTTPSConnection(server, context=trust, timeout=10)
        try:
            connection.request("HEAD", "/")
            return parsedate_to_datetime(connection.getresponse().headers["Date"]).timestamp()
        except ssl.SSLCertVerificationError as error:
            stop(f"{server} is not the server that ca.pem is of: {error.verify_message}")
        except ssl.SSLError as error:
            stop(f"{server} does not speak TLS: {error.reason}")
        except OSError as error:
            if not waiting:
                say(f"{server} does not answer yet: {error}")
            waiting = True
            time.sleep(5)
        finally:
            connection.close()


def check_clock(server: str) -> None:
    """Compare this device's clock with the server's."""
    there = asked(server)  # first, since it may wait
    ahead = time.time() - there
    if not -BEHIND < ahead < AHEAD:
        which = "ahead of" if ahead > 0 else "behind"
        stop(f"the clock is {abs(ahead):.0f} s {which} the server's; timedatectl set-ntp true")


check_here()
check_clock(sys.argv[1])
