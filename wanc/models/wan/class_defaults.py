"""The keys of each class's configuration that wanc does not read, with the value that the class takes for each.

Data, compared with the installed classes by a test. A key that stands at its default changes nothing. Any other value
would change what the model computes and wanc would not, so it is a doubt (`doubts.py`), whatever the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Defaults = Mapping[str, Any]

# What diffusion schedulers have in common. With flow sigmas the betas are not used, and still nobody changes them.
_BETAS: Defaults = {
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "solver_order": 2,
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
    "lower_order_final": True,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "timestep_spacing": "linspace",
    "steps_offset": 0,
    "final_sigmas_type": "zero",
    "rescale_betas_zero_snr": False,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
DEFAULTS: Mapping[str, Defaults] = {
    "WanPipeline": {"expand_timesteps": False},
    "WanTransformer3DModel": {"image_dim": None, "added_kv_proj_dim": None},
    "AutoencoderKLWan": {"is_residual": False, "patch_size": None},
    "UMT5EncoderModel": {"dense_act_fn": "gelu_new", "is_gated_act": True, "is_decoder": False},
    "UniPCMultistepScheduler": {
        **_BETAS,
        "predict_x0": True,
        "solver_type": "bh2",
        "disable_corrector": [],
        "solver_p": None,
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    },
    "DPMSolverMultistepScheduler": {
        **_BETAS,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "lambda_min_clipped": float("-inf"),
        "variance_type": None,
    },
    "FlowMatchEulerDiscreteScheduler": {
        "use_dynamic_shifting": False,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "invert_sigmas": False,
        "shift_terminal": None,
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "time_shift_type": "exponential",
        "stochastic_sampling": False,
    },
    # Of tokenizer_config.json; what makes ids of a text is tokenizer.json.
    "tokenizer": {
        "padding_side": "right",
        "truncation_side": "right",
        "split_special_tokens": False,
        "do_lower_case": False,
        "add_bos_token": False,
        "add_eos_token": True,
    },
}
# What says how a model is trained, how another part of it works, or what it is called: no value changes a video.
WITHOUT_EFFECT: Mapping[str, frozenset[str]] = {
    "AutoencoderKLWan": frozenset({"dropout"}),
    "UMT5EncoderModel": frozenset({
        "architectures", "classifier_dropout", "decoder_start_token_id", "dropout_rate", "dtype", "finetuning_task",
        "gradient_checkpointing", "initializer_factor", "is_encoder_decoder", "model_type", "n_positions",
        "num_decoder_layers", "output_past", "pad_token_id", "scalable_attention", "task_specific_params",
        "tie_word_embeddings", "tokenizer_class", "torch_dtype", "transformers_version", "use_cache",
    }),
    "tokenizer": frozenset({
        "add_prefix_space", "backend", "clean_up_tokenization_spaces", "is_local", "legacy", "max_length",
        "name_or_path", "pad_to_multiple_of", "pad_token_type_id", "processor_class", "sp_model_kwargs",
        "spaces_between_special_tokens", "special_tokens_map_file", "stride", "tokenizer_file", "truncation_strategy",
        "use_fast", "verbose",
    }),
}  # fmt: skip
