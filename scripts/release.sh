#!/usr/bin/env bash
# The release run on one GPU, from the parts of scripts/release_cache.py to weights and figures.
#
#   scripts/release.sh PARTS_FOLDER WORK_FOLDER [MINUTES_ALIGN MINUTES_DISTILL]
#
# WORK_FOLDER gets everything; WORK_FOLDER/out gets what should be kept, as soon as it exists: logs, int8 weights of the
# last checkpoint of each stage, figures. Needs PYTHONPATH or an installed polylex.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
PARTS=$(realpath "$1"); mkdir -p "$2"; WORK=$(realpath "$2"); ALIGN=${3:-}; DISTILL=${4:-}
PY=${PYTHON:-python3}; FLAGS=${FLAGS:-}; OUT=$WORK/out; mkdir -p "$OUT"
TRAIN=("$PY" -m polylex train)
say() { echo "$(date +%T) $*"; }
cd "$WORK"

say unpack; "$PY" "$HERE/release_unpack.py" "$PARTS" "$WORK"
mkdir -p eval; [ ! -f eval.tar ] || tar xf eval.tar -C eval
# Stage 1 needs no dense teacher: both go on at the same time.
say teach; "$PY" "$HERE/release_teach.py" "$WORK" ${TEACH_FLAGS:-} > "$OUT/teach.log" 2>&1 & TEACH=$!
[ -z "${SEQUENTIAL:-}" ] || wait $TEACH
say align
"${TRAIN[@]}" align --config "$HERE/../recipes/align-release.toml" ${ALIGN:+--max-minutes "$ALIGN"} $FLAGS ${ALIGN_FLAGS:-} > "$OUT/align.out" 2>&1
cp runs/align/log.jsonl "$OUT/align.jsonl"; cp runs/align/recipe.toml "$OUT/align.toml"
say wait for the teachers; wait $TEACH
say distill
"${TRAIN[@]}" distill --config "$HERE/../recipes/distill-release.toml" ${DISTILL:+--max-minutes "$DISTILL"} $FLAGS ${DISTILL_FLAGS:-} > "$OUT/distill.out" 2>&1 & RUN=$!
while kill -0 $RUN 2>/dev/null; do
  sleep 2
  LAST=$(ls -d runs/distill/checkpoint-* 2>/dev/null | tail -1 || true)
  if [ -n "$LAST" ] && [ "$LAST" != "${DONE:-}" ] && [ -f "$LAST/training.pt" ]; then
    DONE=$LAST; rm -rf "$OUT/weights.new"
    if "$PY" "$HERE/release_export.py" "$LAST" "$OUT/weights.new"; then
      rm -rf "$OUT/weights"; mv "$OUT/weights.new" "$OUT/weights"; say "exported $LAST"
    fi
  fi
done
wait $RUN
cp runs/distill/log.jsonl "$OUT/distill.jsonl"; cp runs/distill/recipe.toml "$OUT/distill.toml"
cp runs/distill/curves.png "$OUT/" 2>/dev/null || true
rm -rf "$OUT/weights"; "$PY" "$HERE/release_export.py" runs/distill/model "$OUT/weights"
say trained; touch "$OUT/TRAINED"
for set in dev/* ${EVAL_SETS:-eval/*}; do SETS+=("$set"); done
"$PY" "$HERE/release_eval.py" runs/distill/model "$OUT/figures.json" "${SETS[@]}" > "$OUT/eval.out" 2>&1
say done; touch "$OUT/DONE"
