"""Models of Hugging Face's transformers by their type, randomly initialised and fitted to the data."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from batchlab import BadRequest
from batchlab.models.checked_arguments import image, outputs


def build(
    kind: str,
    vocabulary: int | None = None,
    context: int | None = None,
    num_classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    **settings: Any,
) -> nn.Module:
    """A causal language model if the data offers a `vocabulary`, else an image classifier.

    `kind` is transformers' `model_type`: gpt2, llama, vit. `settings` are those of its configuration: `hidden_size`,
    `num_hidden_layers`; the others have transformers' defaults. Nothing is downloaded.

    Maps tokens (examples, length) to logits (examples, length, vocabulary), or images (examples, channels, height,
    width) to logits (examples, num_classes).
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise BadRequest(
            f"model.kind={kind} needs Hugging Face's transformers, which is not installed here: "
            "pip install transformers"
        ) from None
    makes: Any
    fitted: dict[str, Any]
    if vocabulary is not None:
        makes, tokens = transformers.AutoModelForCausalLM, dict.fromkeys(("bos_token_id", "eos_token_id"))
        fitted = {"vocab_size": vocabulary, "max_position_embeddings": context, "use_cache": False, **tokens}
    else:
        channels, rows, _ = image(f"hugging_face model.kind={kind}", input_shape)
        classes = outputs(f"hugging_face model.kind={kind}", num_classes, None)
        makes, fitted = transformers.AutoModelForImageClassification, {"num_labels": classes}
        fitted |= {"num_channels": channels, "image_size": rows}
    try:
        model = makes.from_config(transformers.AutoConfig.for_model(kind, **fitted | settings))
    except (ValueError, TypeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadRequest(f"model.kind={kind} cannot be built ({reason}): change the kind or a key") from None
    return Logits(model)


class Logits(nn.Module):
    """Wraps a model and returns only the logits of its output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(inputs).logits
        return logits
