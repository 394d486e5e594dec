"""What `fednf deploy init` writes: all that is needed, whole or not at all, and secrets apart."""

import configparser
import hashlib
import ipaddress
import os
import ssl
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from experiments.deploy import folder as folders
from fl.config import Experiment
from fl.config.parsing import ConfigError, read_toml
from tests.experiments.answers import refused

SCRIPTS = [
    "superlink.sh",
    "register.sh",
    "remove.sh",
    "run.sh",
    "stop.sh",
    "device-0/start.sh",
    "device-3/start.sh",
]


def modes(folder):
    """Return the mode of every path below a folder."""
    return {str(p.relative_to(folder)): p.stat().st_mode & 0o777 for p in folder.rglob("*")}


def test_it_holds_what_is_needed_and_nothing_else(deployed):
    folder = deployed(2)
    device = {"ca.pem", "data", "device.key", "fednf.service", "preflight.py"}
    device |= {"data/shard.npz", "requirements.txt", "start.sh"}
    server = {"ca.pem", "environment.sh", "keys", "server.key", "server.pem"}
    server |= {"keys/device-0.pub", "keys/device-1.pub"}
    expected = {
        "README.md",
        "register.sh",
        "remove.sh",
        "run.sh",
        "run.toml",
        "stop.sh",
        "superlink.sh",
        "server",
    }
    expected |= {f"server/{name}" for name in server}
    for number in range(2):
        expected |= {f"device-{number}"} | {f"device-{number}/{name}" for name in device}
    assert modes(folder).keys() == expected
    assert list(folder.parent.iterdir()) == [folder]


def test_secrets_are_their_owner_s_alone(deployed):
    folder = deployed(2)
    found = modes(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert found["device-0"] == found["device-1"] == 0o700
    assert {path: mode for path, mode in found.items() if path.endswith(".key")} == {
        "server/server.key": 0o600,
        "device-0/device.key": 0o600,
        "device-1/device.key": 0o600,
    }
    private = {p for p in folder.rglob("*") if p.is_file() and b"PRIVATE KEY" in p.read_bytes()}
    assert {str(p.relative_to(folder)) for p in private} == {p for p in found if p.endswith("key")}


def test_each_device_has_a_key_of_its_own_and_the_server_knows_it(deployed):
    folder = deployed(3)
    publics = []
    for number in range(3):
        raw = (folder / f"device-{number}" / "device.key").read_bytes()
        own = serialization.load_ssh_private_key(raw, None).public_key()
        known = (folder / "server" / "keys" / f"device-{number}.pub").read_bytes()
        assert own == serialization.load_ssh_public_key(known)
        assert own.curve.name == "secp384r1"
        publics.append(known)
    assert len(set(publics)) == 3


def test_the_certificate_is_the_server_s_under_all_its_names(deployed):
    folder = deployed(2, "--host", "fed.example", "--host", "10.0.0.7")
    server = x509.load_pem_x509_certificate((folder / "server" / "server.pem").read_bytes())
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example", "localhost"]
    addresses = [ipaddress.ip_address(a) for a in ("10.0.0.7", "127.0.0.1", "::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses
    usage = server.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    authority = x509.load_pem_x509_certificate((folder / "server" / "ca.pem").read_bytes())
    server.verify_directly_issued_by(authority)
    for number in range(2):
        copy = (folder / f"device-{number}" / "ca.pem").read_bytes()
        assert copy == (folder / "server" / "ca.pem").read_bytes()
    assert "SUPERLINK:-fed.example:8000}" in (folder / "device-0" / "start.sh").read_text()


@pytest.mark.parametrize(
    ("host", "bind", "local"),
    [("2001:db8::7", "::", "[::1]"), ("10.0.0.7", "0.0.0.0", "127.0.0.1")],
)
def test_operators_come_by_the_family_that_the_server_listens_to(deployed, host, bind, local):
    folder = deployed(1, "--host", host)
    assert f"--host {bind} --port 8000" in (folder / "superlink.sh").read_text()
    assert f'address = "{local}:8000"' in (folder / "server" / "environment.sh").read_text()
    assert f"ssh -L 8000:{local}:8000 " in (folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["fed.example", "localhost", "10.9.9.9"])
def test_a_strict_client_shakes_hands_under_known_names_only(deployed, name):
    """Python 3.13's default is strict: it asks for key identifiers and usages."""
    folder = deployed(1, "--host", "fed.example")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "server" / "server.pem", folder / "server" / "server.key")
    asking = ssl.create_default_context(cafile=folder / "device-0" / "ca.pem")
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    here, there = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(here, there, server_hostname=name)
    server = serving.wrap_bio(there, here, server_side=True)

    def shake_hands():
        done = set()
        while done != {client, server}:
            for side in (client, server):
                try:
                    side.do_handshake()
                    done.add(side)
                except ssl.SSLWantReadError:
                    continue

    if name == "10.9.9.9":
        with pytest.raises(ssl.SSLCertVerificationError, match="IP address mismatch"):
            shake_hands()
    else:
        shake_hands()


def test_scripts_are_sound(deployed):
    folder = deployed(4)
    for name in [*SCRIPTS, "server/environment.sh"]:
        for shell in ("bash", "sh"):
            subprocess.run([shell, "-n", folder / name], check=True)
        text = (folder / name).read_text()
        assert "@" not in text.replace('"$@"', ""), "a field was not filled in"
    executable = {path for path, mode in modes(folder).items() if path.endswith("sh") and mode & 1}
    assert {*SCRIPTS} <= executable


def test_a_run_is_stopped_by_its_number(deployed, monkeypatch):
    """A made-up flwr says what it was asked."""
    folder = deployed(1)
    programs = folder.parent / "bin"
    programs.mkdir()
    for name in ("flwr", "flower-superlink"):
        (programs / name).write_text('#!/bin/sh\necho "$@"\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    def said(*words):
        done = subprocess.run([folder / "stop.sh", *words], capture_output=True, text=True)
        return done.returncode, done.stdout

    assert said("773024963262632777") == (0, "stop 773024963262632777 fednf\n")
    assert said() == (2, "list fednf\n")


def test_devices_on_one_machine_have_ports_of_their_own(deployed):
    folder = deployed(3)
    starts = [(folder / f"device-{number}" / "start.sh").read_text() for number in range(3)]
    assert [f'"${{PORT:-{9094 + n}}}"' in start for n, start in enumerate(starts)] == [True] * 3
    assert [f"partition-id={n} num-partitions=3" in s for n, s in enumerate(starts)] == [True] * 3


def test_the_unit_starts_what_the_folder_has_and_starts_it_again(deployed):
    folder = deployed(1)
    unit = configparser.RawConfigParser(strict=True)
    unit.optionxform = str
    unit.read(folder / "device-0" / "fednf.service")
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = dict(unit["Service"])
    assert service["ExecStart"] == "/opt/fednf/start.sh"
    assert service["Restart"] == "always"
    assert service["User"] == "fednf"
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    start = (folder / "device-0" / "start.sh").read_text()
    assert service["ReadWritePaths"] == "/opt/fednf/flower"
    assert 'FLWR_HOME="$here/flower"' in start  # the only folder that the unit lets it write to


def test_a_device_installs_neither_ray_nor_plots(deployed):
    lines = (deployed(1) / "device-0" / "requirements.txt").read_text().splitlines()
    names = {line.partition("==")[0] for line in lines}
    assert {"flwr", "torch", "numpy"} <= names
    assert not names & {"ray", "matplotlib", "fednf", "pyarrow", "pillow"}
    assert all("==" in line and "+" not in line for line in lines)


def test_a_device_with_files_of_its_own_installs_what_reads_them(deployed):
    folder = deployed(1, "--set", "data.name=devices")
    lines = (folder / "device-0" / "requirements.txt").read_text().splitlines()
    assert {"torch", "pyarrow", "pillow"} <= {line.partition("==")[0] for line in lines}
    assert list((folder / "device-0" / "data").iterdir()) == []


def test_what_devices_install_has_to_be_here(monkeypatch):
    def absent(name):
        raise folders.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(folders.metadata, "version", absent)
    with pytest.raises(ConfigError, match=r"not installed; install fednf with its extra \[data\]"):
        folders.requirements(Experiment.from_flat({"data.name": "devices"}))


def test_the_run_is_the_experiment_that_was_asked_for(deployed):
    knobs = Experiment.from_flat(read_toml(deployed(3, "--set", "seed=7") / "run.toml"))
    assert (knobs.seed, knobs.partition.clients, knobs.sampling.clients) == (7, 3, 3)
    assert (knobs.engine, knobs.run.dir) == ("sequential", "")


def test_the_run_begins_and_ends_where_it_was_asked_to(deployed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    words = ("--set", "data.name=devices", "--set", "run.start-from=w.safetensors")
    knobs = Experiment.from_flat(read_toml(deployed(2, *words) / "run.toml"))
    assert knobs.run.start_from == str(tmp_path / "w.safetensors")
    assert knobs.run.start_sha256 == hashlib.sha256(b"weights").hexdigest()


def test_it_stays_whole_when_it_is_moved(deployed, tmp_path):
    folder = deployed(1)
    texts = [p.read_text() for p in folder.rglob("*") if p.is_file() and p.suffix != ".npz"]
    assert not [text for text in texts if str(tmp_path) in text]


BAD = {
    "deploy init here --devices 4": "here exists; choose another folder",
    "deploy init new --devices 4 --set partition.clients=5": "--devices 4, but partition.clients=5",
    "deploy init new --devices 0": "0 is not in the range",
    "deploy init new --devices 4 --host two,names": "--host 'two,names' is neither",
    "deploy init new --devices 4 --host $(reboot)": "is neither a name nor an address",
    "deploy init new --devices 6000 --set partition.kind=iid": "there are only 5000",
    "deploy init new --devices 4 --set run.dir=/x": "run.dir is for flwr run",
}


@pytest.mark.parametrize("line", BAD)
def test_what_can_t_be_is_refused_in_one_line(fednf, tmp_path, line):
    (tmp_path / "here").mkdir()
    said = refused(fednf(*line.split()))
    assert BAD[line] in said
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_an_interruption_leaves_nothing(fednf, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "key_pair", full)
    done = fednf("deploy", "init", "site", "--devices", "2")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "No space left on device" in done.err
    assert list(tmp_path.iterdir()) == []


def test_one_of_two_at_the_same_time_wins(tmp_path):
    """Neither mixes its files with the other's."""
    knobs = Experiment.from_flat({"partition.clients": 1, "sampling.clients": 1})
    server, ended = folders.Server(("localhost",), 8000), []

    def make():
        try:
            folders.init(tmp_path / "site", knobs, server)
            ended.append("made")
        except Exception as error:
            ended.append(str(error))

    both = [threading.Thread(target=make) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert ended.count("made") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
