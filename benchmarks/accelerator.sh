#!/usr/bin/env bash
# What an accelerator shows, within ten minutes and without a network:
#   bash benchmarks/accelerator.sh [--quick] [--wheels=FOLDER] [--out=FOLDER]
#     [--peak=TFLOPS] [--seconds=600]
# PYTHON is the interpreter that has jax (python3 unless set). Of the wheels,
# what is missing is installed beside it, in FOLDER/venv of --out; its own
# packages stay as they are.
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
python="${PYTHON:-python3}" wheels="" out="$here/benchmarks/out/accelerator" rest=()
for word in "$@"; do
  case "$word" in
    --wheels=*) wheels="${word#*=}" ;;
    --out=*) out="${word#*=}" ;;
    *) rest+=("$word") ;;
  esac
done

if [ -n "$wheels" ]; then
  if [ ! -d "$wheels" ]; then
    echo "--wheels: no folder $wheels" >&2
    exit 1
  fi
  mapfile -t names < <("$python" "$here/benchmarks/accelerator/needs.py" --names)
  if [ "${#names[@]}" -gt 0 ]; then
    mkdir -p "$out"
    "$python" -m venv --without-pip "$out/venv"
    own="$out/venv/bin/python"
    # What the interpreter that was given finds, this one finds, too.
    "$python" -c 'import os, sys
print("\n".join(p for p in sys.path if os.path.isdir(p) and os.path.isabs(p)))' \
      > "$("$own" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/beside.pth"
    "$python" -m pip --python "$own" install --quiet --no-index \
      --find-links "$wheels" "${names[@]}" \
      || echo "not all could be installed from $wheels" >&2
    python="$own"
  fi
fi

export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m benchmarks.accelerator --out="$out" --spent="$SECONDS" "${rest[@]}"
