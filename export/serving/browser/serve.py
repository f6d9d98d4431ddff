"""Serves the web page on this machine.

    python serve.py detector.tflite [--port 8000]

Any static web server can replace this script. Without the two HTTP headers of
`Handler.end_headers`, the page uses only one thread.
"""

import argparse
import functools
import http.server
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of this folder, and the detector as /detector.tflite."""

    def __init__(self, model: Path, *args: Any) -> None:
        self.model = model
        super().__init__(*args, directory=str(FOLDER))

    def guess_type(self, path: Any) -> str:
        """Returns the content type; browsers require the correct one for .js and .wasm files."""
        types = {".js": "text/javascript", ".wasm": "application/wasm"}
        return types.get(Path(path).suffix) or super().guess_type(path)

    def translate_path(self, path: str) -> str:
        """Returns the path of the file to serve."""
        if path.split("?")[0] == "/detector.tflite":
            return str(self.model)
        return super().translate_path(path)

    def log_message(self, *args: Any) -> None:
        """Disables the log of requests."""

    def end_headers(self) -> None:
        """Adds the headers that isolate the page from other sites, which threads require."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()


def server(model: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Creates a server that only this machine can reach.

    Args:
        model: The TFLite file.
        port: TCP port; 0 for any free port.

    Returns:
        The server, not started.

    Raises:
        FileNotFoundError: If the model does not exist, or the runtime is not installed.
    """
    if not model.is_file():
        raise FileNotFoundError(f"{model} does not exist: make it with ssd-keras export tflite")
    if not (FOLDER / "node_modules" / "@litertjs").is_dir():
        raise FileNotFoundError(f"the LiteRT runtime is missing: run `npm install` in {FOLDER}")
    handler = functools.partial(Handler, model.resolve())
    return http.server.ThreadingHTTPServer(("localhost", port), handler)


def main() -> None:
    """Serves the page until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model", type=Path, help="TFLite file of kind detections")
    parser.add_argument("--port", default=8000, type=int, help="TCP port")
    args = parser.parse_args()
    try:
        with server(args.model, args.port) as running:
            print(f"http://localhost:{running.server_port}/ (stop with Ctrl-C)", flush=True)
            running.serve_forever()
    except OSError as error:
        raise SystemExit(f"error: {error}") from None
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
