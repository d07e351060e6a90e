#!/usr/bin/env bash
# Make an environment with all peers: `bash benchmarks/install.sh [FOLDER]` (default: .venv-bench).
# The peers' packages that ask for torchaudio are installed without their dependencies. torchaudio's compiled files
# refuse many torch builds (a CPU build among them); nothing here uses them, so they are removed.
# For a CPU build of torch: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash benchmarks/install.sh
set -euo pipefail
cd "$(dirname "$0")/.."
folder="${1:-.venv-bench}"
python3 -m venv "$folder"
echo '*' > "$folder/.gitignore"
source "$folder/bin/activate"
pip install -e '.[bench]' 'torch==2.13.0' 'matplotlib==3.11.2' 'onnxruntime==1.31.1' 'pandas==3.1.1' 'scipy==1.17.1' \
    'soxr==1.1.0'    # the versions of the committed results; resampling and runtime are part of a peer's scores
pip install --no-deps 'torchaudio==2.11.0' 'distillmos==0.9.1' 'xls-r-sqa==0.1.0' 'scoreq==1.0.1'
rm -f "$(python -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torchaudio").origin).parent)')"/lib/*.so
nisqa=../shared/peers/nisqa.tar
if [ -f "$nisqa" ] && [ ! -f ~/.torchmetrics/NISQA/nisqa.tar ]; then
    mkdir -p ~/.torchmetrics/NISQA && cp "$nisqa" ~/.torchmetrics/NISQA/
fi
echo "done: $folder/bin/python -m benchmarks.accuracy ../shared/human/*"
