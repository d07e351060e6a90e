"""A small neural codec with a residual vector quantiser, trained adversarially on clean speech, as damage.

We found no such codec with weights under a free licence within reach, and what a model has not heard it does not mind.
It need not be good: `training.data.codecs.gan_codec` makes damage of all grades of it, by adding it in part.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning
import torch
from auraloss.freq import MultiResolutionSTFTLoss
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from vector_quantize_pytorch import ResidualVQ

RATE = 16000
"""The codec works at this rate in Hz."""
TYPICAL_RMS = 0.05
"""Of speech at -26 dBFS: what the networks see is about 1."""
FOLDER = Path(os.environ.get("JSQA_GAN_CODEC", "runs/gan_codec"))
"""Where `training.train training/recipes/gan_codec.yaml --out` put the snapshots (or what `JSQA_GAN_CODEC` names)."""


class ConvNextBlock(nn.Module):
    """A depthwise convolution over time and two layers over the channels, beside the input (Liu et al. 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(channels, channels, 7, padding=3, groups=channels)
        self.pointwise = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels)
        )
        self.scale = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, channels)`, in and out."""
        spread = self.depthwise(frames.transpose(1, 2)).transpose(1, 2)
        out: Tensor = frames + self.scale * self.pointwise(spread)
        return out


class GanCodec(nn.Module):
    """Frames of two hops, ConvNeXt blocks, residual vector quantiser, the same backwards, overlap-add.

    Learned frames in place of a transform are those of WaveNeXt (Okamoto et al. 2023); the quantiser is SoundStream's
    (Zeghidour et al. 2021), whose number of stages is drawn for each batch of the training.

    Args:
        channels: Features per frame.
        encoder_blocks: Blocks before the quantiser.
        decoder_blocks: Blocks after it.
        quantizers: Stages; each costs 10 bits a frame, with a hop of 160 samples 1 kbit/s.
        code_size: Numbers per frame that are quantised.
        hop: Samples from frame to frame: 160 are 10 ms.
    """

    def __init__(
        self,
        channels: int = 256,
        encoder_blocks: int = 4,
        decoder_blocks: int = 6,
        quantizers: int = 8,
        code_size: int = 32,
        hop: int = 160,
    ) -> None:
        super().__init__()
        self.hop = hop
        self.analysis = nn.Linear(2 * hop, channels)
        self.encoder = nn.Sequential(*(ConvNextBlock(channels) for _ in range(encoder_blocks)), nn.LayerNorm(channels))
        # codebooks are running means: they can only follow codes that keep their scale
        self.narrow = nn.Sequential(nn.Linear(channels, code_size), nn.LayerNorm(code_size))
        self.quantizer = ResidualVQ(
            dim=code_size,
            codebook_size=1024,
            num_quantizers=quantizers,
            kmeans_init=True,
            threshold_ema_dead_code=2,
            quantize_dropout=True,
        )
        self.widen = nn.Linear(code_size, channels)
        self.decoder = nn.Sequential(*(ConvNextBlock(channels) for _ in range(decoder_blocks)), nn.LayerNorm(channels))
        self.synthesis = nn.Linear(channels, 2 * hop)

    def forward(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Decoded waveforms `(batch, samples)` and the quantiser's commitment loss; samples in multiples of the hop."""
        quantized, _, commitment = self.quantizer(self.encode(wav).float())
        return self.decode(quantized), commitment.mean()

    def encode(self, wav: Tensor) -> Tensor:
        """`(batch, samples)` to codes `(batch, samples // hop + 1, code_size)`."""
        frames = F.pad(wav / TYPICAL_RMS, (self.hop, self.hop)).unfold(1, 2 * self.hop, self.hop)
        encoded: Tensor = self.narrow(self.encoder(self.analysis(frames)))
        return encoded

    def decode(self, features: Tensor) -> Tensor:
        """The inverse of `encode`."""
        frames = self.synthesis(self.decoder(self.widen(features))).transpose(1, 2) * TYPICAL_RMS
        samples = (frames.shape[2] + 1) * self.hop
        return F.fold(frames, (1, samples), (1, 2 * self.hop), stride=(1, self.hop))[:, 0, 0, self.hop : -self.hop]

    @torch.inference_mode()
    def code(self, wav: Tensor, quantizers: int) -> Tensor:
        """Encode and decode a waveform `(samples,)` with only the first so many quantisers; as long as it was."""
        padded = F.pad(wav, (0, -len(wav) % self.hop))[None]
        _, indices, _ = self.quantizer(self.encode(padded))
        return self.decode(self.quantizer.get_output_from_indices(indices[..., :quantizers]))[0, : len(wav)]


class SpectralDiscriminator(nn.Module):
    """Convolutions over a complex spectrogram that tell decoded from natural speech, patch by patch (EnCodec's)."""

    def __init__(self, n_fft: int, channels: int = 16) -> None:
        super().__init__()
        self.n_fft = n_fft
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        plan = [(2, channels, (2, 1)), (channels, channels, (2, 2)), (channels, 2 * channels, (2, 1))]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(old, new, (7, 3), stride, padding=(3, 1)))
            for old, new, stride in plan
        )
        self.last = nn.Conv2d(2 * channels, 1, 3, padding=1)

    def forward(self, wav: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Opinions of the patches (high: natural), and the features of all layers."""
        spectrum = torch.stft(wav, self.n_fft, self.n_fft // 4, window=self.window, return_complex=True)  # type: ignore[arg-type]
        x, features = torch.view_as_real(spectrum).permute(0, 3, 1, 2) / TYPICAL_RMS, []
        x = x * (x.square().sum(1, keepdim=True) + 1e-2) ** -0.35  # else they would hear the loudest sounds only
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.last(x), features


class GanCodecTraining(lightning.LightningModule):
    """Spectral and waveform losses first, then discriminators (least squares) and the matching of their features, too.

    Args:
        codec: Arguments of `GanCodec`.
        learning_rate: Of AdamW, falling to a tenth over the run (cosine).
        adversarial_after: Batches before the discriminators join.
        snapshots: Every so many batches a checkpoint is kept, as a codec of its own.
    """

    def __init__(
        self,
        codec: dict[str, Any] | None = None,
        learning_rate: float = 1e-3,
        adversarial_after: int = 1000,
        snapshots: int = 1000,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.codec = GanCodec(**(codec or {}))
        self.discriminators = nn.ModuleList(SpectralDiscriminator(n_fft) for n_fft in (256, 512, 1024))
        self.spectral_loss = MultiResolutionSTFTLoss(
            fft_sizes=[128, 512, 1024, 2048],
            hop_sizes=[32, 128, 256, 512],
            win_lengths=[128, 512, 1024, 2048],
            eps=1e-4,  # of the power: what is fainter than pauses does not count
        )

    def best_checkpoint(self, path: Path) -> lightning.Callback:
        """Nothing decides here: all snapshots are kept beside `path`."""
        every = self.hparams["snapshots"] * 2  # Lightning counts the steps of both optimisers
        return ModelCheckpoint(
            path.parent,
            "codec-{step:05d}",
            save_top_k=-1,
            every_n_train_steps=every,
            save_weights_only=True,
            enable_version_counter=False,
        )

    def on_train_start(self) -> None:
        """Refuse to go on with a run of another length, whose schedule the checkpoint has."""
        schedule: Any = self.lr_schedulers()[0]  # type: ignore[index]
        if schedule.T_max != self.trainer.max_steps // 2:
            raise ValueError(f"the schedule of this run is that of `trainer.max_steps: {2 * schedule.T_max}`")

    def training_step(self, wav: Tensor, batch_index: int) -> None:
        """A step of the codec and, once they take part, one of the discriminators."""
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        of_codec, of_discriminators = optimizers
        decoded, commitment = self.codec(wav)
        decoded = decoded.float()
        spectral = self.spectral_loss(decoded[:, None], wav[:, None])
        waveform = F.l1_loss(decoded, wav) / TYPICAL_RMS
        losses = {"train/spectral": spectral, "train/waveform": waveform, "train/commitment": commitment}
        loss = 5 * spectral + 5 * waveform + commitment
        adversarial = self.trainer.fit_loop.total_batch_idx >= self.hparams["adversarial_after"]
        if adversarial:
            losses["train/fooled"], losses["train/matching"] = self._fooled(wav, decoded)
            loss = loss + 2 * losses["train/fooled"] + 20 * losses["train/matching"]
        of_codec.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(of_codec, gradient_clip_val=1.0)  # type: ignore[arg-type]  # it has all of an optimiser
        of_codec.step()
        of_discriminators.zero_grad()
        if adversarial:
            losses["train/told"] = self._told(wav, decoded.detach())
            self.manual_backward(losses["train/told"])
        of_discriminators.step()  # also without gradients, so that both sides count alike
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()
        self.log_dict(losses, prog_bar=True)

    def _told(self, natural: Tensor, decoded: Tensor) -> Tensor:
        """How badly the discriminators tell decoded waveforms from natural ones: 0.5 by guessing."""
        errors = []
        for discriminator in self.discriminators:
            (yes, _), (no, _) = discriminator(natural), discriminator(decoded)
            errors.append((yes - 1).square().mean() + no.square().mean())
        return torch.stack(errors).mean()

    def _fooled(self, natural: Tensor, decoded: Tensor) -> tuple[Tensor, Tensor]:
        """How far the discriminators are from taking `decoded` for natural, by their opinions and by their features."""
        self.discriminators.requires_grad_(False)
        opinions, distances = [], []
        for discriminator in self.discriminators:
            opinion, features = discriminator(decoded)
            opinions.append((opinion - 1).square().mean())
            pairs = zip(features, discriminator(natural)[1], strict=True)
            distances += [F.l1_loss(feature, wanted) for feature, wanted in pairs]
        self.discriminators.requires_grad_(True)
        return torch.stack(opinions).mean(), torch.stack(distances).mean()

    def configure_optimizers(self) -> Any:
        """AdamW for both sides."""
        rate = self.hparams["learning_rate"]
        sides = [torch.optim.AdamW(part.parameters(), rate, (0.8, 0.99)) for part in (self.codec, self.discriminators)]
        if self.trainer.max_steps < 0:
            raise ValueError("`trainer.max_steps` must say how long the codec trains: two steps for each batch")
        steps = self.trainer.max_steps // 2
        return sides, [torch.optim.lr_scheduler.CosineAnnealingLR(s, steps, rate / 10) for s in sides]


@lru_cache
def read_snapshots(folder: Path) -> dict[str, GanCodec]:
    """All codecs of a finished training run by the names of their files, the earliest first.

    Raises:
        FileNotFoundError: If there are none.
    """
    paths = sorted(folder.glob("codec-*.ckpt"))
    if not paths:
        raise FileNotFoundError(
            f"no codecs in {folder}: train them with `python -m training.train training/recipes/gan_codec.yaml "
            f"--out {folder}`"
        )
    modules = [GanCodecTraining.load_from_checkpoint(path, map_location="cpu", weights_only=True) for path in paths]
    return {path.stem: module.codec.eval() for path, module in zip(paths, modules, strict=True)}
