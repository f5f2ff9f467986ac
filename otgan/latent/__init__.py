"""Images to codes and back, and the transport map between."""

from otgan.latent._training import AutoencoderReport, AutoencoderState
from otgan.latent.autoencoder import Autoencoder
from otgan.latent.coder import Coder, Pair
from otgan.latent.pipeline import LatentOTGAN

__all__ = ["Autoencoder", "AutoencoderReport", "AutoencoderState", "Coder", "LatentOTGAN", "Pair"]
