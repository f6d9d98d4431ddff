#!/usr/bin/env bash
# Installs the wheel, without extras, into an empty environment and uses it in an empty folder:
#     scripts/check_wheel.sh python3.12
# Downloads the dependencies from PyPI. Prints one line for each step.
set -euo pipefail
python=${1:-python3}
repository=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder/build"
"$folder/build/bin/pip" install --quiet build
"$folder/build/bin/python" -m build --outdir "$folder/dist" "$repository" > "$folder/build.log"
"$python" -m venv "$folder/environment"
"$folder/environment/bin/pip" install --quiet "$folder"/dist/*.whl
mkdir "$folder/empty"
cd "$folder/empty"
export PATH="$folder/environment/bin:$PATH"

step() {
  echo "\$ ssd-keras $*"
  ssd-keras "$@" > out.log 2> err.log || { cat out.log err.log; exit 1; }
}

ssd-keras help > /dev/null
step prepare --source=shapes --num_images=8 --out=records
step preview --records=records --images=4
step train --records=records --val_records=records --run_dir=run --weights=random --width=0.03 --batch_size=2 \
  --iterations=2 --eval_every=1 --augmentation=ssd --optimizer=adam
step evaluate --model=run/best.keras --records=records --out=metrics.json
step evaluate --model=run/best.keras --records=records --metric=coco
step export saved_model --model=run/best.keras --out=detector
step verify --model=run/best.keras --records=records --out=report detector || true
step detect --model=detector --out=found preview.png
step benchmark --model=detector --batch_sizes=1 --repeats=2
step serving-files --out=serving
# TFLite needs an extra, and says so.
if ssd-keras export tflite --model=run/best.keras --out=d.tflite 2> err.log; then exit 1; fi
grep -q "pip install 'ssd-keras\[tflite\]'" err.log || { cat err.log; exit 1; }
echo "$("$python" --version): the wheel works without extras ($(python -c 'import tensorflow, keras
print("TensorFlow", tensorflow.__version__, "Keras", keras.__version__)' 2> /dev/null))"
