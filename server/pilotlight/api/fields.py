"""Fields that clients really send and this server does not do, and the values of them that ask for nothing.

A field here is refused by name, with the reason, unless its value leaves everything as it is: `tools: []`,
`logprobs: false`, `mirostat: 0`. `null` always asks for nothing. Fields that are done are in `schema`.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

ANYTHING: Final = object()
"""As a harmless value: the field only tunes another one, which is refused when it is switched on."""


class Refusal(Struct, frozen=True):
    """Why a field is not done, and which of its values may still be sent."""

    reason: str
    harmless: tuple[Any, ...] = ()

    def asks_nothing(self, value: Any) -> bool:
        # `type`: in Python 0 == False, in JSON they are different requests.
        return value is None or any(
            safe is ANYTHING or (type(safe) is type(value) and safe == value) for safe in self.harmless
        )


_NO_TOOLS = "this version calls no tools; describe them in a message and read the answer's text"
_NO_LOGPROBS = "log-probabilities are not reported"
_NO_GRAMMAR = "output is not constrained to a grammar or schema"
_NO_SAMPLER = "there are temperature, top_k, top_p, min_p, typical_p and the penalties"
_TEXT_ONLY = "text is the only modality"
_ONE_ANSWER = "every answer is returned; use n"
_NO_SPECIAL = "of special tokens only marks of reasoning are part of the answer"
_NO_TEMPLATE = "no chat template is used here; use /v1/chat/completions"

_CONSTRAINTS = {
    name: Refusal(_NO_GRAMMAR, ("", {}))
    for name in (
        "grammar", "json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar",
        "guided_decoding_backend", "guided_whitespace_pattern", "structured_outputs", "format",
    )
}  # fmt: skip

_SAMPLERS = {
    "mirostat": Refusal(_NO_SAMPLER, (0,)),
    "mirostat_mode": Refusal(_NO_SAMPLER, (0,)),
    "dynatemp_range": Refusal(_NO_SAMPLER, (0, 0.0)),
    "xtc_probability": Refusal(_NO_SAMPLER, (0, 0.0)),
    "dry_multiplier": Refusal(_NO_SAMPLER, (0, 0.0)),
    "top_n_sigma": Refusal(_NO_SAMPLER, (-1, -1.0, 0, 0.0)),
    "top_a": Refusal(_NO_SAMPLER, (0, 0.0)),
    "tfs_z": Refusal(_NO_SAMPLER, (1, 1.0)),
    "smoothing_factor": Refusal(_NO_SAMPLER, (0, 0.0)),
    "length_penalty": Refusal(_NO_SAMPLER, (1, 1.0)),
    "use_beam_search": Refusal(_NO_SAMPLER, (False,)),
    "samplers": Refusal("the order of the samplers is fixed", ([],)),
    "penalize_nl": Refusal(_NO_SAMPLER, (False,)),
    "min_tokens": Refusal("an answer ends where the model ends it", (0,)),
    "min_keep": Refusal(_NO_SAMPLER, (0,)),
    **{
        name: Refusal(_NO_SAMPLER, (ANYTHING,))
        for name in (
            "mirostat_tau", "mirostat_eta", "dynatemp_exponent", "xtc_threshold", "dry_base",
            "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "smoothing_curve",
        )
    },
}  # fmt: skip

_HOSTED = {
    "store": Refusal("no answer can be fetched again later", (False,)),
}

_LOCAL = {
    "n_predict": Refusal("send max_tokens"),
    "num_predict": Refusal("send max_tokens"),
    "num_ctx": Refusal("the context is set per model in models.toml"),
    "max_length": Refusal("send max_tokens"),
    "n_probs": Refusal(_NO_LOGPROBS, (0,)),
    "n_keep": Refusal("a prompt that is too long is refused, never cut", (0, -1)),
    "n_indent": Refusal("answers are not filtered by indentation", (0,)),
    "n_discard": Refusal("a context that is full ends the answer, it is never shifted", (0,)),
    "id_slot": Refusal("the server chooses the sequence itself", (-1,)),
    "t_max_predict_ms": Refusal("close the connection to end an answer early", (0,)),
    "post_sampling_probs": Refusal(_NO_LOGPROBS, (False,)),
    "return_tokens": Refusal("answers are text", (False,)),
    "return_progress": Refusal("prompt progress is not reported", (False,)),
    "timings_per_token": Refusal("timings are in /metrics", (False,)),
    "reasoning_format": Refusal("reasoning is left in the text", ("none", "auto")),
    "lora": Refusal("adapters are set per model in models.toml, by [[model.lora]]", ([],)),
    "options": Refusal("send the sampling fields at the top level", ({},)),
    "stop_token_ids": Refusal("send the text in stop", ([],)),
    "bad_words": Refusal("send logit_bias", ([],)),
    "allowed_token_ids": Refusal("send logit_bias", ([],)),
    "include_stop_str_in_output": Refusal("the stop string is never part of the answer", (False,)),
    "skip_special_tokens": Refusal(_NO_SPECIAL, (True,)),
    "spaces_between_special_tokens": Refusal(_NO_SPECIAL, (True, False)),
    "truncate_prompt_tokens": Refusal("a prompt that is too long is refused, never cut"),
    "prompt_logprobs": Refusal(_NO_LOGPROBS),
    "priority": Refusal('send service_tier: "flex" for what is not urgent', (0,)),
}

_COMMON = {**_CONSTRAINTS, **_SAMPLERS, **_HOSTED, **_LOCAL}

CHAT: Mapping[str, Refusal] = {
    **_COMMON,
    "tools": Refusal(_NO_TOOLS, ([],)),
    "tool_choice": Refusal(_NO_TOOLS, ("none", "auto")),
    "parallel_tool_calls": Refusal(_NO_TOOLS, (True, False)),
    "functions": Refusal(_NO_TOOLS, ([],)),
    "function_call": Refusal(_NO_TOOLS, ("none", "auto")),
    "response_format": Refusal(_NO_GRAMMAR, ({"type": "text"},)),
    "logprobs": Refusal(_NO_LOGPROBS, (False,)),
    "top_logprobs": Refusal(_NO_LOGPROBS, (0,)),
    "audio": Refusal(_TEXT_ONLY),
    "modalities": Refusal(_TEXT_ONLY, (["text"],)),
    "prediction": Refusal("predicted outputs are not used"),
    "moderation": Refusal("nothing is moderated"),
    "web_search_options": Refusal("the server has no network"),
    "think": Refusal("send chat_template_kwargs with the variable of the model's template"),
    "enable_thinking": Refusal('send chat_template_kwargs: {"enable_thinking": ...}'),
    "reasoning": Refusal("send chat_template_kwargs with the variable of the model's template"),
    "reasoning_effort": Refusal("send chat_template_kwargs with the variable of the model's template"),
    "thinking": Refusal("send chat_template_kwargs with the variable of the model's template"),
    "verbosity": Refusal("ask for it in a message", ("medium",)),
    "best_of": Refusal(_ONE_ANSWER, (1,)),
    "echo": Refusal("the prompt is not repeated in the answer", (False,)),
    "suffix": Refusal("text is not filled in"),
    "prompt": Refusal("send messages, or use /v1/completions"),
    "add_generation_prompt": Refusal("an answer always starts a new turn", (True,)),
    "continue_final_message": Refusal("an answer always starts a new turn", (False,)),
    "documents": Refusal("send them in a message", ([],)),
    "chat_template": Refusal("the template is set per model in models.toml"),
    "add_special_tokens": Refusal("the template decides", (False,)),
}

COMPLETIONS: Mapping[str, Refusal] = {
    **_COMMON,
    "logprobs": Refusal(_NO_LOGPROBS, (False,)),
    "best_of": Refusal(_ONE_ANSWER, (1,)),
    "echo": Refusal("the prompt is not repeated in the answer", (False,)),
    "suffix": Refusal("text is not filled in", ("",)),
    "response_format": Refusal(_NO_GRAMMAR, ({"type": "text"},)),
    "max_completion_tokens": Refusal("send max_tokens"),
    "messages": Refusal("send prompt, or use /v1/chat/completions"),
    "tools": Refusal(_NO_TOOLS, ([],)),
    "input_prefix": Refusal("text is not filled in", ("",)),
    "input_suffix": Refusal("text is not filled in", ("",)),
    "prompt_embeds": Refusal("send prompt"),
    "think": Refusal(_NO_TEMPLATE),
    "enable_thinking": Refusal(_NO_TEMPLATE),
    "add_special_tokens": Refusal("the model's own settings decide", (True,)),
}
