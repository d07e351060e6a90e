"""Improve a noisy clip by following the gradient of the score, through a filter that can only turn bands down.

    python examples/improve_by_gradient.py examples/english_noise05.flac improved.wav

A score that rises is not proof of better sound: listen to the result. The filter is there because the waveform
itself, left free, finds inaudible changes that raise the score (any differentiable metric can be gamed so).
"""

import sys

import soundfile as sf
import torch

from jsqa_metric import score


def improve(noisy: torch.Tensor, rate: int, steps: int = 30) -> torch.Tensor:
    """Learn a gain between 0 and 1 for every time-frequency bin of `noisy`, of shape `(time,)`."""
    window = torch.hann_window(512)
    spectrum = torch.stft(noisy, 512, window=window, return_complex=True)
    logits = torch.full(spectrum.shape, 3.0, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for step in range(steps):
        enhanced = torch.istft(spectrum * torch.sigmoid(logits), 512, window=window, length=len(noisy))
        mos = score(enhanced, rate)
        print(f"step {step:2d}: MOS {float(mos.detach()):.3f}", file=sys.stderr)
        optimizer.zero_grad()
        (-mos).backward()
        optimizer.step()
    return enhanced.detach()


if __name__ == "__main__":
    source, target = sys.argv[1:]
    audio, sample_rate = sf.read(source, dtype="float32")
    sf.write(target, improve(torch.from_numpy(audio), sample_rate).numpy(), sample_rate)
