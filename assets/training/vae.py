"""AutoencoderKLWan for training: one parallel-in-time pass with the tensor names of diffusers.

The engine and diffusers run this VAE in chunks (frame 0, then four frames at a time) with caches. The chunked run equals one pass over the whole clip:
    every 3x3x3 convolution pads two zero frames in front and none behind;
    down in time: frame 0 passes, the stride-2 convolution runs over all frames without padding and its output is appended;
    up in time:   latent frame 0 skips the convolution, which runs over frames 1.. with zero history; the doubled frames are appended.
So training needs no loop over frames. check_vae.py proves chunked == parallel against diffusers.

Surprises: the norm divides by the length of the channel vector (at least 1e-12) and multiplies by sqrt(C); the second half of a doubled
frame's channels is the later frame; the down convolution pads right and bottom only. Widths come from the config; nothing is hard-coded.
"""
import torch
import torch.nn as nn
import torch.nn.functional as F


class Norm(nn.Module):
    def __init__(self, width, dims=3):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *([1] * dims)))
        self.scale = width ** 0.5

    def forward(self, x):
        length = x.float().pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        return (x * (self.scale / length).to(x.dtype)) * self.gamma.to(x.dtype)


class Causal(nn.Conv3d):
    """Conv3d that pads space on both sides and time in front only. x [B, C, T, H, W].
    FORM is for speed alone: "conv3d" as it is written; "fold": one 2-D convolution whose outputs are the three time taps, then added with a shift, which
    fills the tensor cores better at 16 and 32 channels; "taps": three 2-D convolutions."""
    FORM = "conv3d"

    def __init__(self, cin, cout, kernel, stride=1, past=True):
        k = (kernel,) * 3 if isinstance(kernel, int) else kernel
        super().__init__(cin, cout, k, stride=stride, padding=0)
        self.space, self.past = (k[1] // 2, k[2] // 2), (k[0] - 1 if past else 0)

    def forward(self, x):
        if self.FORM != "conv3d" and self.kernel_size == (3, 3, 3):
            return self._flat(x)
        if self.past:
            x = F.pad(x, (0, 0, 0, 0, self.past, 0))
        return F.conv3d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), self.stride, (0, *self.space))


    def _flat(self, x):
        B, C, T, H, W = x.shape
        y, w = x.transpose(1, 2).reshape(B * T, C, H, W), self.weight.to(x.dtype)
        if self.FORM == "fold":
            z = F.conv2d(y, w.permute(2, 0, 1, 3, 4).reshape(-1, C, 3, 3), padding=1)
            z = z.reshape(B, T, 3, -1, H, W).unbind(2)
        else:
            z = [F.conv2d(y, w[:, :, k], padding=1).reshape(B, T, -1, H, W) for k in range(3)]
        out = z[2] + self.bias.to(x.dtype).view(-1, 1, 1)
        if T > 1:
            out = out + F.pad(z[1][:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
        if T > 2:
            out = out + F.pad(z[0][:, :-2], (0, 0, 0, 0, 0, 0, 2, 0))
        return out.transpose(1, 2)


class Frames(nn.Conv2d):
    """Conv2d run on every frame of [B, C, T, H, W]."""

    def forward(self, x):
        return F.conv3d(x, self.weight.to(x.dtype)[:, :, None], self.bias.to(x.dtype), (1, *self.stride), (0, *self.padding))


class Res(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.norm1, self.conv1 = Norm(cin), Causal(cin, cout, 3)
        self.norm2, self.conv2 = Norm(cout), Causal(cout, cout, 3)
        if cin != cout:
            self.conv_shortcut = Causal(cin, cout, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.to_qkv, self.proj = Norm(width, 2), nn.Conv2d(width, width * 3, 1), nn.Conv2d(width, width, 1)

    def forward(self, x):
        B, C, T, H, W = x.shape
        y = self.norm(x.transpose(1, 2).reshape(B * T, C, H, W))
        qkv = F.conv2d(y, self.to_qkv.weight.to(y.dtype), self.to_qkv.bias.to(y.dtype)).flatten(2).transpose(1, 2)
        q, k, v = (t[:, None].contiguous() for t in qkv.chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(B * T, C, H, W)
        y = F.conv2d(y, self.proj.weight.to(y.dtype), self.proj.bias.to(y.dtype))
        return x + y.reshape(B, T, C, H, W).transpose(1, 2)


class Down(nn.Module):
    def __init__(self, width, time):
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), Frames(width, width, 3, stride=2))
        if time:
            self.time_conv = Causal(width, width, (3, 1, 1), stride=(2, 1, 1), past=False)

    def forward(self, x):
        x = self.resample[1](F.pad(x, (0, 1, 0, 1)))
        if hasattr(self, "time_conv") and x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], self.time_conv(x)], 2)
        return x


class Up(nn.Module):
    def __init__(self, width, time):
        super().__init__()
        self.resample = nn.Sequential(nn.Identity(), Frames(width, width // 2, 3, padding=1))
        if time:
            self.time_conv = Causal(width, width * 2, (3, 1, 1))

    def forward(self, x):
        if hasattr(self, "time_conv") and x.shape[2] > 1:
            B, C, T, H, W = x.shape
            y = self.time_conv(x[:, :, 1:])
            y = torch.stack([y[:, :C], y[:, C:]], 3).reshape(B, C, 2 * (T - 1), H, W)
            x = torch.cat([x[:, :, :1], y], 2)
        x = x.repeat_interleave(2, 3).repeat_interleave(2, 4)
        return self.resample[1](x)


class Mid(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width)])
        self.resnets = nn.ModuleList([Res(width, width), Res(width, width)])

    def forward(self, x):
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        dims = [c["base_dim"] * m for m in [1] + c["dim_mult"]]
        self.conv_in, blocks = Causal(c["in_channels"], dims[0], 3), []
        for i, (a, b) in enumerate(zip(dims[:-1], dims[1:])):
            for _ in range(c["num_res_blocks"]):
                blocks.append(Res(a, b))
                a = b
            if i < len(dims) - 2:
                blocks.append(Down(b, c["temperal_downsample"][i]))
        self.down_blocks, self.mid_block = nn.ModuleList(blocks), Mid(dims[-1])
        self.norm_out, self.conv_out = Norm(dims[-1]), Causal(dims[-1], c["z_dim"] * 2, 3)

    def forward(self, x):
        x = self.conv_in(x)
        for b in self.down_blocks:
            x = b(x)
        return self.conv_out(F.silu(self.norm_out(self.mid_block(x))))


class Stage(nn.Module):
    def __init__(self, a, b, n, up):
        super().__init__()
        self.resnets = nn.ModuleList([Res(a if i == 0 else b, b) for i in range(n + 1)])
        if up is not None:
            self.upsamplers = nn.ModuleList([Up(b, up)])

    def forward(self, x):
        for r in self.resnets:
            x = r(x)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        mult, ups = c["dim_mult"][::-1], c["temperal_downsample"][::-1]
        dims = [c["decoder_base_dim"] * m for m in [mult[0]] + mult]
        self.conv_in, self.mid_block, stages = Causal(c["z_dim"], dims[0], 3), Mid(dims[0]), []
        for i, (a, b) in enumerate(zip(dims[:-1], dims[1:])):
            stages.append(Stage(a if i == 0 else a // 2, b, c["num_res_blocks"], ups[i] if i < len(dims) - 2 else None))
        self.up_blocks = nn.ModuleList(stages)
        self.norm_out, self.conv_out = Norm(dims[-1]), Causal(dims[-1], c["out_channels"], 3)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for s in self.up_blocks:
            x = s(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class VAE(nn.Module):
    """config: the dict of vae/config.json. Public: encode, decode, normalise, denormalise."""

    def __init__(self, config):
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        z = config["z_dim"]
        self.quant_conv, self.post_quant_conv = Causal(2 * z, 2 * z, 1), Causal(z, z, 1)
        self.register_buffer("mean", torch.tensor(config["latents_mean"]).view(1, z, 1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["latents_std"]).view(1, z, 1, 1, 1), persistent=False)

    def encode(self, x):
        """x [B, 3, 1+4n, H, W] in -1..1, H and W multiples of 8. Returns mean and log variance, each [B, 16, 1+n, H/8, W/8], raw (not normalised)."""
        return self.quant_conv(self.encoder(x)).chunk(2, 1)

    def decode(self, z):
        """z [B, 16, 1+n, h, w], raw. Returns [B, 3, 1+4n, 8h, 8w], not clamped."""
        return self.decoder(self.post_quant_conv(z))

    def normalise(self, z):
        return (z - self.mean) / self.std

    def denormalise(self, z):
        return z * self.std + self.mean
