#!/usr/bin/env python3
"""What the kernel holds for readers that never read: `tests/benches/kernel-memory.py LONGWIRE [OPTION OF serve]...`

Five event streams are opened, of which three have a receive buffer of 4 KiB, and none is read; 400 events of 32,000 bytes
are published; then `ss` (of iproute2) says what the gateway's ends hold: `w` of skmem is the memory of the send queue.
"""
import http.client
import re
import socket
import subprocess
import sys
import time

program, *options = sys.argv[1:]
command = [program, "serve", "--listen", "127.0.0.1:0", "--heartbeat", "1h", *options]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as gateway:
    port = int(gateway.stdout.readline().rsplit(":", 1)[1])
    readers = []
    for narrow in (True, True, True, False, False):
        reader = socket.socket()
        if narrow:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", port))
        head = f"GET /v1/stream?topic=a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n"
        reader.sendall(head.encode())
        readers.append(reader)
    client = http.client.HTTPConnection("127.0.0.1", port)

    def ask(method, path, body=None):
        client.request(method, path, body, {"Content-Type": "application/json"})
        answer = client.getresponse()
        assert answer.status == 200, answer.status
        return answer.read().decode()

    while "longwire_sse{log=\"default\"} 5" not in ask("GET", "/metrics"):
        time.sleep(0.01)
    for _ in range(400):
        ask("POST", "/v1/topics/a", b'"' + b"x" * 32_000 + b'"')
    time.sleep(1)
    sockets = subprocess.check_output(["ss", "-tmnH", f"sport = :{port}"], text=True)
    held = sorted(int(w) for w in re.findall(r"skmem:\(.*?,w(\d+)", sockets))
    print("bytes in the send queues:", *held[-5:])
    gateway.terminate()
