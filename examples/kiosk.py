#!/usr/bin/env python3
"""A kiosk's button: asks a Tintype daemon for a picture and shows how it gets on. Python's standard library alone.

    python3 kiosk.py "a cartoon cat" cat.png
"""

import http.client
import json
import os
import socket
import sys
import time
import uuid

SOCKET = os.environ.get("TINTYPE_SOCKET", "/run/tintype/tintype.sock")


class Daemon(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(SOCKET)


def ask(method, path, body=None, headers={}):
    """One call, tried again while the daemon is busy or starting."""
    while True:
        daemon = Daemon("tintype")
        try:
            daemon.request(method, path, body, headers)
            answer = daemon.getresponse()
            if answer.status < 400:
                return answer
            error = json.loads(answer.read())["error"]
        except OSError as lost:
            error = {"message": str(lost), "retry_after_ms": 1000}
        if "retry_after_ms" not in error:
            sys.exit(error["message"])
        print(error["message"], file=sys.stderr)
        time.sleep(error["retry_after_ms"] / 1000)


def main(prompt, path):
    # The same key for every try: however often it is sent, it is one job.
    job = json.load(ask("POST", "/v1/jobs", json.dumps({"prompt": prompt}), {"Idempotency-Key": str(uuid.uuid4())}))["id"]
    event = {"n": -1, "event": "queued"}
    while event["event"] not in ("done", "failed", "cancelled"):
        try:
            for line in ask("GET", f"/v1/jobs/{job}/events?from={event['n'] + 1}"):
                event = json.loads(line)
                print(event["event"], event.get("step", ""))
        except (OSError, http.client.HTTPException):
            time.sleep(1)
    if event["event"] != "done":
        sys.exit(event.get("error", {}).get("message", "cancelled"))
    with open(path, "wb") as file:
        file.write(ask("GET", f"/v1/jobs/{job}/image").read())


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) == 3 else sys.exit(__doc__)
