"""Serves the page for trying it out: python serve.py detector.tflite [--port 8000].

Any static web server does, if it sends the same two headers; without them the page uses one thread.
"""

import argparse
import functools
import http.server
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of this folder, and the detector wherever it is."""

    def __init__(self, model: Path, *args: Any) -> None:
        self.model = model
        super().__init__(*args, directory=str(FOLDER))

    def guess_type(self, path: Any) -> str:
        """The content types that browsers insist on, whatever this machine's own table says."""
        types = {".js": "text/javascript", ".wasm": "application/wasm"}
        return types.get(Path(path).suffix) or super().guess_type(path)

    def translate_path(self, path: str) -> str:
        """Where a file is."""
        if path.split("?")[0] == "/detector.tflite":
            return str(self.model)
        return super().translate_path(path)

    def log_message(self, *args: Any) -> None:
        """Keeps quiet."""

    def end_headers(self) -> None:
        """Adds what isolates the page from other sites, which threads ask for."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def server(model: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server on this machine only.

    Raises:
        FileNotFoundError: If there is no such model, or the runtime is not installed.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model} does not exist: make it with export/tflite.py")
    if not (FOLDER / "node_modules" / "@litertjs").is_dir():
        raise FileNotFoundError(f"the runtime is missing: run `npm install` in {FOLDER}")
    handler = functools.partial(Handler, model.resolve())
    return http.server.ThreadingHTTPServer(("localhost", port), handler)


def main() -> None:
    """Serves until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="a TFLite file of kind detections")
    parser.add_argument("--port", default=8000, type=int)
    args = parser.parse_args()
    try:
        with server(args.model, args.port) as running:
            print(f"http://localhost:{running.server_port}/ (Ctrl+C ends)", flush=True)
            running.serve_forever()
    except OSError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
