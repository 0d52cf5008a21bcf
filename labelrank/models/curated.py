"""Recommended checkpoints, described without a request to the Hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curated:
    """A recommended checkpoint, as it is shown without a request to the Hub."""

    name: str
    title: str
    good_for: str
    model_type: str
    media: str
    """image or clip."""
    num_parameters: int
    hidden_dim: int
    size_bytes: int
    licence: str
    pretrained_on: str


def _on_hub(name: str, title: str, good_for: str, family: str, parameters: int, hidden_dim: int, data: str) -> Curated:
    is_video = family == "videomae"
    return Curated(
        name=name,
        title=title,
        good_for=good_for,
        model_type=family,
        media="clip" if is_video else "image",
        num_parameters=parameters,
        hidden_dim=hidden_dim,
        size_bytes=4 * parameters,
        licence="cc-by-nc-4.0" if is_video else "apache-2.0",
        pretrained_on=data,
    )


CURATED = (
    Curated(
        "mae-tiny-digits",
        "Tiny MAE of digits",
        "Trying the whole path in seconds, on the digits it was trained on. Not for other images.",
        model_type="vit_mae",
        media="image",
        num_parameters=522_256,
        hidden_dim=96,
        size_bytes=2_099_288,
        licence="apache-2.0",
        pretrained_on="digits",
    ),
    Curated(
        "videomae-tiny-moving-digits",
        "Tiny VideoMAE of moving digits",
        "Trying the whole path with videos in a minute, on the moving digits it was trained on. Not for other videos.",
        model_type="videomae",
        media="clip",
        num_parameters=565_344,
        hidden_dim=96,
        size_bytes=2_270_960,
        licence="apache-2.0",
        pretrained_on="moving-digits",
    ),
    _on_hub(
        "facebook/vit-mae-base",
        "ViT-MAE base",
        "Images of any kind: the masked autoencoder to start with.",
        "vit_mae",
        111_907_840,
        768,
        "ImageNet-1k, without labels",
    ),
    _on_hub(
        "facebook/vit-mae-large",
        "ViT-MAE large",
        "Images of any kind, finer features at about three times the time.",
        "vit_mae",
        329_541_888,
        1024,
        "ImageNet-1k, without labels",
    ),
    _on_hub(
        "google/vit-base-patch16-224-in21k",
        "Supervised ViT base",
        "The control: the same architecture trained with labels, to see what the masked autoencoder adds.",
        "vit",
        86_389_248,
        768,
        "ImageNet-21k, with labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-small-finetuned-kinetics",
        "VideoMAE small, Kinetics-400",
        "Videos of actions on a computer without a GPU: the fastest here.",
        "videomae",
        22_033_936,
        384,
        "Kinetics-400, fine-tuned with labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-base",
        "VideoMAE base",
        "Videos of any kind: pre-trained without labels, the one to start with.",
        "videomae",
        94_210_944,
        768,
        "Kinetics-400, without labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-base-finetuned-kinetics",
        "VideoMAE base, Kinetics-400",
        "Videos of people, sports and everyday actions.",
        "videomae",
        86_534_800,
        768,
        "Kinetics-400, fine-tuned with labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-base-finetuned-ssv2",
        "VideoMAE base, Something-Something v2",
        "Videos where the motion decides, not the scene: hands that push, lift, cover.",
        "videomae",
        86_361_006,
        768,
        "Something-Something v2, fine-tuned with labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-large",
        "VideoMAE large",
        "Videos of any kind, finer features at about three times the time; best with a GPU.",
        "videomae",
        342_996_992,
        1024,
        "Kinetics-400, without labels",
    ),
    _on_hub(
        "MCG-NJU/videomae-large-finetuned-kinetics",
        "VideoMAE large, Kinetics-400",
        "Videos of people, sports and everyday actions, when there is a GPU.",
        "videomae",
        304_270_736,
        1024,
        "Kinetics-400, fine-tuned with labels",
    ),
)
"""Sizes are those of float32 weights, from the architecture; the licences and data, from the model cards."""

EMBEDDED = {one.name: one.good_for for one in CURATED if "/" not in one.name}
"""Embedded checkpoint -> what it is good for."""
