#!/usr/bin/env bash
# The release run on one GPU or two, from the parts of scripts/release_cache.py to weights and figures.
#
#   scripts/release.sh PARTS_FOLDER WORK_FOLDER [MINUTES_ALIGN MINUTES_DISTILL]
#
# One GPU: align, distill. Two: the dense teachers read on the second one meanwhile, then stage 2 runs twice, with
# distill-release.toml and with distill-release-b.toml; those two and the mean of their weights meet on the development
# sets, and the best of the three is the model. WORK_FOLDER/out gets what should be kept, as soon as it exists: logs, int8
# weights of the last checkpoint and of the model, figures. Needs PYTHONPATH or an installed polylex.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
PARTS=$(realpath "$1"); mkdir -p "$2"; WORK=$(realpath "$2"); ALIGN=${3:-}; DISTILL=${4:-}
PY=${PYTHON:-python3}; OUT=$WORK/out; mkdir -p "$OUT"
GPUS=${GPUS:-$("$PY" -c 'import torch; print(torch.cuda.device_count())')}
SECOND=$((GPUS > 1 ? 1 : 0))
say() { echo "$(date +%T) $*"; }
train() { "$PY" -c 'from polylex.train.command import train; train()' "$@"; }
score() { "$PY" "$HERE/release_eval.py" "$@"; }
# Export every new checkpoint of the first run while it goes on.
watch() {
  local last="" newest
  while kill -0 "$1" 2>/dev/null; do
    sleep 2
    newest=$(ls -dt runs/distill/checkpoint-* 2>/dev/null | head -1 || true)
    if [ -n "$newest" ] && [ "$newest" != "$last" ] && [ -f "$newest/training.pt" ]; then
      last=$newest
      rm -rf "$OUT/early.new"
      if "$PY" "$HERE/release_export.py" "$newest" "$OUT/early.new"; then
        rm -rf "$OUT/early"; mv "$OUT/early.new" "$OUT/early"; say "exported $newest"
      fi
    fi
  done
}
cd "$WORK"

say unpack; "$PY" "$HERE/release_unpack.py" "$PARTS/align" "$WORK"
say align
CUDA_VISIBLE_DEVICES=0 train align --config "$HERE/../recipes/align-release.toml" ${ALIGN:+--max-minutes "$ALIGN"} \
  ${ALIGN_FLAGS:-} > "$OUT/align.out" 2>&1 & RUN=$!
until [ -f "$PARTS/distill/COMPLETE" ]; do kill -0 $RUN; sleep 1; done
say "unpack more, teach"  # stage 1 needs no dense teacher, and goes on meanwhile
"$PY" "$HERE/release_unpack.py" "$PARTS/distill" "$WORK"
mkdir -p eval; [ ! -f eval.tar ] || tar xf eval.tar -C eval
CUDA_VISIBLE_DEVICES=$SECOND "$PY" "$HERE/release_teach.py" "$WORK" ${TEACH_FLAGS:-} > "$OUT/teach.log" 2>&1
say taught; wait $RUN
cp runs/align/log.jsonl "$OUT/align.jsonl"; cp runs/align/recipe.toml "$OUT/align.toml"

[ ! -f "$PARTS/minutes" ] || DISTILL=$(cat "$PARTS/minutes")  # what the lease turned out to leave
say "distill ${DISTILL:-}"
CUDA_VISIBLE_DEVICES=0 train distill --config "$HERE/../recipes/distill-release.toml" \
  ${DISTILL:+--max-minutes "$DISTILL"} ${DISTILL_FLAGS:-} > "$OUT/distill.out" 2>&1 & RUN=$!
if [ "$GPUS" -gt 1 ]; then
  CUDA_VISIBLE_DEVICES=1 train distill --config "$HERE/../recipes/distill-release-b.toml" \
    ${DISTILL:+--max-minutes "$DISTILL"} ${DISTILL_FLAGS:-} > "$OUT/distill-b.out" 2>&1 & RUN_B=$!
fi
watch $RUN
MODELS=()
if wait $RUN; then MODELS+=(distill); else say "the first run failed"; fi
if [ "$GPUS" -gt 1 ]; then if wait "$RUN_B"; then MODELS+=(distill-b); else say "the second run failed"; fi; fi
for name in "${MODELS[@]}"; do
  cp "runs/$name/log.jsonl" "$OUT/$name.jsonl"; cp "runs/$name/recipe.toml" "$OUT/$name.toml"
  cp "runs/$name/curves.png" "$OUT/$name.png" 2>/dev/null || true
done

BEST=${MODELS[0]}
if [ ${#MODELS[@]} -gt 1 ]; then
  say choose
  "$PY" "$HERE/release_soup.py" runs/soup/model runs/distill/model runs/distill-b/model; MODELS+=(soup)
  for name in "${MODELS[@]}"; do
    CUDA_VISIBLE_DEVICES=$([ $name = distill-b ] && echo 1 || echo 0) score "runs/$name/model" "$OUT/dev-$name.json" dev/* \
      > "$OUT/dev-$name.out" 2>&1 &
  done; wait
  BEST=$("$PY" - "$OUT" "${MODELS[@]}" <<'PYTHON'
import json, sys
from pathlib import Path
mean = {}
for name in sys.argv[2:]:
    sets = json.loads((Path(sys.argv[1]) / f"dev-{name}.json").read_text()).values()
    mean[name] = sum(figures["all"] + figures["mass30"] for figures in sets) / (2 * len(sets))
Path(sys.argv[1], "chosen.json").write_text(json.dumps(mean))
print(max(mean, key=mean.get))
PYTHON
)
fi
say "the model is $BEST"
"$PY" "$HERE/release_export.py" "runs/$BEST/model" "$OUT/weights.new"; mv "$OUT/weights.new" "$OUT/weights"
say trained; touch "$OUT/TRAINED"

# A read-out: nothing is chosen by it.
score "runs/$BEST/model" "$OUT/figures.json" ${EVAL_SETS:-eval/*} > "$OUT/eval.out" 2>&1
say done; touch "$OUT/DONE"
