#!/usr/bin/env bash
# Install what training needs into the active environment: `bash training/install.sh`.
# Distill-MOS imports torchaudio, whose compiled files refuse many torch builds (a CPU build among them).
# Nothing here uses them, so torchaudio is installed without its torch and its compiled files are removed.
set -euo pipefail
pip install -e '.[train]'
pip install --no-deps 'torchaudio==2.11.0' 'distillmos==0.9.1' 'xls-r-sqa==0.1.0'
rm -f "$(python -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torchaudio").origin).parent)')"/lib/*.so
