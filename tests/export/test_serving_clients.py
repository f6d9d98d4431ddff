"""The clients and warm-up requests of export/serving, tested with servers in this process.

The servers answer with the exported signatures, as the documentation of TensorFlow Serving
specifies: https://www.tensorflow.org/tfx/serving/api_rest and prediction_service.proto.
"""

import base64
import http.server
import importlib.util
import json
import subprocess
import sys
import threading
from concurrent import futures
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from ssd_keras.export.saved_model import export_saved_model
from ssd_keras.model import ssd_vgg16
from tests.tiny import TINY

grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving", reason="needs the extra [serving]")
from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2  # noqa: E402

FOLDER = Path(__file__).parents[2] / "export" / "serving"
LABELS = ("disk", "ring", "square")
MAX_BATCH_SIZE = 8  # with batching.config TensorFlow Serving rejects larger requests


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *arguments):
    command = [sys.executable, FOLDER / f"{name}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def encode(seed, height, width):
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3))
    image = tf.cast(tf.image.resize(coarse, (height, width)), tf.uint8)
    return tf.io.encode_jpeg(image).numpy()


PICTURES = [encode(1, 80, 60), b"no picture", encode(2, 50, 90)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("serving") / "ssd" / "1"
    path.parent.mkdir()
    export_saved_model(ssd_vgg16(TINY, 3, width=1 / 16, labels=LABELS), path)
    return path


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


@pytest.fixture(scope="module")
def expected(signatures):
    outputs = signatures["encoded"](image_bytes=tf.constant(PICTURES))
    return {name: value.numpy() for name, value in outputs.items()}


@pytest.fixture(scope="module")
def grpc_server(signatures):
    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if request.model_spec.name != "ssd":
                context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_spec.name}")
            inputs = {k: tf.constant(tf.make_ndarray(v)) for k, v in request.inputs.items()}
            if len(inputs["image_bytes"]) > MAX_BATCH_SIZE:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Task size is larger than maximum")
            outputs = signatures[request.model_spec.signature_name](**inputs)
            response = predict_pb2.PredictResponse(model_spec=request.model_spec)
            for name, value in outputs.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    yield f"localhost:{port}"
    server.stop(None)


@pytest.fixture(scope="module")
def rest_server(signatures):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path != "/v1/models/ssd:predict":
                return self.answer(404, {"error": f"Malformed request: POST {self.path}"})
            values = [base64.b64decode(row["image_bytes"]["b64"]) for row in body["instances"]]
            if len(values) > MAX_BATCH_SIZE:
                return self.answer(400, {"error": "Task size is larger than maximum"})
            outputs = signatures[body["signature_name"]](image_bytes=tf.constant(values))
            rows = [
                {name: value[i].numpy().tolist() for name, value in outputs.items()}
                for i in range(len(values))
            ]
            return self.answer(200, {"predictions": rows})

        def answer(self, code, content):
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_grpc_client(grpc_server, expected):
    with grpc.insecure_channel(grpc_server) as channel:
        found = load("client_grpc").detect(channel, PICTURES)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_allclose(found[name], values, atol=1e-6)
        with pytest.raises(grpc.RpcError, match="no model other"):
            load("client_grpc").detect(channel, PICTURES, "other")
    assert expected["num_detections"][[0, 2]].all()
    assert expected["image_decoded"].tolist() == [True, False, True]


def test_rest_client(rest_server, expected):
    found = load("client_rest").detect(rest_server, PICTURES)
    for name, values in expected.items():
        np.testing.assert_allclose([row[name] for row in found], values, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"404: .*other:predict"):
        load("client_rest").detect(rest_server, PICTURES, "other")


def test_clients_split_large_requests(grpc_server, rest_server, expected):
    pictures = PICTURES * 6
    with grpc.insecure_channel(grpc_server) as channel:
        found = load("client_grpc").detect(channel, pictures)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], np.concatenate([value] * 6), atol=1e-5)
    answers = load("client_rest").detect(rest_server, pictures)
    assert [a["num_detections"] for a in answers] == [*expected["num_detections"]] * 6


def test_the_clients_know_the_limit_of_the_batching_configuration():
    text = (FOLDER / "batching.config").read_text()
    (limit,) = (line.split()[3] for line in text.splitlines() if line.startswith("max_batch_size"))
    for name in ("client_grpc", "client_rest"):
        assert load(name).MAX_BATCH_SIZE == int(limit) == MAX_BATCH_SIZE


@pytest.mark.parametrize("client", ["client_grpc", "client_rest"])
def test_commands_print_names_and_boxes(client, request, exported, expected, tmp_path):
    server = request.getfixturevalue(client.replace("client_", "") + "_server")
    paths = [tmp_path / f"{i}.jpg" for i in range(3)]
    for path, picture in zip(paths, PICTURES, strict=True):
        path.write_bytes(picture)
    labels = exported / "assets" / "labels.txt"
    options = ["--labels", labels, "--score", "0", *paths]
    done = run(client, "--server", server, *options)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 1 + expected["num_detections"].sum()
    name = LABELS[expected["detection_classes"][0, 0] - 1]
    assert lines[0].startswith(f"{paths[0]}: {name} {expected['detection_scores'][0, 0]:.3f} at ")
    box = np.array(lines[0].split(" at ")[1].split()[:4], float)
    np.testing.assert_allclose(box, expected["detection_boxes"][0, 0], atol=1e-4)
    assert f"{paths[1]}: the server cannot decode this image" in lines


@pytest.mark.parametrize("client", ["client_grpc", "client_rest"])
def test_commands_report_errors(client, request, exported, tmp_path, monkeypatch):
    server = request.getfixturevalue(client.replace("client_", "") + "_server")
    (tmp_path / "a.jpg").write_bytes(PICTURES[0])
    nobody = "localhost:1" if client == "client_grpc" else "http://localhost:1"
    for address, labels, message in (
        (server, tmp_path / "none.txt", r"none\.txt"),
        (nobody, exported / "assets" / "labels.txt", "refused"),
    ):
        words = [client, "--server", address, "--labels", str(labels), str(tmp_path / "a.jpg")]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit, match=message):
            load(client).main()


def test_the_model_answers_the_warmup_requests(exported, signatures, tmp_path):
    names = ["one.jpg", "two.jpg"]
    for name, picture in zip(names, PICTURES[::2], strict=True):
        (tmp_path / name).write_bytes(picture)
    pictures = [tmp_path / name for name in names]
    done = run("warmup", "--model", exported, "--batch_sizes", "1,3", *pictures)
    assert done.returncode == 0, done.stderr
    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    sent = []
    for log in logs:
        request = log.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("ssd", "encoded")
        sent.append(tf.make_ndarray(request.inputs["image_bytes"]))
        assert (
            signatures["encoded"](image_bytes=tf.constant(sent[-1]))["image_decoded"].numpy().all()
        )
    assert [list(batch) for batch in sent] == [
        [PICTURES[0]],
        [PICTURES[0], PICTURES[2], PICTURES[0]],
    ]
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    failed = run("warmup", "--model", exported, tmp_path / "bad.jpg")
    assert failed.returncode == 1
    assert "bad.jpg is not a JPEG" in failed.stderr


def test_configuration_files_are_valid():
    from google.protobuf import text_format

    config = model_server_config_pb2.ModelServerConfig()
    text_format.Parse((FOLDER / "models.config").read_text(), config)
    assert config.model_config_list.config[0].name == "ssd"
    # The package lacks the message BatchingParameters. These are its fields according to
    # tensorflow_serving/servables/tensorflow/session_bundle_config.proto.
    lines = [
        line.split("#")[0].split() for line in (FOLDER / "batching.config").read_text().splitlines()
    ]
    assert {line[0].rstrip(":") for line in lines if line} == {
        "max_batch_size",
        "batch_timeout_micros",
        "max_enqueued_batches",
        "num_batch_threads",
        "allowed_batch_sizes",
    }
