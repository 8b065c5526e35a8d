"""Golden of the Wan 2.1 VAE (diffusers AutoencoderKLWan), and of the shipped family's (vae_shipped.py).

Widths 16/32/64/64, one residual block a level. (vae_shipped: encoder base 16, decoder base 32, levels [1,1,2,4].)
The chunks of encode and decode are slices: chunk 0 is frame 0; chunk k is latent frame k, pixel frames 4k-3..4k.
Encoding 1, 5, 9 frames and decoding 1..4 latent frames give the first slices of the longer runs (checked here, 1e-5).

io.safetensors
    enc.frames       not stored: fill("input.frames", [3, 17, 32, 48], scale 1)     (shipped: 9 frames)
    enc.moments      [32, 5, 4, 6]     after quant_conv: mean 0..15, log variance 16..31
    enc.latent       [16, 5, 4, 6]     (mean - latents_mean) / latents_std
    dec.latent       [16, 5, 4, 6]     normalised: fill("input.latent", ..., scale sqrt 3)    (shipped: 3 frames)
    dec.z            [16, 5, 4, 6]     latent * latents_std + latents_mean, before post_quant_conv
    dec.frames       [3, 17, 32, 48]   before the clamp
  vae only, a smaller picture, activations stage by stage of chunk 0 and of chunk 1 (c1: those under 32 KB):
    trace.enc.frames not stored: fill("trace.frames", [3, 5, 16, 24], scale 1)
    trace.dec.z      [16, 2, 2, 3]     before post_quant_conv
    trace.enc.c<k>.{conv_in, down0..6, mid, out}     down: the flat list res, down2d, res, down3d, res, down3d, res
    trace.dec.c<k>.{conv_in, mid.res0, mid.attn, mid, up0..3, out}   up<i>: with its upsampler; mid.*: c0
  of chunk k alone, [C, frames, rows, columns]; enc out is before quant_conv.
    bf16_error.{enc.moments, dec.frames}, bf16_psnr.dec.frames     the whole VAE in bfloat16
"""
import torch
from diffusers import AutoencoderKLWan

from common import Tap, build, default_rule, error, filled, folder, psnr, write_io

CONFIGS = {
    "vae": dict(base_dim=16, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=1, attn_scales=[],
                temperal_downsample=[False, True, True], dropout=0.0),
    "vae_shipped": dict(base_dim=16, decoder_base_dim=32, z_dim=16, dim_mult=[1, 1, 2, 4], num_res_blocks=1,
                        attn_scales=[], temperal_downsample=[False, True, True], dropout=0.0),
}


def rule(name, shape):
    scale, offset = default_rule(name, shape)
    if name == "decoder.conv_out.weight":
        scale *= 0.33
    elif ".resample." in name and name.endswith(".weight"):
        scale *= 0.8
    elif name.endswith((".conv1.weight", ".conv2.weight", ".proj.weight")) or name.endswith("conv_out.weight"):
        scale *= 1.6
    return scale, offset


def statistics(vae):
    return (torch.tensor(v, dtype=torch.float32).view(-1, 1, 1, 1) for v in
            (vae.config.latents_mean, vae.config.latents_std))


def encode(vae, frames):
    return vae.encode(frames[None].to(vae.dtype)).latent_dist.parameters[0].float()


def decode(vae, z):
    """Pixels before the clamp."""
    tap = Tap()
    tap.out(vae.decoder, "out")
    vae.decode(z[None].to(vae.dtype))
    tap.close()
    return torch.cat(tap.kept["out"], 2)[0]


def trace(vae, frames, z):
    out = {}
    tap = Tap()
    enc, dec = vae.encoder, vae.decoder
    tap.out(enc.conv_in, "enc.conv_in")
    for i, block in enumerate(enc.down_blocks):
        tap.out(block, "enc.down%d" % i)
    tap.out(enc.mid_block, "enc.mid")
    tap.out(enc, "enc.out")
    tap.out(dec.conv_in, "dec.conv_in")
    tap.out(dec.mid_block.resnets[0], "dec.mid.res0")
    tap.out(dec.mid_block.attentions[0], "dec.mid.attn")
    tap.out(dec.mid_block, "dec.mid")
    for i, block in enumerate(dec.up_blocks):
        tap.out(block, "dec.up%d" % i)
    tap.out(dec, "dec.out")
    encode(vae, frames)
    vae.decode(z[None])
    tap.close()
    for key, chunks in tap.kept.items():
        side, stage = key.split(".", 1)
        for k, x in enumerate(chunks):
            if k == 0 or (x.numel() * 4 < 32768 and not stage.startswith("mid.")):
                out["trace.%s.c%d.%s" % (side, k, stage)] = x[0]
    return out


def make(case):
    path = folder(case)
    full, half = build(AutoencoderKLWan(**CONFIGS[case]), rule, path)
    mean, std = statistics(full)
    latent_frames = 5 if case == "vae" else 3
    frames = filled("input.frames", (3, 4 * latent_frames - 3, 32, 48))
    latent = filled("input.latent", (16, latent_frames, 4, 6), 3.0 ** 0.5)

    moments = encode(full, frames)
    z = latent * std + mean
    pixels = decode(full, z)
    for n in range(1, latent_frames):
        assert error(encode(full, frames[:, :4 * n - 3]), moments[:, :n]) < 1e-5
        assert error(decode(full, z[:, :n]), pixels[:, :4 * n - 3]) < 1e-5
    io = {"enc.moments": moments, "enc.latent": (moments[:16] - mean) / std, "dec.latent": latent, "dec.z": z,
          "dec.frames": pixels}
    if case == "vae":
        small = filled("trace.z", (16, 2, 2, 3), 3.0 ** 0.5)
        io["trace.dec.z"] = small
        io.update(trace(full, filled("trace.frames", (3, 5, 16, 24)), small))
    low = decode(half, z)
    io["bf16_error.enc.moments"] = error(encode(half, frames), moments)
    io["bf16_error.dec.frames"] = error(low, pixels)
    io["bf16_psnr.dec.frames"] = psnr(low, pixels)
    write_io(path, io)


if __name__ == "__main__":
    make("vae")
