"""Writes every file of the shipped model directory that is not a weight: model_index.json, the component configs, genvid.json.

Why one script: the shapes are decided here once; the trainers build their modules from these files and the engine is built against them.
Surprises: the scheduler is UniPC only in name. With solver_order 1 and the corrector switched off at every step (disable_corrector lists the
steps 0..999) its update is x + (s' - s) v, plain Euler on the straight line, on UniPC's own sigma table with shift 3, whose timesteps are whole numbers.
FlowMatchEuler is not used because a shift in its config is applied twice. latents_mean/std are 0/1 until the VAE is trained and measured.

    python3 configs.py MODEL_DIR [--weights trained|random] [--steps 8 --guidance 1.0]
"""
import argparse
import json
import os

import words

TRANSFORMER = {"_class_name": "WanTransformer3DModel", "_diffusers_version": "0.37.0", "patch_size": [1, 2, 2], "num_attention_heads": 4,
               "attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "text_dim": 192, "freq_dim": 256, "ffn_dim": 1024, "num_layers": 12,
               "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": 1e-6, "image_dim": None, "added_kv_proj_dim": None,
               "rope_max_seq_len": 1024, "pos_embed_seq_len": None}
VAE = {"_class_name": "AutoencoderKLWan", "_diffusers_version": "0.37.0", "base_dim": 16, "decoder_base_dim": 32, "z_dim": 16, "dim_mult": [1, 1, 2, 4],
       "num_res_blocks": 1, "attn_scales": [], "temperal_downsample": [False, True, True], "dropout": 0.0, "is_residual": False, "in_channels": 3,
       "out_channels": 3, "patch_size": None, "scale_factor_spatial": 8, "scale_factor_temporal": 4, "latents_mean": [0.0] * 16, "latents_std": [1.0] * 16}
TEXT = {"architectures": ["UMT5EncoderModel"], "model_type": "umt5", "d_model": 192, "num_layers": 3, "num_heads": 3, "d_kv": 64, "d_ff": 512,
        "feed_forward_proj": "gated-gelu", "vocab_size": 2048, "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6, "dropout_rate": 0.0, "initializer_factor": 1.0, "is_encoder_decoder": True, "use_cache": False,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "num_decoder_layers": 3, "tie_word_embeddings": False,
        "scalable_attention": True, "classifier_dropout": 0.0, "dense_act_fn": "gelu_new", "is_gated_act": True, "torch_dtype": "bfloat16"}
SCHEDULER = {"_class_name": "UniPCMultistepScheduler", "_diffusers_version": "0.37.0", "num_train_timesteps": 1000, "prediction_type": "flow_prediction",
             "use_flow_sigmas": True, "flow_shift": 3.0, "solver_order": 1, "solver_type": "bh2", "predict_x0": True, "lower_order_final": True,
             "disable_corrector": list(range(1000)), "final_sigmas_type": "zero", "timestep_spacing": "linspace", "steps_offset": 0, "solver_p": None,
             "thresholding": False, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear", "trained_betas": None,
             "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False, "use_dynamic_shifting": False,
             "rescale_betas_zero_snr": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
INDEX = {"_class_name": "WanPipeline", "_diffusers_version": "0.37.0", "boundary_ratio": None, "expand_timesteps": True,
         "scheduler": ["diffusers", "UniPCMultistepScheduler"], "text_encoder": ["transformers", "UMT5EncoderModel"],
         "tokenizer": ["transformers", "PreTrainedTokenizerFast"], "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [None, None],
         "vae": ["diffusers", "AutoencoderKLWan"]}
SIDECAR = {"text_length": 64, "width": 256, "height": 144, "frames": 33, "fps": 12, "steps": 8, "guidance": 1.0, "shift": 3.0, "known_first_frame": True,
           "causal": {"block": 3, "window": 9, "sink": 0, "steps": 4}, "preview": None}


def put(folder, name, value):
    """value: what json can hold. One field a line, so that a change reads well in a diff; short lists stay on their line."""
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write("{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n}\n")


def write(folder, weights="random", vae=None, tier=132, **sidecar):
    """folder: model directory. tier: actors that it was taught. vae: fields that replace VAE's (the measured latents_mean and latents_std). sidecar: fields of genvid.json that differ."""
    put(folder, "model_index.json", INDEX)
    put(folder, "transformer/config.json", TRANSFORMER)
    put(folder, "vae/config.json", {**VAE, **(vae or {})})
    put(folder, "text_encoder/config.json", TEXT)
    put(folder, "scheduler/scheduler_config.json", SCHEDULER)
    put(folder, "genvid.json", {**SIDECAR, **sidecar, "words": words.vocabulary(tier), "small_words": words.small_words(tier), "synonyms": words.synonyms(tier),
                                  "slots": words.slots(tier), "weights": weights})


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("folder")
    a.add_argument("--weights", default="random", choices=("trained", "random"))
    a = a.parse_args()
    write(a.folder, a.weights)
