"""Requests to tokens: renders, tokenizes and checks what a request asks, and remembers conversations.

The same for every runtime that has a `Vocabulary`. Touches no sequence, so a thread beside the step loop may
use it.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from pilotlight.chat.template import ChatTemplate
from pilotlight.errors import BadRequest, ContextOverflow
from pilotlight.runtimes.running import Prepared, Running
from pilotlight.runtimes.transcripts import Transcript, Transcripts
from pilotlight.runtimes.vocabulary import Vocabulary
from pilotlight.worker.protocol import Generate

LONG = 2**16
"""Characters of a text that is looked at in pieces before it is tokenized: of one with far more tokens than
there is room for, the whole may take minutes."""

LONGEST = 2**19
"""Characters that are tokenized at once. llama.cpp's tokenizers may take a third of a kilobyte of stack for
each in a row; see `worker.child`."""

PIECE = 2**14
"""Characters of a piece: no stack is too small for it."""

SLACK = 64
"""Tokens that a text may have more for being cut once."""


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
        limit = self._limit(generate)
        if not tokens:
            raise BadRequest("the prompt is empty: it has no tokens", param="prompt")
        # Those of a text, too: its tokenizer may know more than the model has.
        self._check_tokens(_param(generate), tokens)
        if len(tokens) >= limit:
            raise self._overflow(generate, f"{len(tokens)}")
        self._check_tokens("logit_bias", [token for token, _ in generate.sampling.logit_bias])
        if generate.n > self._parallel:
            raise BadRequest(f"n is {generate.n}; this model runs {self._parallel} at a time", param="n")
        room = limit - len(tokens)
        return Prepared(generate, text, tokens, min(generate.max_tokens or room, room))

    def tokenize(self, generate: Generate, text: str | None, longest: int | None = None) -> list[int]:
        """Tokens of a rendered prompt, or those it came as (`text` None); not checked.

        Raises `BadRequest` if more than the `longest` text would have to be tokenized, and `ContextOverflow`
        where it is plain to see without tokenizing the whole.
        """
        if text is None:
            return list(generate.prompt.tokens or ())
        if generate.cache_prompt and (known := self.transcripts.find(text)) is not None:
            rest = self._tokenize(generate, text[len(known.text) :], longest, add_special=False)
            # Only at a control token are the two sides of the cut certain to be tokenized apart.
            if rest and self._vocabulary.is_control(rest[0]):
                return [*known.tokens, *rest]
        # Many templates write the token that the tokenizer would add itself.
        bos = self._vocabulary.special_text("bos")
        doubled = bool(bos) and self._vocabulary.adds_bos and text.startswith(bos)
        return self._tokenize(generate, text, longest, add_special=not doubled)

    def _tokenize(
        self, generate: Generate, text: str, longest: int | None, *, add_special: bool
    ) -> list[int]:
        if longest is not None and len(text) > longest:
            raise BadRequest(f"{len(text)} characters are not to be tokenized now", param=_param(generate))
        # A text has no more tokens than bytes.
        if len(text) > LONG and (len(text) > LONGEST or len(text.encode()) > self._limit(generate)):
            joined = self._in_pieces(generate, text, add_special=add_special)
            if len(text) > LONGEST:
                return joined
        return self._vocabulary.tokenize(text, add_special=add_special)

    def _in_pieces(self, generate: Generate, text: str, *, add_special: bool) -> list[int]:
        """Nearly the tokens of the text: others where it was cut. Raises `ContextOverflow` early."""
        limit = self._limit(generate)
        tokens: list[int] = []
        for num_cuts, piece in enumerate(pieces(text)):
            is_first = not num_cuts
            tokens += self._vocabulary.tokenize(piece, add_special=add_special and is_first)
            if len(tokens) - SLACK * (num_cuts + 1) > limit:
                raise self._overflow(generate, f"more than {limit}")
        return tokens

    def _limit(self, generate: Generate) -> int:
        """Tokens of a prompt and its answer."""
        return min(self._context, generate.context or self._context)

    def _overflow(self, generate: Generate, num_tokens: str) -> ContextOverflow:
        limit = self._limit(generate)
        return ContextOverflow(
            f"the prompt has {num_tokens} tokens; the context of this model holds {self._context}"
            f"{'' if limit == self._context else f', of which the policy allows {limit} now'}, "
            "and the answer needs at least one of them",
            param=_param(generate),
        )

    def remember(self, sequence: Running[Any]) -> bool:
        """Let the conversation's next turn find the tokens of this answer; False if there will be none.

        After a stop string they are more than the text. An answer with tokens that have no text is not found:
        every prompt that begins with what is left would get those tokens, whoever asks.
        """
        prompt = sequence.prepared.text
        if prompt is None or not sequence.keeps or sequence.text.stopped:
            return False
        text, tokens = prompt + sequence.answer, list(sequence.tokens)
        if sequence.num_generated and tokens[-1] in self._vocabulary.end_tokens:
            tokens.pop()
        if text and all(map(self._vocabulary.piece, tokens[sequence.num_prompt :])):
            self.transcripts.add(Transcript(text, array("i", tokens)))
        return True

    def remember_beginning(self, prepared: Prepared) -> None:
        """Let other texts that begin as this prompt does find its tokens, up to the last control token.

        A template may go on from there as it did not before: as one does that drops the reasoning of turns
        that are over.
        """
        text, tokens = prepared.text, prepared.tokens
        at = next((i for i in reversed(range(len(tokens))) if self._vocabulary.is_control(tokens[i])), 0)
        if text is None or not at:
            return
        behind = b"".join(self._vocabulary.piece(token) for token in tokens[at + 1 :])
        end = self._vocabulary.control_text(tokens[at]) + behind.decode(errors="replace")
        if text.endswith(end) and len(text) > len(end):
            self.transcripts.add(Transcript(text.removesuffix(end), array("i", tokens[:at])))

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


def pieces(text: str) -> Iterator[str]:
    """The text, cut behind lines where it has any: no token of a chat's markup has a line's end inside."""
    start = 0
    while start < len(text):
        end = start + PIECE
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end


def _param(generate: Generate) -> str:
    """What the prompt came as."""
    return "messages" if generate.prompt.messages is not None else "prompt"
