#!/usr/bin/env python3
"""Records conversations between vfio-user clients and servers that are not ours, into test/fixtures/vfio-user.

    scripts/capture-vfio-user.py --samples DIR --qemu PATH

DIR has libvfio-user's samples `client`, `server` and `gpio-pci-idio-16`, built, and a file `commit` with the commit they were built
from. A relay stands between the two ends; it passes whole messages on with their descriptors, which Node.js cannot (why this is Python).
A conversation is a line of JSON a message: who sent it, how many descriptors came with it, its bytes.
"""
import argparse
import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FIXTURES = Path(__file__).resolve().parent.parent / 'test' / 'fixtures' / 'vfio-user'
HEADER = 16
DEADLINE_S = 60


class Relay(threading.Thread):
    """One client on `path`, connected on to the server at `target`, until either end is gone."""

    def __init__(self, path, target):
        super().__init__(daemon=True)
        self.path, self.target, self.lines, self.lock = path, target, [], threading.Lock()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.start()

    def run(self):
        client, _ = self.listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(self.target)
        back = threading.Thread(target=self.pump, args=(server, client, 'server'), daemon=True)
        back.start()
        self.pump(client, server, 'client')
        back.join(DEADLINE_S)
        self.listener.close()

    def pump(self, source, sink, name):
        try:
            while (message := self.receive(source)) is not None:
                data, fds = message
                with self.lock:
                    self.lines.append({'from': name, 'fds': len(fds), 'hex': data.hex()})
                # The receiver takes the header with one call and the body with another; one write a message keeps the body whole.
                socket.send_fds(sink, [data], fds) if fds else sink.sendall(data)
                for fd in fds:
                    os.close(fd)
        except (ConnectionError, BrokenPipeError):
            pass
        try:
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def receive(self, source):
        data, fds = b'', []
        wanted = HEADER
        while len(data) < wanted:
            part, more, _, _ = socket.recv_fds(source, wanted - len(data), 64)
            if not part:
                return None
            data += part
            fds += more
            if len(data) == HEADER:
                wanted = struct.unpack_from('<I', data, 4)[0]
        return data, fds


def wait_for(path):
    deadline = time.monotonic() + DEADLINE_S
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.02)


def end(process):
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def save(name, relay, command, made_by):
    text = ''.join(json.dumps(line, separators=(',', ':')) + '\n' for line in relay.lines)
    packed = gzip.compress(text.encode(), mtime=0)
    FIXTURES.mkdir(parents=True, exist_ok=True)
    (FIXTURES / f'{name}.jsonl.gz').write_bytes(packed)
    print(f'{name}: {len(relay.lines)} messages, {len(packed)} bytes')
    return {f'{name}.jsonl.gz': {
        'between': made_by, 'command': command, 'messages': len(relay.lines),
        'sha256': hashlib.sha256(packed).hexdigest(),
    }}


def client_and_server(samples, folder):
    """libvfio-user's client moves the device of libvfio-user's server into a second server, which it starts itself: from beside it."""
    shutil.copy(samples / 'client', folder / 'client')
    inner = folder / 'destination-server.sock'
    (folder / 'server').write_text(f'#!/bin/sh\nexec {samples / "server"} -v {inner}\n')
    (folder / 'server').chmod(0o755)
    first = subprocess.Popen([samples / 'server', '-v', folder / 'source-server.sock'], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    try:
        wait_for(folder / 'source-server.sock')
        source = Relay(str(folder / 'client.sock'), str(folder / 'source-server.sock'))
        client = subprocess.Popen([folder / 'client', folder / 'client.sock'], cwd=folder, stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        wait_for(inner)
        destination = Relay(str(folder / 'client.sock_migrated'), str(inner))
        if client.wait(DEADLINE_S) != 0:
            sys.exit('the client failed')
        destination.join(DEADLINE_S)
        return source, destination
    finally:
        end(first)


def qemu_and_gpio(samples, qemu, folder):
    """A QEMU that finds the device at its start, sizes its BARs and goes."""
    server = subprocess.Popen([samples / 'gpio-pci-idio-16', '-v', folder / 'gpio.sock'], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        wait_for(folder / 'gpio.sock')
        relay = Relay(str(folder / 'qemu.sock'), str(folder / 'gpio.sock'))
        device = json.dumps({'driver': 'vfio-user-pci', 'socket': {'type': 'unix', 'path': str(folder / 'qemu.sock')}})
        command = [str(qemu), '-accel', 'tcg', '-M', 'q35', '-m', '64', '-display', 'none', '-nodefaults', '-no-reboot', '-device', device]
        machine = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(8)  # the firmware has looked at all devices by then
        end(machine)
        relay.join(DEADLINE_S)
        return relay, ' '.join(command[1:]).replace(str(folder) + '/', '')
    finally:
        end(server)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--samples', type=Path, required=True)
    parser.add_argument('--qemu', type=Path)
    options = parser.parse_args()
    samples = options.samples.resolve()
    library = f'libvfio-user {(samples / "commit").read_text().strip()}'
    provenance_file = FIXTURES / 'provenance.json'
    provenance = json.loads(provenance_file.read_text()) if provenance_file.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        source, destination = client_and_server(samples, Path(name))
        provenance |= save('sample-source', source, 'samples/client against samples/server -v', f'{library}, both ends')
        provenance |= save('sample-destination', destination, 'the same client against the second server', f'{library}, both ends')
    if options.qemu is not None:
        version = subprocess.run([options.qemu, '--version'], capture_output=True, text=True).stdout.split('\n')[0]
        with tempfile.TemporaryDirectory() as name:
            relay, command = qemu_and_gpio(samples, options.qemu, Path(name))
            provenance |= save('qemu-gpio', relay, command, f'{version} as client; samples/gpio-pci-idio-16 of {library} as server')
    provenance_file.write_text(json.dumps(dict(sorted(provenance.items())), indent=2) + '\n')


main()
