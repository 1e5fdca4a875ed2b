"""Bad recipes and bad checkpoints: all that is said, the exit code, and nothing half-written."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest

from tests.checkpoints import write_checkpoint

from .bad_input import (
    QUANTISED,
    RECIPE,
    Case,
    answer,
    both,
    cut,
    edit,
    remove,
    rewrite_json,
    safetensors,
    set_json,
    write,
)

BUILD = "build recipe.yaml"
HIGH, LOW = "model/transformer", "model/transformer_2"
INDEX = f"{HIGH}/diffusion_pytorch_model.safetensors.index.json"
SHARD = f"{HIGH}/diffusion_pytorch_model-00002-of-00003.safetensors"
VAE = "model/vae/diffusion_pytorch_model.safetensors"

ORIGINAL = {
    "_class_name": "WanModel",
    "model_type": "t2v",
    "dim": 24,
    "num_heads": 2,
    "num_layers": 1,
    "ffn_dim": 32,
    "freq_dim": 16,
    "in_dim": 16,
    "out_dim": 16,
    "eps": 1e-6,
    "text_len": 16,
    "text_dim": 16,
}

INT8 = write("recipe.yaml", QUANTISED)

CASES: dict[str, Case] = {
    # the recipe's file
    "no such recipe": Case(
        "build absent.yaml", code=2, err="error: absent.yaml: there is no file absent.yaml\nhint: check the path\n"
    ),
    "a folder": Case(
        "build model",
        code=2,
        err="error: model: model is a directory, not a recipe\nhint: name the recipe in it, such as recipe.yaml\n",
    ),
    "no text at all": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:1:1: the recipe is empty\n"
        "hint: a recipe is a mapping that begins with `wanc: 1`; `wanc recipe new` writes one\n",
        broken=write("recipe.yaml", ""),
    ),
    "comments only": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:1:1: the recipe is empty\n"
        "hint: a recipe is a mapping that begins with `wanc: 1`; `wanc recipe new` writes one\n",
        broken=write("recipe.yaml", "# nothing\n"),
    ),
    "a list": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:1:1: the recipe is not a mapping\n"
        "hint: a recipe is a mapping that begins with `wanc: 1`; `wanc recipe new` writes one\n",
        broken=write("recipe.yaml", "- wanc: 1\n"),
    ),
    "not UTF-8": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:2:10: the byte 0xe9 is not UTF-8 text\nhint: save it as UTF-8\n",
        broken=write("recipe.yaml", b"wanc: 1\nname: caf\xe9\n"),
    ),
    "UTF-16": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:1:1: the file is UTF-16 text\nhint: save it as UTF-8\n",
        broken=write("recipe.yaml", RECIPE.encode("utf-16")),
    ),
    "a NUL": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:2:8: the character U+0000 is not allowed in YAML\n"
        "hint: delete it; is this the right file, saved as UTF-8 text?\n",
        broken=write("recipe.yaml", "wanc: 1\nname: a\0b\n"),
    ),
    "no YAML": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:2:5: not valid YAML: expected ',' or ']', but got ':' (while parsing a "
        "flow sequence, begun in line 1)\n"
        "hint: close the bracket, and put a comma between items\n",
        broken=write("recipe.yaml", "wanc: [1\nname: a\n"),
    ),
    "a tag": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:2:7: tags such as !!python/name:os.system are not accepted\n"
        "hint: a recipe is plain data; put quotes around text that begins with '!'\n",
        broken=edit("name: tiny", "name: !!python/name:os.system tiny"),
    ),
    "too large": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:1:1: the file is larger than 1,048,576 bytes\n"
        "hint: a recipe is a few kilobytes of settings; is this the right file?\n",
        broken=write("recipe.yaml", RECIPE + "#" * 2**20),
    ),
    # its keys and values
    "unknown key": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:8:3: sampling has no key stesp\nhint: did you mean steps?\n",
        broken=edit("steps: 4", "stesp: 4"),
    ),
    "duplicate key": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:9:3: the key steps stands twice in one mapping\n"
        "hint: it stands first at recipe.yaml:8:3; keep one of them\n",
        broken=edit("steps: 4", "steps: 4\n  steps: 8"),
    ),
    "wrong type": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:8:10: sampling.steps has to be a whole number, not the text '4'\nhint: write 4\n",
        broken=edit("steps: 4", 'steps: "4"'),
    ),
    "several faults": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:7:3: sampling has no key stesp\n"
        "  also recipe.yaml:1:1: name is missing (The bundle's name.)\n"
        "hint: did you mean steps?\n",
        broken=both(edit("steps: 4", "stesp: 4"), edit("name: tiny\n", "")),
    ),
    "illegal frames": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:6:49: shapes.0.frames: 80 is not 4n + 1: no number of latent frames "
        "decodes to it, because the first makes one frame and each later one four\n"
        "hint: the nearest are 77 and 81\n",
        broken=edit("frames: 5", "frames: 80"),
    ),
    "illegal size": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:6:37: shapes.0.width: 854 is not a multiple of 16: 6 pixels would be "
        "left over, because the VAE makes one point of 8 x 8 pixels, and the denoiser one token of "
        "2 x 2 points\n"
        "hint: the nearest are 848 and 864\n",
        broken=edit("width: 48", "width: 854"),
    ),
    "not built yet": Case(
        f"{BUILD} --set runtime.offload={{experts:swap}}",
        code=2,
        err="error: --set runtime.offload={experts:swap}: runtime.offload is not built yet; today runtime takes: "
        "threads, decode, budgets, kv_cache\n",
    ),
    "wrong --set": Case(
        f"{BUILD} --set sampling.steps=many",
        code=2,
        err="error: --set sampling.steps=many: sampling.steps has to be a whole number, not the text many\n"
        "hint: The number of denoising steps, evenly spaced before the shift.\n",
    ),
    "extends nothing": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:3:10: there is no file absent.yaml\nhint: check the path\n",
        broken=edit("name: tiny", "name: tiny\nextends: absent.yaml"),
    ),
    # quantisation
    "no file of prompts": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:13:24: the prompts cannot be read\n"
        "caused by: DIR/prompts.txt: there is no file DIR/prompts.txt\n"
        "hint: check the path\n",
        broken=INT8,
    ),
    "a folder for prompts": Case(
        f"{BUILD} --set quantize.calibrate.prompts=model",
        code=2,
        err="error: --set quantize.calibrate.prompts=model: the prompts cannot be read\n"
        "caused by: DIR/model: DIR/model is a directory, not a list of prompts\n"
        "hint: name the list of prompts in it, such as prompts.txt\n",
        broken=INT8,
    ),
    "no prompt in it": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:13:24: the prompts cannot be read\n"
        "caused by: DIR/prompts.txt: it holds no prompt\n"
        "hint: write a prompt in each line\n",
        broken=both(INT8, write("prompts.txt", "# A red circle moves up.\n\n")),
    ),
    "prompts in another encoding": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:13:24: the prompts cannot be read\n"
        "caused by: DIR/prompts.txt:2:6: the byte 0xe9 is not UTF-8 text\n"
        "hint: save it as UTF-8\n",
        broken=both(INT8, write("prompts.txt", b"A cup\nA caf\xe9\n")),
    ),
    "too many prompts": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:13:24: the prompts cannot be read\n"
        "caused by: DIR/prompts.txt:1:1: the file is larger than 1,048,576 bytes\n"
        "hint: a list of prompts is a few kilobytes of text, a prompt in each line; is this the right file?\n",
        broken=both(INT8, write("prompts.txt", "A cup\n" * 2**18)),
    ),
    "quantised without prompts": Case(
        f"{BUILD} --set quantize.scheme=int8",
        code=2,
        err="error: --set quantize.scheme=int8: quantize.calibrate.prompts: int8 is measured on videos of your "
        "prompts, and none are given\n"
        "hint: add a line such as `calibrate: {prompts: prompts.txt}`, a text file with a prompt in each line\n",
    ),
    "prompts for nothing": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:13:14: quantize.calibrate: it has no effect while scheme is none\n"
        "hint: choose a scheme, or remove it; `quantize: null` takes away all that is inherited\n",
        broken=both(INT8, edit("scheme: int8", "scheme: none")),
    ),
    "two rules of what stays in float": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:14:54: quantize.keep.sensitivity.int8_share: max_drop_db and int8_share exclude "
        "each other\n"
        "hint: remove one of them; `max_drop_db: null` takes away an inherited one\n",
        broken=write("recipe.yaml", f"{QUANTISED}  keep: {{sensitivity: {{max_drop_db: 0.5, int8_share: 0.9}}}}\n"),
    ),
    "smoothing of what is not rounded": Case(
        f"{BUILD} --set quantize.scheme=int8-weight --set quantize.smooth.alpha=0.6",
        code=2,
        err="error: --set quantize.smooth.alpha=0.6: quantize.smooth: int8-weight leaves activations in float: "
        "there is nothing to smooth\n"
        "hint: remove it; `smooth: null` takes away an inherited one\n",
        broken=INT8,
    ),
    "fp8 on a CPU": Case(
        f"{BUILD} --set quantize.scheme=fp8",
        code=2,
        err="error: --set quantize.scheme=fp8: quantize.scheme: onnxruntime has no fp8 on CPUs\n"
        "hint: set quantize.scheme to int8, or quantize.emulate to true for its accuracy without its speed\n",
        broken=INT8,
    ),
    "ranges of each input in OpenVINO": Case(
        f"{BUILD} --set quantize.scheme=int8-dynamic --set engine.kind=openvino",
        code=2,
        err="error: --set quantize.scheme=int8-dynamic: quantize.scheme: openvino has no kernels that round each input "
        "by its own range\n"
        "hint: set engine.kind to onnxruntime, or quantize.scheme to int8\n",
        broken=INT8,
    ),
    "quantised and merged": Case(
        f"{BUILD} --set fuse.passes=[merge-projections]",
        code=2,
        err="error: --set fuse.passes=[merge-projections]: fuse.passes.0: merged projections cannot be "
        "quantised so far\n"
        "hint: remove merge-projections, or set quantize.scheme to none\n",
        broken=INT8,
    ),
    "training for a scheme that is not trained": Case(
        f"{BUILD} --set quantize.scheme=int8-dynamic --set quantize.method=qat",
        code=2,
        err="error: --set quantize.method=qat: quantize.method: there is no training for int8-dynamic\n"
        "hint: set quantize.scheme to int8 or int4-weight, or leave method at ptq\n",
        broken=INT8,
    ),
    # settings that contradict the model, or look like a known mistake
    "swapped guidance": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:10:13: sampling.guidance: high (3) is below low (4): the first steps, "
        "which the high-noise expert makes and which settle what is to be seen, would follow the "
        "prompt less than the last ones\n"
        "hint: were they swapped? Wan's own tuples are (low, high), and diffusers' guidance_scale "
        "is high, its guidance_scale_2 low; if it is meant, add `allow: [guidance-order]` to sampling\n",
        broken=edit("{high: 4.0, low: 3.0}", "{high: 3.0, low: 4.0}"),
    ),
    "a converted checkpoint's shift": Case(
        f"{BUILD} --set sampling.shift=3.0",
        code=2,
        err="error: --set sampling.shift=3.0: sampling.shift: 3 is what converted checkpoints carry "
        "whichever the model: of 4 steps the high-noise expert would make 2 and the low-noise "
        "expert 2, against 2 and 2 at 5, which its own scheduler has\n"
        "hint: write `shift: 5.0`; if it is meant, add `allow: [flow-shift]` to sampling\n",
    ),
    "an idle expert": Case(
        f"{BUILD} --set sampling.steps=1",
        code=2,
        err="error: --set sampling.steps=1: sampling.steps: the timesteps go from 999 to 999, and none "
        "of them is for the low-noise expert, which works below 875\n"
        "hint: take more steps, another shift or another boundary; if it is meant, add `allow: "
        "[idle-expert]` to sampling\n",
    ),
    "two experts without a boundary": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:8:3: sampling.boundary: the model has two experts, and neither recipe "
        "nor checkpoint says where they change over\n"
        "hint: add a line such as `boundary: 0.875`, which is Wan2.2-T2V-A14B's\n",
        broken=set_json("model/model_index.json", boundary_ratio=None),
    ),
    "one expert of two": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:9:3: sampling.boundary: the checkpoint changes over to a second expert "
        "at 0.875, and that one is not built\n"
        "  also recipe.yaml:11:30: sampling.guidance.low: one expert makes all of the steps, with "
        "guidance.high (4): 3 would do nothing (write the same scale twice, such as {high: 4, low: 4})\n"
        "hint: leave model.components out to build all of the model's\n",
        broken=edit("source: model", "source: model\n  components: [text_encoder, denoiser_high, vae_decoder]"),
    ),
    "a boundary for one expert": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:9:13: sampling.boundary: one expert makes all of the steps: there is "
        "none to change over to\n"
        "  also recipe.yaml:11:30: sampling.guidance.low: one expert makes all of the steps, with "
        "guidance.high (4): 3 would do nothing (write the same scale twice, such as {high: 4, low: 4})\n"
        "hint: remove it, or build both experts of a model that has two\n",
        broken=both(
            one_expert := set_json("model/model_index.json", transformer_2=[None, None], boundary_ratio=None),
            edit("steps: 4", "steps: 4\n  boundary: 0.9"),
        ),
    ),
    "two scales for one expert": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:10:30: sampling.guidance.low: one expert makes all of the steps, with "
        "guidance.high (4): 3 would do nothing\n"
        "hint: write the same scale twice, such as {high: 4, low: 4}\n",
        broken=one_expert,
    ),
    "no denoiser": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:5:15: a text-to-video bundle needs the component denoiser_high\n"
        "hint: leave components out to build all of the model's\n",
        broken=edit("source: model", "source: model\n  components: [text_encoder, vae_decoder]"),
    ),
    # the checkpoint as a whole
    "no checkpoint": Case(
        f"{BUILD} --set model.source=absent",
        code=65,
        err="error: --set model.source=absent: the model cannot be read\n"
        "caused by: DIR/absent: no such folder\n"
        "hint: the diffusers layout has a model_index.json; the original layout has "
        "high_noise_model/ and low_noise_model/, or, for a single expert, a config.json beside its "
        "diffusion_pytorch_model*.safetensors\n",
    ),
    "a file for a checkpoint": Case(
        f"{BUILD} --set model.source=recipe.yaml",
        code=65,
        err="error: --set model.source=recipe.yaml: the model cannot be read\n"
        "caused by: DIR/recipe.yaml: not a folder\n"
        "hint: the diffusers layout has a model_index.json; the original layout has "
        "high_noise_model/ and low_noise_model/, or, for a single expert, a config.json beside its "
        "diffusion_pytorch_model*.safetensors\n",
    ),
    "a tokenizer's folder": Case(
        f"{BUILD} --set model.source=model/tokenizer",
        code=65,
        err="error: --set model.source=model/tokenizer: the model cannot be read\n"
        "caused by: DIR/model/tokenizer: one part of a checkpoint, whose model_index.json lies above\n"
        "hint: name the checkpoint's folder, DIR/model\n",
    ),
    "a part of a checkpoint": Case(
        f"{BUILD} --set model.source=model/vae",
        code=65,
        err="error: --set model.source=model/vae: the model cannot be read\n"
        "caused by: DIR/model/vae: one part of a checkpoint, whose model_index.json lies above\n"
        "hint: name the checkpoint's folder, DIR/model\n",
    ),
    "neither layout": Case(
        f"{BUILD} --set model.source=other",
        code=65,
        err="error: --set model.source=other: the model cannot be read\n"
        "caused by: DIR/other: not a Wan checkpoint in either layout\n"
        "hint: the diffusers layout has a model_index.json; the original layout has "
        "high_noise_model/ and low_noise_model/, or, for a single expert, a config.json beside its "
        "diffusion_pytorch_model*.safetensors\n",
        broken=write("other/notes.txt", b"nothing"),
    ),
    "pickles only": Case(
        f"{BUILD} --set model.source=pth",
        code=65,
        err="error: --set model.source=pth: the model cannot be read\n"
        "caused by: DIR/pth: not a Wan checkpoint in either layout: Wan2.1_VAE.pth is a pickle, "
        "which can run code when it is read\n"
        "hint: the diffusers layout has a model_index.json; the original layout has "
        "high_noise_model/ and low_noise_model/, or, for a single expert, a config.json beside its "
        "diffusion_pytorch_model*.safetensors\n",
        broken=write("pth/Wan2.1_VAE.pth", b"\x80\x02."),
    ),
    "a pickle among safetensors": Case(
        f"{BUILD} --set model.source=pth",
        code=65,
        err="error: --set model.source=pth: the model cannot be read\n"
        "caused by: DIR/pth/models_t5_umt5-xxl-enc-bf16.pth: a pickle, which can run code when it "
        "is read: wanc reads safetensors only\n"
        "hint: convert it once: wanc convert DIR/pth/models_t5_umt5-xxl-enc-bf16.pth\n",
        broken=both(
            write("pth/Wan2.1_VAE.pth", b"\x80\x02."),
            write("pth/models_t5_umt5-xxl-enc-bf16.pth", b"\x80\x02."),
            write("pth/diffusion_pytorch_model.safetensors", safetensors([1], 4)),
            write(
                "pth/config.json",
                json.dumps(ORIGINAL),
            ),
        ),
    ),
    "one expert's folder": Case(
        f"{BUILD} --set model.source=half",
        code=65,
        err="error: --set model.source=half: the model cannot be read\n"
        "caused by: DIR/half: has high_noise_model and no low_noise_model; the model has two experts\n"
        "hint: is the download complete? To build this expert alone, move what its folder holds out of it\n",
        broken=write("half/high_noise_model/config.json", "{}"),
    ),
    "another pipeline": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/model_index.json: this is an image-to-video model, not supported yet: "
        "its class is WanImageToVideoPipeline; wanc reads WanPipeline checkpoints\n",
        broken=set_json("model/model_index.json", _class_name="WanImageToVideoPipeline"),
    ),
    "another component": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/vae/config.json: its class is AutoencoderKL; AutoencoderKLWan was "
        "expected\n",
        broken=set_json("model/vae/config.json", _class_name="AutoencoderKL"),
    ),
    "a timestep per token": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/model_index.json: models with a timestep per token (TI2V-5B) are not "
        "built yet; today wanc compiles text-to-video\n",
        broken=set_json("model/model_index.json", expand_timesteps=True),
    ),
    "an index that is no JSON": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/model_index.json: not a readable JSON file\n"
        "caused by: Expecting value: line 1 column 17 (char 16)\n",
        broken=write("model/model_index.json", '{"_class_name": '),
    ),
    "a key twice in an index": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/model_index.json: not a readable JSON file\n"
        "caused by: duplicate key 'a'\n",
        broken=write("model/model_index.json", '{"a": 1, "a": 2}'),
    ),
    "a boundary out of range": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/model_index.json: boundary_ratio is 875; it must be null or a number "
        "above 0 and at most 1\n",
        broken=set_json("model/model_index.json", boundary_ratio=875),
    ),
    "no configuration": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer_2/config.json: missing file\n"
        "caused by: No such file or directory\n",
        broken=remove(f"{LOW}/config.json"),
    ),
    "a wrong configuration": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer_2: the weights hold no tensor named "
        "blocks.1.scale_shift_table\n",
        broken=set_json(f"{LOW}/config.json", num_layers=2),
    ),
    "no tokenizer": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/tokenizer/tokenizer.json: missing tokenizer\n",
        broken=remove("model/tokenizer/tokenizer.json"),
    ),
    # The tokenizer's library reads it in the first stage, before anything is traced.
    "a tokenizer of something else": Case(
        BUILD,
        code=65,
        err="error: DIR/model/tokenizer/tokenizer.json:1:2: not a tokenizer definition: not JSON: Expecting value\n"
        "hint: a tokenizer.json as transformers' T5TokenizerFast saves it\n",
        broken=write("model/tokenizer/tokenizer.json", "["),
    ),
    "a tokenizer without an end mark": Case(
        BUILD,
        code=65,
        err="error: DIR/model/tokenizer/tokenizer.json: not a tokenizer definition: post_processor is null: "
        "nothing adds the end mark, which every prompt has to have\n"
        "hint: a tokenizer.json as transformers' T5TokenizerFast saves it\n",
        broken=set_json("model/tokenizer/tokenizer.json", post_processor=None),
    ),
    "a scheduler of another kind": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        'caused by: DIR/model/scheduler/scheduler_config.json: prediction_type is "epsilon"; '
        'it must be "flow_prediction"\n'
        "hint: if the model can do without, let it pass: `allow: [prediction_type]` under model\n",
        broken=set_json("model/scheduler/scheduler_config.json", prediction_type="epsilon"),
    ),
    "the low-noise expert alone": Case(
        BUILD,
        code=2,
        err="error: recipe.yaml:4:3: a text-to-video bundle needs the component denoiser_high\n"
        "hint: a single expert has to be called transformer: rename the folder transformer_2, and write in "
        'model_index.json "transformer": ["diffusers", "WanTransformer3DModel"], "transformer_2": [null, null], '
        '"boundary_ratio": null\n',
        broken=set_json("model/model_index.json", transformer=[None, None], boundary_ratio=1.0),
    ),
    # its weights
    "no weights": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/vae/diffusion_pytorch_model.safetensors: missing weights\n"
        "hint: is the download complete?\n",
        broken=remove(VAE),
    ),
    "a missing shard": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: "
        "missing weights\n"
        "hint: is the download complete?\n",
        broken=remove(SHARD),
    ),
    "a truncated shard": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: not "
        "a readable safetensors file\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: not "
        "a sound safetensors file: the tensors end at byte 28440 of 28439\n",
        broken=cut(SHARD, 1),
    ),
    "an empty shard": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: not "
        "a readable safetensors file\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: not "
        "a sound safetensors file: a header of 0 bytes in a file of 0\n",
        broken=write(SHARD, b""),
    ),
    "a shard that was never fetched": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: not "
        "a readable safetensors file\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: not "
        "a sound safetensors file: a header of 2336927755350992246 bytes in a file of 63\n"
        "hint: this is a pointer of git-lfs, not the file itself: run git lfs pull\n",
        broken=write(SHARD, "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"),
    ),
    "an index that names an absent tensor": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model.safetensors.index.json: the "
        "index names blocks.9.x, which diffusion_pytorch_model-00002-of-00003.safetensors does not hold\n",
        broken=rewrite_json(
            INDEX,
            lambda index: index["weight_map"].update(
                {"blocks.9.x": "diffusion_pytorch_model-00002-of-00003.safetensors"}
            ),
        ),
    ),
    "an index that leaves a tensor out": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00003-of-00003.safetensors: "
        "holds proj_out.weight, which diffusion_pytorch_model.safetensors.index.json does not list\n",
        broken=rewrite_json(INDEX, lambda index: index["weight_map"].pop("proj_out.weight")),
    ),
    "an index that leads elsewhere": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model.safetensors.index.json: "
        "weight_map must name a file of this folder for each tensor\n",
        broken=rewrite_json(
            INDEX,
            lambda index: index["weight_map"].update({"proj_out.weight": "../vae/diffusion_pytorch_model.safetensors"}),
        ),
    ),
    "1 TiB in 4 bytes": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/vae/diffusion_pytorch_model.safetensors: not a readable safetensors file\n"
        "caused by: DIR/model/vae/diffusion_pytorch_model.safetensors: not a sound safetensors "
        "file: the tensors end at byte 1099511627870 of 98\n",
        broken=write(VAE, safetensors([2**19, 2**19], 4)),
    ),
    "a product that overflows": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/vae/diffusion_pytorch_model.safetensors: not a readable safetensors file\n"
        "caused by: DIR/model/vae/diffusion_pytorch_model.safetensors: integer "
        "73786976294838206464 is beyond 2^53\n",
        broken=write(VAE, safetensors([2**32, 2**32], 4)),
    ),
    "a strange tensor": Case(
        BUILD,
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/vae/diffusion_pytorch_model.safetensors: holds x, a tensor that a "
        "model of this configuration does not have\n",
        broken=write(VAE, safetensors([1], 4)),
    ),
    # the output
    "an output below a file": Case(
        f"{BUILD} -o recipe.yaml/out",
        code=74,
        err="error: DIR/recipe.yaml/out/store: cannot be written\ncaused by: Not a directory\n",
    ),
    "a file for an output": Case(
        f"{BUILD} -o recipe.yaml",
        code=2,
        err="error: invalid value for '-o' / '--output' (env var: 'WANC_OUTPUT'): dir 'recipe.yaml' is a file\n"
        "hint: wanc build --help\n",
    ),
    "an output where nothing can be written": Case(
        f"{BUILD} -o /proc/wanc",
        code=74,
        err="error: /proc/wanc/store: cannot be written\ncaused by: No such file or directory\n",
    ),
    "an output in a file system that is read-only": Case(
        f"{BUILD} -o /sys/wanc",
        code=74,
        err="error: /sys/wanc/store: cannot be written\ncaused by: Operation not permitted\n",
    ),
    "somebody's folder for a bundle": Case(
        BUILD,
        code=2,
        err="error: DIR/artifacts/bundles/tiny: exists and is not a bundle\nhint: choose another destination\n",
        broken=write("artifacts/bundles/tiny/notes.txt", "mine"),
    ),
    "somebody's folder for a store": Case(
        BUILD,
        code=2,
        err="error: DIR/artifacts/store: is neither empty nor a store of wanc\n"
        "hint: choose another directory for the store\n",
        broken=write("artifacts/store/notes.txt", "mine"),
    ),
    "a store of a later version": Case(
        BUILD,
        code=2,
        err="error: DIR/artifacts/store/VERSION: says 'wanc-store 9', not 'wanc-store 1'\n"
        "hint: this store belongs to another version of wanc: choose another directory for this one\n",
        broken=write("artifacts/store/VERSION", "wanc-store 9\n"),
    ),
    "a file where bundles go": Case(
        BUILD,
        code=74,
        err="error: DIR/artifacts/bundles: cannot be written\ncaused by: Not a directory\n",
        broken=write("artifacts/bundles", "mine"),
    ),
    "a limit of file sizes": Case(
        BUILD,
        code=74,
        err="error: DIR/artifacts/store/tmp/RANDOM/VERSION.new: a file of 13 bytes is larger than "
        "allowed here; N bytes are free\n"
        "caused by: File too large\n"
        "hint: raise the file size limit (ulimit -f), or use a file system that takes files of "
        "this size\n",
        limits={resource.RLIMIT_FSIZE: 0},
    ),
    # wrong usage
    "no -o": Case(f"{BUILD} -o", code=2, err="error: option '-o' requires an argument\nhint: wanc --help\n"),
    "unknown option": Case(
        f"{BUILD} --frobnicate", code=2, err="error: no such option: --frobnicate\nhint: wanc build --help\n"
    ),
    "no recipe": Case("build", code=2, err="error: missing argument 'RECIPE'\nhint: wanc build --help\n"),
    # what programs see
    "an error of a recipe as JSON": Case(
        f"{BUILD} --json --set sampling.steps=many",
        code=2,
        err="error: --set sampling.steps=many: sampling.steps has to be a whole number, not the text many\n"
        "hint: The number of denoising steps, evenly spaced before the shift.\n",
    ),
    "an error of a checkpoint as JSON": Case(
        f"{BUILD} --json",
        code=65,
        err="error: recipe.yaml:4:11: the model cannot be read\n"
        "caused by: DIR/model/transformer/diffusion_pytorch_model-00002-of-00003.safetensors: "
        "missing weights\n"
        "hint: is the download complete?\n",
        broken=remove(SHARD),
    ),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("sound"), seed=1, shards=2)


@pytest.mark.parametrize("name", CASES)
def test_the_whole_answer(name: str, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    shutil.copytree(checkpoint, "model")
    case = CASES[name]
    assert answer(case, tmp_path) == (case.code, case.out, case.err)
