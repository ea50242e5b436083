"""Requests to tokens: renders, tokenizes and checks what a request asks, and remembers conversations.

The same for every runtime that has a `Vocabulary`. Touches no sequence, so a thread beside the step loop may
use it.
"""

from collections.abc import Sequence
from typing import Any

from pilotlight.chat.template import ChatTemplate
from pilotlight.errors import BadRequest, ContextOverflow
from pilotlight.runtimes.running import Prepared, Running
from pilotlight.runtimes.transcripts import Transcript, Transcripts
from pilotlight.runtimes.vocabulary import Vocabulary
from pilotlight.worker.protocol import Generate


class Prompts:
    """Of one model with `context` tokens that runs `parallel` sequences at a time."""

    def __init__(
        self, vocabulary: Vocabulary, template: ChatTemplate | None, *, context: int, parallel: int
    ) -> None:
        self._vocabulary = vocabulary
        self._template = template
        self._context = context
        self._parallel = parallel
        self.transcripts = Transcripts()

    def prepare(self, generate: Generate) -> Prepared:
        """Raises `BadRequest`."""
        text = self._prompt_text(generate)
        tokens = self.tokenize(generate, text)
        param = "messages" if generate.prompt.messages is not None else "prompt"
        limit = min(self._context, generate.context or self._context)
        if not tokens:
            raise BadRequest("the prompt is empty: it has no tokens", param="prompt")
        # Those of a text, too: its tokenizer may know more than the model has.
        self._check_tokens(param, tokens)
        if len(tokens) >= limit:
            raise ContextOverflow(
                f"the prompt has {len(tokens)} tokens; the context of this model holds {self._context}"
                f"{'' if limit == self._context else f', of which the policy allows {limit} now'}, "
                "and the answer needs at least one of them",
                param=param,
            )
        self._check_tokens("logit_bias", [token for token, _ in generate.sampling.logit_bias])
        if generate.n > self._parallel:
            raise BadRequest(f"n is {generate.n}; this model runs {self._parallel} at a time", param="n")
        room = limit - len(tokens)
        return Prepared(generate, text, tokens, min(generate.max_tokens or room, room))

    def tokenize(self, generate: Generate, text: str | None) -> list[int]:
        """Tokens of a rendered prompt, or those it came as (`text` None); not checked."""
        if text is None:
            return list(generate.prompt.tokens or ())
        if generate.cache_prompt and (known := self.transcripts.find(text)) is not None:
            rest = self._vocabulary.tokenize(text[len(known.text) :], add_special=False)
            # Only at a control token are the two sides of the cut certain to be tokenized apart.
            if rest and self._vocabulary.is_control(rest[0]):
                return [*known.tokens, *rest]
        # Many templates write the token that the tokenizer would add itself.
        bos = self._vocabulary.special_text("bos")
        doubled = bool(bos) and self._vocabulary.adds_bos and text.startswith(bos)
        return self._vocabulary.tokenize(text, add_special=not doubled)

    def remember(self, sequence: Running[Any]) -> bool:
        """Let the conversation's next turn find the tokens of this answer; False if there will be none.

        After a stop string they are more than the text.
        """
        prompt = sequence.prepared.text
        if prompt is None or not sequence.keeps or sequence.text.stopped:
            return False
        ended = sequence.tokens[-1] in self._vocabulary.end_tokens
        tokens = sequence.tokens[:-1] if ended else sequence.tokens
        self.transcripts.add(Transcript(prompt + sequence.answer, tuple(tokens)))
        return True

    def _prompt_text(self, generate: Generate) -> str | None:
        prompt = generate.prompt
        if prompt.messages is None:
            return prompt.text
        if self._template is None:
            raise BadRequest(
                "this model has no chat template; use /v1/completions, or set chat_template in models.toml",
                param="messages",
            )
        return self._template.render(prompt.messages, prompt.template_kwargs)

    def _check_tokens(self, param: str, tokens: Sequence[int]) -> None:
        last = self._vocabulary.num_vocab - 1
        for token in (min(tokens, default=0), max(tokens, default=0)):
            if not 0 <= token <= last:
                raise BadRequest(
                    f"{param}: there is no token {token}; this model's are 0 to {last}", param=param
                )
