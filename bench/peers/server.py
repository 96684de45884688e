"""llama.cpp's server, started and asked."""

import http.client
import json
import socket
import subprocess
import tempfile
import time


class Server:
    """`llama-server` on a free port of this machine, with so many slots of `context` tokens."""

    def __init__(self, binary, model, flags, slots, context=4096):
        self.log = tempfile.TemporaryFile(mode="w+")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        words = [str(binary), "-m", str(model), "--host", "127.0.0.1", "--port", str(self.port)]
        words += ["-t", str(flags.threads), "-tb", str(flags.threads), "-np", str(slots)]
        words += ["-c", str(context * (1 if slots == 1 else slots)), "-fa", flags.flash_attn, "-b", "2048", "-ub", "512"]
        words += ["--no-webui"] + (["-kvu"] if slots > 1 else [])
        self.process = subprocess.Popen(words, stdout=self.log, stderr=subprocess.STDOUT)

    def __enter__(self):
        for _ in range(600):
            if self.process.poll() is not None:
                self.log.seek(0)
                last = self.log.read().strip().splitlines()[-2:]
                raise RuntimeError(f"llama-server ended: {' / '.join(last)}")
            try:
                if self.ask("GET", "/health").get("status") == "ok":
                    return self
            except (OSError, http.client.HTTPException, ValueError):
                pass
            time.sleep(0.2)
        raise RuntimeError("llama-server did not become ready in two minutes")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1800)
        try:
            connection.request(method, path, body and json.dumps(body), {"Content-Type": "application/json"})
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def complete(self, prompt, tokens, greedy=False, **more):
        """A completion of a prompt, text or tokens."""
        body = {"prompt": prompt, "n_predict": tokens, "return_tokens": True, "cache_prompt": True}
        if greedy:
            body.update({"temperature": 0, "top_k": 1})
        body.update(more)
        answer = self.ask("POST", "/completion", body)
        if "error" in answer:
            raise RuntimeError(f"llama-server: {answer['error']}")
        return answer
